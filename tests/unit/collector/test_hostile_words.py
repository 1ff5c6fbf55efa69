"""What devices say reaches an operator's terminal as text, never as orders to the terminal."""

import json
import re

import pytest
import typer
from typer.testing import CliRunner

from fakes.fake_fleet import EPOCH, START_NS, FakeDevice, FakeWorld, make_inventory, trial_record
from fleetmark_collector.cli import campaign, devices, job, report
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol import codec, topics
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import BackendInfo, Hardware, ModelInfo, Status
from fleetmark_protocol.records import EventRecord, Failure, JobRecord

WORDS = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202egnp.\u2066[/red][link=x]\r\b\x7f words"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def say_it_everywhere(world: FakeWorld) -> None:
    """Fill every text that a device may send with words that a terminal would obey."""
    spec = next(iter(world.devices[0].specs.values()))
    failure = Failure(code=WORDS, message=WORDS)
    trial = trial_record(spec, 0).model_copy(
        update={
            "backend": WORDS,
            "model": WORDS,
            "quantization": WORDS,
            "workload": WORDS,
            "options": {"\x9b31m\u202ekey": WORDS},
            "verdict_reasons": (WORDS,),
            "failure": failure,
            "output_text": WORDS,
        }
    )
    end = JobRecord(
        time_ns=START_NS + 9,
        campaign_id="c1",
        job_id=spec.job_id,
        attempt=1,
        state=JobState.FAILED,
        trials_recorded=1,
        failure=failure,
    )
    event = EventRecord(
        time_ns=START_NS + 3, severity="error", code=WORDS, message=WORDS, job_id=spec.job_id
    )
    records = [end.model_copy(update={"state": JobState.IN_PROGRESS}), trial, event, end]
    world.sink.write(
        [Stored("lab", "pi-1", EPOCH, 100 + seq, one) for seq, one in enumerate(records)]
    )
    world.dispatcher.tick()
    registry = DeviceRegistry(world.state_file)
    hardware = Hardware(arch=WORDS, os=WORDS, kernel=WORDS, hostname=WORDS, board=WORDS)
    inventory = make_inventory(
        hardware=hardware,
        backends=(
            BackendInfo(name=WORDS, available=True, version=WORDS, features=(WORDS,)),
            BackendInfo(name=WORDS, available=False, reason=WORDS, hint=WORDS),
        ),
        models=(ModelInfo(name=WORDS, sha256="ab" * 32, bytes=1, format=WORDS),),
        tags=("pi4",),
    )
    status = Status(online=True, boot_id=EPOCH, agent_version=WORDS, started_ns=START_NS)
    registry.receive(topics.topic("lab", "pi-1", "status"), codec.encode(status))
    registry.receive(topics.topic("lab", "pi-1", "inventory"), codec.encode(inventory))
    registry.flush()
    registry.close()


@pytest.fixture
def world(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi-1"))
    world.submit("c1")
    world.dispatcher.tick()
    say_it_everywhere(world)
    yield world
    world.close()


@pytest.fixture
def run(world):
    app = typer.Typer()
    devices.register(app)
    report.register(app)
    app.add_typer(job.app, name="job")
    app.add_typer(campaign.app, name="campaign")

    def invoke(*args):
        done = CliRunner().invoke(
            app, [*args, "--data-dir", str(world.directory)], env={"COLUMNS": "400"}
        )
        # `job show` tells by 1 that the job failed.
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        return done.output

    return invoke


@pytest.mark.parametrize(
    "command",
    [
        ("devices",),
        ("devices", "pi-1"),
        ("job", "show", "c1.pi-1.001"),
        ("job", "logs", "c1.pi-1.001"),
        ("campaign", "status", "c1"),
        ("campaign", "list"),
        ("report", "c1"),
    ],
    ids=" ".join,
)
def test_words_of_a_device_are_shown_and_not_obeyed(run, command):
    shown = run(*command)
    assert OBEYED.findall(shown) == []
    if command not in (("campaign", "list"), ("campaign", "status", "c1")):
        assert "words" in shown


@pytest.mark.parametrize(
    "command",
    [
        ("devices", "--json"),
        ("job", "show", "c1.pi-1.001", "--json"),
        ("campaign", "status", "c1", "--json"),
    ],
    ids=" ".join,
)
def test_json_says_the_same_words_without_a_character_that_is_obeyed(run, command):
    shown = run(*command)
    assert OBEYED.findall(shown) == []
    assert any(WORDS in text for text in texts(json.loads(shown)))


def texts(value) -> list[str]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return [text for one in value for text in texts(one)]
    return [value] if isinstance(value, str) else []
