"""What every store must do, whichever database is behind it."""

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collected import EPOCH, OTHER_EPOCH, event, job, load, stored, telemetry, trial
from fleetmark_collector.sinks.base import Reader, Writer
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol.errors import PartialWrite, StoreUnavailable
from fleetmark_protocol.records import JobRecord, LoadRecord, TelemetryRecord, TrialRecord
from strategies import instances


@dataclass
class Store:
    """A store under test.

    Attributes:
        writer: opens another writer on the same data, after the last was closed.
        reader: opens another reader on the same data.
        outage: nothing can be written while it lasts.
        unwritable: turns a trial into one that this store can never write.
    """

    writer: Callable[[], Writer]
    reader: Callable[[], Reader]
    outage: Callable[[], AbstractContextManager[None]]
    unwritable: Callable[[TrialRecord], TrialRecord]


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let no file of this process grow (Python ignores the signal and gets the error)."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def _sqlite(directory: Path) -> Store:
    file = directory / "store.db"
    return Store(
        writer=lambda: SqliteSink(file),
        reader=lambda: SqliteReader(file),
        outage=_full_disk,
        # No UTF-8 for half a surrogate pair; the wire lets none through.
        unwritable=lambda record: record.model_copy(update={"output_text": "\ud800"}),
    )


STORES = [pytest.param(_sqlite, id="sqlite")]


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def writer(store):
    writer = store.writer()
    yield writer
    writer.close()


@pytest.fixture
def reader(store, writer):
    reader = store.reader()
    yield reader
    reader.close()


def test_what_is_written_can_be_read_at_once(writer, reader):
    items = [stored(trial(2), 1), stored(load(1), 2), stored(job(3), 3), stored(event(4), 4)]
    writer.write(items)
    assert reader.trials("c") == [items[0]]
    assert reader.loads("c") == [items[1]]
    assert reader.job_records("c") == [items[2]]
    assert reader.events() == [items[3]]


def test_fields_this_version_does_not_know_are_kept(writer, reader):
    writer.write([stored(trial(humidity_percent=41.5, operator="ann"))])
    (found,) = reader.trials("c")
    assert found.record.humidity_percent == 41.5
    assert found.record.operator == "ann"


def test_writing_the_same_again_changes_nothing(writer, reader):
    items = [stored(telemetry(seq), seq) for seq in range(1, 11)]
    writer.write(items[:6])
    writer.write(items)
    writer.write(items)
    assert reader.counts()["telemetry"] == 10


def test_the_same_seq_of_another_outbox_device_or_fleet_is_another_record(writer, reader):
    writer.write(
        [
            stored(trial(1), 1),
            stored(trial(2), 1, epoch=OTHER_EPOCH),
            stored(trial(3), 1, device="ec2"),
            stored(trial(4), 1, fleet="field"),
        ]
    )
    assert len(reader.trials("c")) == 4


def test_a_repeated_record_in_one_batch_is_stored_once(writer, reader):
    writer.write([stored(trial(), 1), stored(trial(), 1)])
    assert reader.counts()["trial"] == 1


def test_writing_nothing_is_nothing(writer, reader):
    writer.write([])
    assert set(reader.counts().values()) == {0}


def test_counts_name_every_kind(writer, reader):
    writer.write([stored(telemetry(), 1), stored(telemetry(), 2), stored(job(), 3)])
    assert reader.counts() == {"telemetry": 2, "trial": 0, "load": 0, "job": 1, "event": 0}


def test_trials_and_loads_come_in_order_of_time_and_of_their_campaign_only(writer, reader):
    writer.write([stored(trial(second), seq) for seq, second in enumerate((5, 3, 4), 1)])
    writer.write([stored(load(second), seq) for seq, second in enumerate((9, 8), 11)])
    writer.write([stored(trial(1, campaign_id="other"), 21), stored(load(1, campaign_id="o"), 22)])
    assert [item.seq for item in reader.trials("c")] == [2, 3, 1]
    assert [item.seq for item in reader.loads("c")] == [12, 11]


def test_job_records_come_in_order_of_device_and_seq_whatever_the_clocks_said(writer, reader):
    writer.write(
        [
            stored(job(1, "SUCCEEDED"), 2, "pi"),
            stored(job(5, "QUEUED"), 1, "pi"),
            stored(job(9, "QUEUED"), 7, "ec2"),
        ]
    )
    found = [(item.device, item.seq) for item in reader.job_records("c")]
    assert found == [("ec2", 7), ("pi", 1), ("pi", 2)]


def test_trials_are_counted_by_their_id(writer, reader):
    writer.write(
        [
            stored(trial(1, "c.pi.1.w.0.0"), 1),
            stored(trial(2, "c.pi.1.w.0.0"), 2),
            stored(trial(3, "c.pi.1.w.1.0"), 3),
            stored(trial(4, "c.pi.2.w.0.0", job_id="c.pi.2"), 4),
            stored(trial(5, "x.pi.1.w.0.0", campaign_id="x", job_id="x.pi.1"), 5),
        ]
    )
    assert reader.trial_counts("c") == {"c.pi.1": 2, "c.pi.2": 1}
    assert reader.trial_counts("unknown") == {}


