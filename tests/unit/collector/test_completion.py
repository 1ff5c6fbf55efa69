"""What the shell completes: names out of the state file, quickly, and never an error."""

import os
import subprocess
import sys

import pytest

from fakes.fake_fleet import EPOCH, START_NS, FakeDevice, FakeWorld, make_inventory
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_protocol import codec, topics
from fleetmark_protocol.messages import Status


@pytest.fixture
def data(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi-1"))
    world.submit("first")
    world.now_ns += 10**9
    world.submit("second")
    world.close()
    registry = DeviceRegistry(tmp_path / "state.db")
    status = codec.encode(Status(online=True, boot_id=EPOCH, agent_version="1", started_ns=1))
    for name, tags in (("pi-1", ("pi4", "bench")), ("ec2-1", ("cloud",))):
        registry.receive(topics.topic("lab", name, "status"), status)
        inventory = codec.encode(make_inventory(tags=tags, time_ns=START_NS))
        registry.receive(topics.topic("lab", name, "inventory"), inventory)
    registry.flush()
    registry.close()
    return tmp_path


COMMAND = """
import sys
from fleetmark_collector.cli.main import main
sys.argv[0] = "fleetmark"  # the shell asks for completion by the program's name
main()
"""


def complete(words, env=None):
    """What bash would be offered for the last word."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env={
            **os.environ,
            "_FLEETMARK_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
            **(env or {}),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


def asked(data, *words):
    return complete(["fleetmark", *words], {"FLEETMARK_DATA_DIR": str(data)})


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("campaign", "show", ""), ["second", "first"]),
        (("campaign", "cancel", "f"), ["first"]),
        (("campaign", "retry", "--device", ""), ["ec2-1", "pi-1"]),
        (("campaign", "clone", "--tag", ""), ["bench", "cloud", "pi4"]),
        (("campaign", "clone", "--tag", "p"), ["pi4"]),
        (("devices", "e"), ["ec2-1"]),
        (("report", "s"), ["second"]),
        (("job", "show", "first.pi-1.00"), [f"first.pi-1.00{n}" for n in (1, 2, 3, 4)]),
        (("campaign", "retry", "--state", "t"), ["timed_out"]),
    ],
)
def test_names_are_offered_that_begin_so(data, words, offered):
    assert asked(data, *words) == offered


@pytest.mark.parametrize("broken", ["missing", "no database", "no tables"])
def test_where_nothing_can_be_read_nothing_is_offered_and_nothing_is_made(tmp_path, broken):
    if broken == "no database":
        (tmp_path / "state.db").write_text("something else")
    elif broken == "no tables":
        DeviceRegistry(tmp_path / "state.db").close()
    before = sorted(tmp_path.iterdir())
    assert asked(tmp_path, "campaign", "show", "") == []
    assert sorted(tmp_path.iterdir()) == before


def test_the_directory_may_come_from_the_command_line_or_the_settings_file(data, tmp_path):
    words = ["fleetmark", "campaign", "show", "--data-dir", str(data), ""]
    assert complete(words) == ["second", "first"]
    words = ["fleetmark", "campaign", "show", ""]
    config = tmp_path / "collector.toml"
    config.write_text(f"data_dir = '{data}'\n")
    assert complete(words, {"FLEETMARK_CONFIG": str(config)}) == ["second", "first"]
    config.write_text("data_dir = [broken")
    assert complete(words, {"FLEETMARK_CONFIG": str(config)}) == []


def test_nothing_heavy_is_loaded_for_it(data):
    code = (
        "import sys, typer\n"
        "from types import SimpleNamespace\n"
        "from fleetmark_collector.cli.completion import complete_campaign\n"
        f"names = complete_campaign(SimpleNamespace(params={{'data_dir': {str(data)!r}}}), '')\n"
        "heavy = {'pydantic', 'rich', 'numpy', 'ruamel'} & set(sys.modules)\n"
        "print(len(names), heavy or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "2 light", done.stderr
