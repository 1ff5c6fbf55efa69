"""Ingest: durable first, acknowledged after; nothing acknowledged that is not durable."""

import json
import random
import threading
import time

import pytest

from collected import EPOCH, OTHER_EPOCH, data, job, telemetry, trial
from fakes.fake_writer import FakeWriter
from fleetmark_collector.config import IngestSettings
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.ingest import Ingest
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol import codec
from fleetmark_protocol.errors import PartialWrite, StoreError, StoreUnavailable
from fleetmark_protocol.messages import MAX_BATCH_RECORDS, MAX_PAYLOAD_BYTES, Ack
from servers import wait_for

PI = "fleetmark/v1/lab/pi/data"
EC2 = "fleetmark/v1/lab/ec2/data"


class Acks:
    """What was published, as (device, epoch) -> set of seqs."""

    def __init__(self, writer: FakeWriter | None = None) -> None:
        self.messages: list[tuple[str, Ack]] = []
        self._writer = writer

    def publish(self, topic: str, payload: bytes, retain: bool) -> None:
        assert not retain
        ack = codec.decode(Ack, payload)
        if self._writer is not None:
            _, _, fleet, device, channel = topic.split("/")
            durable = {
                item.seq
                for item in self._writer.written
                if (item.fleet, item.device, item.epoch) == (fleet, device, ack.epoch)
            }
            acked = {seq for first, last in ack.ranges for seq in range(first, last + 1)}
            assert channel == "ack"
            assert acked <= durable, "acknowledged before it was durable"
        self.messages.append((topic, ack))

    def of(self, device: str = "pi", epoch: str = EPOCH) -> set[int]:
        return {
            seq
            for topic, ack in self.messages
            if topic.split("/")[3] == device and ack.epoch == epoch
            for first, last in ack.ranges
            for seq in range(first, last + 1)
        }


class Rig:
    """An ingest whose writer thread runs when `start` says so."""

    def __init__(self, tmp_path, writer, **settings) -> None:
        self.writer = writer
        self.acks = Acks(writer if isinstance(writer, FakeWriter) and not writer.plan else None)
        self.dead_file = tmp_path / "dead.jsonl"
        self.seen: list[tuple[str, str]] = []
        self.ingest = Ingest(
            IngestSettings(**{"batch_age_s": 0.01, **settings}),
            writer,
            DeadLetters(self.dead_file),
            self.acks.publish,
            self.seen.extend,
            random.Random(1),
        )

    def dead(self) -> list[dict]:
        return [json.loads(line) for line in self.dead_file.read_text().splitlines()]


@pytest.fixture
def rig(tmp_path):
    made: list[Rig] = []

    def make(writer=None, **settings) -> Rig:
        made.append(Rig(tmp_path, FakeWriter() if writer is None else writer, **settings))
        return made[-1]

    yield make
    for one in made:
        if isinstance(one.writer, FakeWriter):
            one.writer.gate.set()
        one.ingest.stop()


def test_records_are_acknowledged_to_their_device_and_epoch_after_they_are_durable(rig):
    it = rig()
    it.ingest.start()
    it.ingest.receive(PI, data((1, telemetry(1)), (2, telemetry(2)), (4, telemetry(4))))
    it.ingest.receive(EC2, data((7, job())))
    it.ingest.receive(PI, data((1, trial()), epoch=OTHER_EPOCH))
    it.ingest.stop()
    assert it.acks.of("pi") == {1, 2, 4}
    assert it.acks.of("ec2") == {7}
    assert it.acks.of("pi", OTHER_EPOCH) == {1}
    assert {(item.device, item.epoch, item.seq) for item in it.writer.written} == {
        ("pi", EPOCH, 1),
        ("pi", EPOCH, 2),
        ("pi", EPOCH, 4),
        ("ec2", EPOCH, 7),
        ("pi", OTHER_EPOCH, 1),
    }
    assert set(it.seen) == {("lab", "pi"), ("lab", "ec2")}


def test_messages_are_gathered_into_one_write_and_one_ack_with_merged_ranges(rig):
    it = rig(batch_age_s=60)
    for start in range(1, 31, 10):
        it.ingest.receive(PI, data(*((seq, telemetry(seq)) for seq in range(start, start + 10))))
    it.ingest.start()
    it.ingest.stop()
    assert it.writer.calls == [30]
    ((_, ack),) = it.acks.messages
    assert ack.ranges == ((1, 30),)


