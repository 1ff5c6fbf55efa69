"""`fleetmark devices NAME`: what one device has, and what is missing for the rest."""

import json
from contextlib import closing

import pytest
import typer
from typer.testing import CliRunner

from fakes.fake_fleet import EPOCH, START_NS, make_inventory
from fleetmark_collector.checkup import examine
from fleetmark_collector.cli import devices
from fleetmark_collector.config import load_settings
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.messages import BackendInfo, ModelInfo, Status
from fleetmark_protocol.version import __version__, objection
from recordedwire import FAR

BACKENDS = (
    BackendInfo(
        name="xllamacpp",
        available=True,
        version="2026.10.1",
        features=("AVX2", "FMA"),
        formats=("gguf",),
        takes=("threads",),
    ),
    BackendInfo(
        name="ollama",
        available=False,
        reason="no server answers",
        hint="install [ollama]",
    ),
)
MODEL = ModelInfo(
    name="tiny.gguf", sha256="ab" * 32, bytes=2**20, quantization="Q4_0", bits_per_weight=4.5
)


@pytest.fixture
def run(tmp_path):
    registry = DeviceRegistry(tmp_path / "state.db")
    status = Status(online=True, boot_id=EPOCH, agent_version="1", started_ns=START_NS)
    inventory = make_inventory(backends=BACKENDS, models=(MODEL,))
    registry.receive(topics.topic("lab", "pi-1", "status"), codec.encode(status))
    registry.receive(topics.topic("lab", "pi-1", "inventory"), codec.encode(inventory))
    registry.receive(topics.topic("lab", "pi-2", "status"), codec.encode(status))
    registry.flush()
    registry.close()
    app = typer.Typer()
    devices.register(app)

    def invoke(*args):
        return CliRunner().invoke(app, [*args, "--data-dir", str(tmp_path)], env={"COLUMNS": "200"})

    return invoke


def test_a_device_shows_its_engines_with_versions_features_formats_and_options(run):
    done = run("pi-1")
    assert done.exit_code == 0
    assert "xllamacpp 2026.10.1" in done.output
    assert "built with: AVX2, FMA" in done.output
    assert "reads: gguf" in done.output
    assert "honours: threads" in done.output
    assert "tiny.gguf: gguf, Q4_0, 4.50 bits per weight, 1.0 MiB" in done.output


def test_of_an_engine_that_is_missing_the_reason_and_the_remedy_are_shown(run):
    output = run("pi-1").output
    assert "ollama: not available: no server answers" in output
    assert "to have it: install [ollama]" in output


def test_json_has_one_device_with_all_of_it(run):
    (found,) = json.loads(run("pi-1", "--json").output)
    assert found["backends"][0]["features"] == ["AVX2", "FMA"]
    assert found["backends"][1]["hint"] == "install [ollama]"


def test_a_device_that_has_not_said_what_it_has_is_shown_as_such(run):
    assert "has not said yet" in run("pi-2").output


def test_an_unknown_device_is_the_users_mistake(run):
    done = run("pi-3")
    assert isinstance(done.exception, ConfigError)
    assert "no device 'pi-3' has been seen (did you mean 'pi-" in str(done.exception)


def test_a_device_whose_version_does_not_go_with_ours_is_shown_with_what_to_do(tmp_path, run):
    reason = f"agent {FAR[0]} and collector {__version__} do not work together"
    with closing(DeviceRegistry(tmp_path / "state.db")) as registry:
        for name, version in (("pi-1", __version__), ("pi-2", FAR[0])):
            said = Status(online=True, boot_id=EPOCH, agent_version=version, started_ns=START_NS)
            registry.receive(topics.topic("lab", name, "status"), codec.encode(said))
        registry.flush()
    told = [line for line in run().output.splitlines() if "nothing of it is taken" in line]
    assert told == [
        f"pi-2 (lab): nothing of it is taken: {objection(agent=FAR[0], collector=__version__)}"
    ]
    assert f"nothing of it is taken: {reason}" in run("pi-2").output
    assert f"agent: {FAR[0]}" in run("pi-2").output
    near, far = json.loads(run("--json").output)
    assert near["version_problem"] is None
    assert far["version_problem"].startswith(reason)
    settings = load_settings(None, {"data_dir": tmp_path})
    (finding,) = [one for one in examine(settings) if one.name == "devices"]
    assert finding.level == "warn"
    assert reason in finding.text
    assert "upgrade the centre first" in finding.todo
