"""Several writer threads: the same promises as with one, while the store works at more at once."""

import random
import threading
import time

import pytest

from collected import data, telemetry
from fakes.fake_writer import FakeWriter
from fleetmark_collector.config import IngestSettings
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.ingest import Ingest
from fleetmark_protocol import codec
from fleetmark_protocol.errors import ConfigError, PartialWrite, StoreUnavailable
from fleetmark_protocol.messages import Ack
from servers import wait_for

PI = "fleetmark/v1/lab/pi/data"


class Rig:
    def __init__(self, tmp_path, writer, **settings):
        self.writer = writer
        self.acked: set[int] = set()
        self.too_early: set[int] = set()
        self.ingest = Ingest(
            IngestSettings(**{"batch_age_s": 0.01, **settings}),
            writer,
            DeadLetters(tmp_path / "dead.jsonl"),
            self.publish,
            rng=random.Random(1),
        )

    def publish(self, topic, payload, retain):
        durable = {item.seq for item in list(self.writer.written)}
        for first, last in codec.decode(Ack, payload).ranges:
            self.acked |= {*range(first, last + 1)}
            self.too_early |= {*range(first, last + 1)} - durable

    def receive(self, *seqs):
        self.ingest.receive(PI, data(*((seq, telemetry(seq)) for seq in seqs)))


@pytest.fixture
def rig(tmp_path):
    made: list[Rig] = []

    def make(writer, **settings) -> Rig:
        made.append(Rig(tmp_path, writer, **settings))
        return made[-1]

    yield make
    for one in made:
        one.writer.gate.set()
        one.ingest.stop()


def test_while_the_store_works_at_one_write_the_next_ones_are_made_and_begun(rig):
    it = rig(FakeWriter(threads=3), batch_records=2)
    it.writer.gate.clear()
    it.ingest.start()
    for seq in range(1, 11):
        it.receive(seq)
    wait_for(lambda: len(it.writer.calls) == 3, what="three writes at once")
    assert it.acked == set()
    assert it.ingest.stats().lag_s >= 0
    it.writer.gate.set()
    wait_for(lambda: it.acked == set(range(1, 11)), what="all acks")
    assert it.too_early == set()


def test_a_thread_gathers_alone_so_batches_are_as_large_as_with_one(rig):
    it = rig(FakeWriter(threads=3), batch_age_s=60)
    for seq in range(1, 31):
        it.receive(seq)
    it.ingest.start()
    it.ingest.stop()
    assert it.writer.calls == [30]


def test_with_failures_in_between_each_record_is_acknowledged_and_none_too_early(rig):
    gone = StoreUnavailable("gone")
    it = rig(FakeWriter([None, gone, gone, None, gone], threads=3), batch_records=5)
    it.ingest.start()
    for seq in range(1, 101):
        it.receive(seq)
    wait_for(lambda: it.acked == set(range(1, 101)), what="all acks")
    assert it.too_early == set()
    assert it.ingest.stats().records_written == 100
    assert it.ingest.stats().store_available


def test_an_error_that_no_trying_mends_ends_all_threads_and_acknowledges_nothing(rig):
    refused = ConfigError("no such database", hint="make it")
    it = rig(FakeWriter([refused] * 100, threads=3), batch_records=1)
    it.ingest.start()
    for seq in range(1, 11):
        it.receive(seq)
    wait_for(lambda: it.ingest.failure is not None, what="the end")
    it.ingest.stop()
    assert it.ingest.failure is refused
    assert it.acked == set()
    it.receive(99)
    assert it.ingest.stats().messages_dropped >= 1, "nothing is taken any more"


def test_a_store_that_asks_to_be_left_alone_is_left_alone_by_all_threads(rig):
    busy = StoreUnavailable("busy", retry_after_s=60)
    it = rig(FakeWriter([busy] * 100, threads=3), batch_records=1)
    it.ingest.start()
    it.receive(1)
    wait_for(lambda: not it.ingest.stats().store_available, what="the refusal")
    it.receive(2)
    it.receive(3)
    wait_for(lambda: it.ingest.stats().queue_messages == 0, what="the others to be gathered")
    time.sleep(0.2)
    assert len(it.writer.calls) == 1
    it.ingest.stop()
    assert it.acked == set(), "one last attempt each, and the agents keep what they have"


def test_stopping_with_many_threads_writes_all_that_is_here(rig):
    it = rig(FakeWriter(threads=3), batch_records=7, queue_messages=500)
    for seq in range(1, 301):
        it.receive(seq)
    it.ingest.start()
    it.ingest.stop()
    assert it.acked == set(range(1, 301))
    assert it.too_early == set()


def test_stopping_during_an_outage_ends_all_threads(rig):
    it = rig(FakeWriter([StoreUnavailable("gone")] * 500, threads=3), batch_records=1)
    it.ingest.start()
    for seq in range(1, 21):
        it.receive(seq)
    wait_for(lambda: not it.ingest.stats().store_available, what="the outage")
    it.ingest.stop()
    assert it.acked == set()
    assert it.ingest.failure is None
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith("ingest-") for name in names)


def test_what_the_store_does_not_take_now_is_neither_acknowledged_nor_buried(rig, tmp_path):
    partly = PartialWrite("3 not now: limit exceeded", accepted=[0, 2], rejected={1: "too odd"})
    it = rig(FakeWriter([partly]))
    it.receive(1, 2, 3, 4, 5)
    it.ingest.start()
    it.ingest.stop()
    assert it.acked == {1, 2, 3}, "1 and 3 are durable, 2 is in the dead letters"
    stats = it.ingest.stats()
    assert (stats.records_written, stats.records_dead, stats.records_deferred) == (2, 1, 2)
    assert len((tmp_path / "dead.jsonl").read_text().splitlines()) == 1


def test_writes_are_counted_and_their_times_summed(rig):
    it = rig(FakeWriter([None, StoreUnavailable("gone")], threads=2), batch_records=1)
    assert it.ingest.take_write_s_max() == 0
    it.ingest.start()
    for seq in (1, 2, 3):
        it.receive(seq)
    wait_for(lambda: it.acked == {1, 2, 3}, what="all acks")
    stats = it.ingest.stats()
    assert stats.writes == 3, "an attempt that failed is no write"
    times = it.ingest.write_times()
    assert times.counts[float("inf")] == 3
    assert list(times.counts.values()) == sorted(times.counts.values()), "cumulative"
    longest_s = it.ingest.take_write_s_max()
    assert 0 < longest_s <= times.total_s
    assert times.total_s == pytest.approx(stats.write_s_total, abs=1e-5)
    assert it.ingest.take_write_s_max() == 0, "forgotten once it was asked for"
