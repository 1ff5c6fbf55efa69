"""What released agents said, through today's collector: all of it stored, or refused and kept."""

import random
from collections import Counter

import pytest

from fleetmark_collector.config import IngestSettings
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.ingest import Ingest
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol import codec, topics
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.version import __version__, objection
from recordedwire import FAR, NEAR, RELEASES, records, wire

FOREVER_NS = 2**62


class Centre:
    """Today's registry, ingest and store, and what they published."""

    def __init__(self, directory):
        self.acks: list[Ack] = []
        self.registry = DeviceRegistry(directory / "state.db")
        self.letters = directory / "dead_letters.jsonl"
        self.sink = SqliteSink(directory / "store.db")
        self.reader = SqliteReader(directory / "store.db")
        self.ingest = Ingest(
            IngestSettings(batch_age_s=0.01),
            self.sink,
            DeadLetters(self.letters),
            lambda topic, payload, retain: self.acks.append(codec.decode(Ack, payload)),
            self.registry.seen,
            random.Random(1),
        )

    def take(self, release, version=None):
        """Take in all that the agent said, in its order, and stop."""
        for channel in ("status", "inventory"):
            for said in wire(release, channel, version)[:1]:
                self.registry.receive(said.topic, said.payload)
        self.ingest.start()
        for said in wire(release, "data", version):
            self.ingest.receive(said.topic, said.payload)
        self.ingest.stop()

    def stored(self, release):
        """All records of the store as plain data, without their numbers."""
        topic = topics.parse(wire(release, "data")[0].topic)
        known = records(release).values()
        found = list(self.reader.telemetry(topic.fleet, topic.device, 0, FOREVER_NS))
        found += [one.record for one in self.reader.events()]
        for campaign_id in {one["campaign_id"] for one in known if "campaign_id" in one}:
            for read in (self.reader.trials, self.reader.loads, self.reader.job_records):
                found += [one.record for one in read(campaign_id)]
        return [one.model_dump(mode="json", exclude_none=True) for one in found]

    def acked(self):
        spans = [span for ack in self.acks for span in ack.ranges]
        return {seq for first, last in spans for seq in range(first, last + 1)}

    def close(self):
        self.registry.close()
        self.reader.close()
        self.sink.close()


@pytest.fixture
def centre(tmp_path):
    made = Centre(tmp_path)
    yield made
    made.close()


def test_there_is_a_recording_of_a_release_that_today_s_version_must_go_with():
    assert RELEASES, "record one: tools/record_wire.py"


@pytest.mark.parametrize("release", RELEASES)
def test_a_recording_holds_every_kind_of_record_and_tells_its_version(release):
    kinds = Counter(one["kind"] for one in records(release).values())
    assert set(kinds) == {"telemetry", "trial", "load", "job", "event"}
    assert {said.json()["agent_version"] for said in wire(release, "data")} == {release}


@pytest.mark.parametrize("version", [None, *NEAR])
@pytest.mark.parametrize("release", RELEASES)
def test_what_a_release_or_one_minor_version_apart_sends_is_stored_as_it_was_sent(
    centre, release, version
):
    centre.take(release, version)
    sent = records(release)
    key = sorted_by_kind_and_time(sent.values())
    assert sorted_by_kind_and_time(centre.stored(release)) == key
    assert centre.acked() == set(sent)
    assert {ack.epoch for ack in centre.acks} == {wire(release, "data")[0].json()["epoch"]}
    assert {ack.collector_version for ack in centre.acks} == {__version__}
    assert {ack.refused for ack in centre.acks} == {None}
    assert not centre.letters.exists()
    stats = centre.ingest.stats()
    # Some may have been sent twice.
    came = sum(len(said.json()["records"]) for said in wire(release, "data"))
    assert (stats.records_written, stats.records_dead, stats.messages_refused) == (came, 0, 0)
    (device,) = centre.registry.list()
    said = wire(release, "inventory", version)[0].json()
    assert device.inventory.model_dump(mode="json", exclude_none=True) == said
    assert device.online
    assert device.status.agent_version == (version or release)


@pytest.mark.parametrize("version", FAR)
@pytest.mark.parametrize("release", RELEASES)
def test_what_comes_from_further_apart_is_neither_stored_nor_buried_but_refused_in_words(
    centre, release, version
):
    centre.take(release, version)
    assert centre.stored(release) == []
    assert not centre.letters.exists()
    reason = objection(agent=version, collector=__version__)
    assert [(ack.refused, ack.ranges) for ack in centre.acks] == [(reason, ())] * len(
        wire(release, "data")
    )
    assert f"agent {version} and collector {__version__}" in reason
    stats = centre.ingest.stats()
    assert (stats.records_written, stats.messages_dead) == (0, 0)
    assert stats.messages_refused == len(centre.acks)
    (device,) = centre.registry.list()
    assert device.online
    assert device.last_seen_ns is not None


def sorted_by_kind_and_time(found):
    """Return records in one order, whatever order they came in."""
    return sorted(found, key=lambda one: (one["kind"], one["time_ns"]))