def test_the_newest_sample_of_each_device_is_found_across_its_outboxes(writer, reader):
    writer.write(
        [
            stored(telemetry(5, cpu_percent=50), 1),
            stored(telemetry(4, cpu_percent=40), 2),
            stored(telemetry(6, cpu_percent=60), 1, epoch=OTHER_EPOCH),
            stored(telemetry(1, cpu_percent=10), 1, device="ec2"),
            stored(job(), 9, device="silent"),
        ]
    )
    latest = reader.latest_telemetry()
    assert {key: sample.cpu_percent for key, sample in latest.items()} == {
        ("lab", "pi"): 60,
        ("lab", "ec2"): 10,
    }


def test_samples_of_a_window_include_its_start_and_not_its_end(writer, reader):
    writer.write([stored(telemetry(second), second) for second in (4, 2, 1, 3)])
    writer.write([stored(telemetry(2), 1, device="ec2")])
    found = reader.telemetry("lab", "pi", 2 * 10**9, 4 * 10**9)
    assert [sample.time_ns for sample in found] == [2 * 10**9, 3 * 10**9]
    assert reader.telemetry("lab", "nobody", 0, 10**18) == []


def test_the_newest_events_come_oldest_first(writer, reader):
    writer.write([stored(event(second), second) for second in (3, 1, 5, 2, 4)])
    assert [item.seq for item in reader.events(limit=3)] == [3, 4, 5]
    assert [item.seq for item in reader.events(since_ns=4 * 10**9)] == [4, 5]


def test_records_that_can_never_be_written_are_named_and_the_others_are_durable(
    store, writer, reader
):
    items = [stored(trial(1), 1), stored(store.unwritable(trial(2)), 2), stored(job(3), 3)]
    with pytest.raises(PartialWrite) as caught:
        writer.write(items)
    assert caught.value.accepted == [0, 2]
    assert list(caught.value.rejected) == [1]
    assert [item.seq for item in reader.trials("c")] == [1]
    assert [item.seq for item in reader.job_records("c")] == [3]
    writer.write([stored(trial(4), 4)])
    assert [item.seq for item in reader.trials("c")] == [1, 4]


def test_an_outage_is_said_to_be_one_and_the_same_write_succeeds_after_it(store, writer, reader):
    writer.write([stored(telemetry(), 1)])
    big = [stored(trial(seq, output_text="x" * 4000), seq, "new") for seq in range(2, 200)]
    with store.outage(), pytest.raises(StoreUnavailable):
        writer.write(big)
    assert reader.counts()["trial"] == 0
    writer.write(big)
    assert reader.counts()["trial"] == len(big)
    assert reader.trials("c")[0].device == "new"


def test_what_was_written_is_there_after_closing_and_opening(store):
    writer = store.writer()
    writer.write([stored(trial())])
    writer.close()
    again, reader = store.writer(), store.reader()
    again.write([stored(trial()), stored(trial(2), 2)])
    assert [item.seq for item in reader.trials("c")] == [1, 2]
    reader.close()
    again.close()


def test_readers_and_the_writer_work_at_the_same_time(store, writer):
    failures: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        mine = store.reader()
        try:
            last = 0
            while not done.is_set():
                seen = mine.counts()["telemetry"]
                assert seen >= last
                assert seen % 50 == 0, "a batch is seen whole or not at all"
                last = seen
        except Exception as error:  # noqa: BLE001
            failures.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(0, 2000, 50):
        writer.write([stored(telemetry(), start + at + 1) for at in range(50)])
    done.set()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("make", STORES)
@settings(max_examples=40, deadline=None)
@given(record=st.one_of(instances(TrialRecord), instances(LoadRecord), instances(JobRecord)))
def test_any_lawful_record_comes_back_as_it_was(tmp_path_factory, make, record):
    store = make(tmp_path_factory.mktemp("any"))
    writer, reader = store.writer(), store.reader()
    writer.write([stored(record)])
    find = {"trial": reader.trials, "load": reader.loads, "job": reader.job_records}[record.kind]
    (found,) = find(record.campaign_id)
    reader.close()
    writer.close()
    # As the wire sees it: there a whole number and a float of the same value are one.
    assert found.record.model_dump_json(exclude_none=True) == record.model_dump_json(
        exclude_none=True
    )
    assert (found.epoch, found.seq) == (EPOCH, 1)


@pytest.mark.parametrize("make", STORES)
@settings(max_examples=20, deadline=None)
@given(record=instances(TelemetryRecord))
def test_any_lawful_sample_comes_back_as_it_was(tmp_path_factory, make, record):
    store = make(tmp_path_factory.mktemp("sample"))
    writer, reader = store.writer(), store.reader()
    writer.write([stored(record)])
    (found,) = reader.latest_telemetry().values()
    reader.close()
    writer.close()
    assert found.model_dump_json(exclude_none=True) == record.model_dump_json(exclude_none=True)