def test_a_batch_is_written_when_it_is_large_enough_however_young(rig):
    it = rig(batch_records=5, batch_age_s=60)
    for seq in range(1, 13):
        it.ingest.receive(PI, data((seq, telemetry(seq))))
    it.ingest.start()
    wait_for(lambda: it.acks.of() >= set(range(1, 11)), what="two batches of five")
    assert it.writer.calls == [5, 5]
    it.ingest.stop()
    assert it.writer.calls == [5, 5, 2]


def test_a_small_batch_is_written_when_it_is_old_enough(rig):
    it = rig(batch_records=5000, batch_age_s=0.01)
    it.ingest.start()
    it.ingest.receive(PI, data((1, telemetry())))
    wait_for(lambda: it.acks.of() == {1}, what="the ack of a lonely record")


def test_behind_with_its_work_it_writes_all_that_waits_at_once_however_old(rig):
    it = rig(batch_records=20, batch_age_s=0.01)
    for seq in range(1, 51):
        it.ingest.receive(PI, data((seq, telemetry(seq))))
    time.sleep(0.05)  # all of them are of age now
    it.ingest.start()
    it.ingest.stop()
    assert it.writer.calls == [20, 20, 10]


def test_while_the_store_is_away_nothing_is_acknowledged_and_nothing_is_lost(rig):
    writer = FakeWriter([StoreUnavailable("full"), StoreUnavailable("full")])
    it = rig(writer)
    it.ingest.start()
    it.ingest.receive(PI, data((1, trial()), (2, job())))
    wait_for(lambda: len(writer.calls) == 1, what="the first attempt")
    wait_for(lambda: not it.ingest.stats().store_available, what="the outage to be noticed")
    assert it.acks.messages == []
    wait_for(lambda: it.acks.of() == {1, 2}, what="the ack after the outage")
    assert writer.calls == [2, 2, 2], "the same batch, again and again"
    assert it.ingest.stats().store_available


def test_records_the_store_can_never_take_are_buried_and_acknowledged(rig):
    poison = PartialWrite("one of three", accepted=[0, 2], rejected={1: "too odd"})
    it = rig(FakeWriter([poison]))
    it.ingest.receive(PI, data((1, telemetry()), (2, trial()), (3, telemetry())))
    it.ingest.start()
    it.ingest.stop()
    assert it.acks.of() == {1, 2, 3}
    assert [item.seq for item in it.writer.written] == [1, 3]
    (letter,) = it.dead()
    assert letter["topic"] == PI
    assert letter["reason"] == "too odd"
    assert it.ingest.stats().records_dead == 1
    assert it.ingest.stats().records_written == 2


def test_a_bad_record_is_buried_and_acknowledged_and_blocks_nothing(tmp_path, rig):
    sink = SqliteSink(tmp_path / "store.db")
    it = rig(sink)
    payload = data((1, telemetry()), (2, telemetry())).replace(b"12.5", b'"a lot"', 1)
    it.ingest.receive(PI, payload)
    it.ingest.start()
    it.ingest.stop()
    assert it.acks.of() == {1, 2}
    assert it.ingest.stats().records_written == 1
    (letter,) = it.dead()
    assert "cpu_percent" in letter["reason"]
    assert '"seq": 1' in letter["raw"]
    sink.close()


def test_a_bad_record_that_cannot_be_buried_is_not_acknowledged(tmp_path, rig):
    sink = SqliteSink(tmp_path / "store.db")
    it = rig(sink)
    it.dead_file.mkdir()  # no file can be written in its place
    it.ingest.receive(PI, data((1, telemetry()), (2, telemetry())).replace(b"12.5", b'"x"', 1))
    it.ingest.start()
    it.ingest.stop()
    assert it.acks.of() == {2}
    sink.close()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"null",
        b'{"epoch":"x","records":[]}',
        b"[" * 100_000,
        b"x" * (MAX_PAYLOAD_BYTES + 1),
    ],
    ids=lambda payload: f"{payload[:12]!r}",
)
def test_a_message_that_is_no_batch_is_buried_without_an_ack_and_the_next_is_read(rig, payload):
    it = rig()
    it.ingest.receive(PI, payload)
    it.ingest.receive(PI, data((5, telemetry())))
    it.ingest.start()
    it.ingest.stop()
    assert it.acks.of() == {5}
    assert it.ingest.stats().messages_dead == 1
    (letter,) = it.dead()
    assert letter["topic"] == PI
    assert len(letter["raw"]) < 3000


