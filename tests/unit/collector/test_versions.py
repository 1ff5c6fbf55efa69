"""Data messages of agents that do not go with us: refused, counted, logged once, nothing kept."""

import json
import logging
import random

import pytest

from collected import EPOCH, event, telemetry, trial
from fakes.fake_writer import FakeWriter
from fleetmark_collector.batch import Refused
from fleetmark_collector.config import IngestSettings
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.ingest import Ingest
from fleetmark_collector.tally import Tally
from fleetmark_collector.versions import MAX_LOGGED, Refuser
from fleetmark_protocol import codec
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.records import RECORD
from fleetmark_protocol.version import __version__, objection
from recordedwire import FAR

PI = "fleetmark/v1/lab/pi/data"


class Rig:
    def __init__(self, directory):
        self.letters = directory / "dead.jsonl"
        self.writer = FakeWriter()
        self.said = []
        self.seen = []
        self.ingest = Ingest(
            IngestSettings(batch_age_s=0.01),
            self.writer,
            DeadLetters(self.letters),
            lambda topic, payload, retain: self.said.append((topic, codec.decode(Ack, payload))),
            self.seen.extend,
            random.Random(1),
        )

    def take(self, *payloads, topic=PI):
        self.ingest.start()
        for payload in payloads:
            self.ingest.receive(topic, payload)
        self.ingest.stop()
        return [ack for _, ack in self.said]


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def data(*numbered, version=FAR[0]):
    items = [(seq, RECORD.dump_json(one, exclude_none=True)) for seq, one in numbered]
    return codec.encode_batch(EPOCH, items, version)


def unversioned(payload):
    said = json.loads(payload)
    del said["agent_version"]
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    "payload",
    [
        data((1, telemetry())),
        data((1, trial()), (2, event())),
        # What only a version of its own could read is neither ours to judge nor to bury.
        data((1, telemetry())).replace(b'"telemetry"', b'"hologram"'),
        data().replace(b"[]", b'"streamed"'),
        data().replace(b"[]", b"[" + b",".join([b"{}"] * 1001) + b"]"),
    ],
)
def test_nothing_is_written_or_buried_and_the_agent_is_told_why(rig, payload):
    (ack,) = rig.take(payload)
    assert ack == Ack(
        epoch=EPOCH,
        ranges=(),
        collector_version=__version__,
        refused=objection(agent=FAR[0], collector=__version__),
    )
    assert rig.said[0][0] == "fleetmark/v1/lab/pi/ack"
    assert rig.writer.written == []
    assert not rig.letters.exists()
    assert rig.seen == [("lab", "pi")]
    assert rig.ingest.stats().messages_refused == 1


@pytest.mark.parametrize("record", [telemetry(), trial()])
def test_an_agent_from_before_versions_were_said_is_taken(rig, record):
    (ack,) = rig.take(unversioned(data((1, record))))
    assert (ack.refused, ack.ranges) == (None, ((1, 1),))
    assert [item.seq for item in rig.writer.written] == [1]


def test_an_agent_from_before_versions_were_said_is_refused_by_a_much_newer_collector(
    rig, monkeypatch
):
    for module in ("fleetmark_collector.batch", "fleetmark_protocol.codec"):
        monkeypatch.setattr(f"{module}.__version__", "0.3.0")
    acks = rig.take(*map(unversioned, (data((1, telemetry())), data().replace(b"[]", b"7"))))
    assert ["agent 0.1.0" in ack.refused for ack in acks] == [True, True]
    assert rig.writer.written == []
    assert not rig.letters.exists()


def test_a_backlog_that_is_refused_makes_nobody_a_culprit(rig):
    large = data(*((seq, trial(seq, output_text="x" * 4000)) for seq in range(1, 201)))
    assert len(large) > 500_000
    acks = rig.take(*[large] * 20)
    assert [ack.refused is not None for ack in acks] == [True] * 20


def test_what_is_no_batch_and_tells_no_version_is_poison_as_ever(rig):
    assert rig.take(unversioned(data().replace(b"[]", b"7"))) == []
    assert rig.ingest.stats().messages_dead == 1
    assert rig.letters.exists()


def test_others_in_the_same_write_are_not_held_up(rig):
    acks = rig.take(data((1, telemetry())), data((2, telemetry(2)), version=__version__))
    assert sorted(ack.ranges for ack in acks) == [(), ((2, 2),)]
    assert [item.seq for item in rig.writer.written] == [2]


def test_an_empty_batch_is_answered_by_whoever_would_take_one(rig):
    (ack,) = rig.take(data(version=__version__))
    assert ack == Ack(epoch=EPOCH, ranges=(), collector_version=__version__)


def test_the_log_names_each_version_of_a_device_once_and_not_without_end(rig, caplog):
    caplog.set_level(logging.WARNING)
    far = [f"99.{number}.0" for number in range(2 * MAX_LOGGED)]
    rig.take(*(data((1, telemetry()), version=one) for one in far for _ in range(2)))
    said = [one for one in caplog.records if one.getMessage() == "agent_refused"]
    assert len(said) == MAX_LOGGED
    assert "99.0.0" in said[0].values["reason"]


@pytest.mark.parametrize("version", ["x" * 257, "0.1\x00"])
def test_a_version_that_no_text_may_be_is_poison_on_both_ways_of_reading(rig, version):
    assert rig.take(data((1, telemetry()), version=version)) == []
    assert rig.ingest.stats().messages_dead == 1


def test_a_newer_agents_field_is_kept_and_its_new_kind_of_value_is_buried_not_lost(rig):
    newer = data((1, telemetry(fan_rpm=900)), (2, trial()), version=__version__)
    newer = newer.replace(b'"workload_kind":"single"', b'"workload_kind":"video"')
    (ack,) = rig.take(newer)
    assert ack.ranges == ((1, 2),)
    (kept,) = rig.writer.written
    assert kept.record.fan_rpm == 900
    (letter,) = rig.letters.read_text().splitlines()
    assert "workload_kind" in json.loads(letter)["reason"]


def test_what_is_remembered_of_the_refused_is_bounded(monkeypatch):
    monkeypatch.setattr("fleetmark_collector.versions.MAX_KNOWN", 10)
    refuser = Refuser(lambda *_: None, lambda _: None, Tally())
    for number in range(100):
        refuser.refuse(Refused("lab", f"d{number}", EPOCH, FAR[0], "too far away"))
        refuser.refuse(Refused("lab", f"d{number}", EPOCH, FAR[0], "too far away"))
    assert 0 < len(refuser._logged) <= 10