@pytest.mark.parametrize(
    "topic", ["fleetmark/v1/lab/pi/status", "fleetmark/v9/lab/pi/data", "fleetmark/v1/LAB/pi/data"]
)
def test_a_message_on_another_topic_is_buried(rig, topic):
    it = rig()
    it.ingest.receive(topic, data((1, telemetry())))
    it.ingest.start()
    it.ingest.stop()
    assert it.writer.written == []
    assert it.ingest.stats().messages_dead == 1


def test_device_and_fleet_come_from_the_topic_whatever_the_payload_says(rig):
    it = rig()
    it.ingest.receive(PI, data((1, telemetry(device="ec2", fleet="field"))))
    it.ingest.start()
    it.ingest.stop()
    (item,) = it.writer.written
    assert (item.fleet, item.device) == ("lab", "pi")


def test_a_full_queue_drops_messages_unacknowledged_and_takes_them_when_sent_again(rig):
    it = rig(queue_messages=2, batch_records=1)
    it.writer.gate.clear()
    it.ingest.start()
    it.ingest.receive(PI, data((1, telemetry())))
    wait_for(it.writer.entered.is_set, what="the writer to be busy")
    for seq in range(2, 6):
        it.ingest.receive(PI, data((seq, telemetry())))
    stats = it.ingest.stats()
    assert stats.messages_dropped == 2
    assert stats.queue_messages == 2
    assert stats.lag_s > 0
    it.writer.gate.set()
    wait_for(lambda: it.acks.of() == {1, 2, 3}, what="what was taken")
    for seq in (4, 5):
        it.ingest.receive(PI, data((seq, telemetry())))
    wait_for(lambda: it.acks.of() == {1, 2, 3, 4, 5}, what="what was sent again")


def test_a_repeated_delivery_is_acknowledged_again_and_stored_once(tmp_path, rig):
    sink = SqliteSink(tmp_path / "store.db")
    it = rig(sink)
    it.ingest.start()
    for number in range(1, 4):
        it.ingest.receive(PI, data((1, trial()), (2, job())))
        wait_for(lambda: len(it.acks.messages) == number, what="the ack")  # noqa: B023
    it.ingest.stop()
    sink.close()
    reader = SqliteReader(tmp_path / "store.db")
    assert reader.counts()["trial"] == 1
    reader.close()


def test_stopping_writes_and_acknowledges_everything_in_the_queue(rig):
    it = rig(queue_messages=500, batch_records=7)
    for seq in range(1, 301):
        it.ingest.receive(PI, data((seq, telemetry(seq))))
    it.ingest.start()
    it.ingest.stop()
    assert it.acks.of() == set(range(1, 301))
    it.ingest.receive(PI, data((301, telemetry())))
    assert it.ingest.stats().messages_dropped == 1, "nothing is taken after the end"


def test_stopping_during_an_outage_tries_once_more_and_leaves_the_rest_to_the_agents(rig):
    writer = FakeWriter([StoreUnavailable("gone")] * 50)
    it = rig(writer)
    it.ingest.start()
    it.ingest.receive(PI, data((1, telemetry())))
    wait_for(lambda: not it.ingest.stats().store_available, what="the outage")
    it.ingest.stop()
    assert it.acks.messages == []
    assert it.ingest.failure is None


def test_a_damaged_store_ends_the_work_with_its_error_and_acknowledges_nothing(rig):
    it = rig(FakeWriter([StoreError("malformed")]))
    it.ingest.start()
    it.ingest.receive(PI, data((1, telemetry())))
    wait_for(lambda: it.ingest.failure is not None, what="the end")
    assert it.ingest.failure.message == "malformed"
    assert it.acks.messages == []


def test_a_very_scattered_batch_is_acknowledged_in_several_messages(rig):
    it = rig(batch_records=100_000, batch_age_s=60)
    numbers = range(1, 2 * (MAX_BATCH_RECORDS + 10), 2)
    for seq in numbers:
        it.ingest.receive(PI, data((seq, telemetry())))
    it.ingest.start()
    it.ingest.stop()
    assert len(it.acks.messages) == 2
    assert it.acks.of() == set(numbers)


def test_many_network_threads_may_deliver_at_once(tmp_path, rig):
    sink = SqliteSink(tmp_path / "store.db")
    it = rig(sink)
    it.ingest.start()

    def deliver(device: int) -> None:
        for seq in range(1, 51):
            it.ingest.receive(f"fleetmark/v1/lab/d{device}/data", data((seq, telemetry(seq))))

    threads = [threading.Thread(target=deliver, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    it.ingest.stop()
    assert it.ingest.stats().messages_dropped == 0
    for n in range(4):
        assert it.acks.of(f"d{n}") == set(range(1, 51))
    sink.close()
