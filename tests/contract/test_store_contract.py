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

from collected import EPOCH, OTHER_EPOCH, data, event, job, load, stored, telemetry, trial
from fleetmark_collector import plain
from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.base import Reader, Stored, Writer
from fleetmark_collector.sinks.influxdb.reader import InfluxReader
from fleetmark_collector.sinks.influxdb.schema import MAX_TIME_NS, RECORDS
from fleetmark_collector.sinks.influxdb.writing import InfluxSink
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol.errors import PartialWrite, StoreUnavailable
from fleetmark_protocol.records import Record, TelemetryRecord, TrialRecord
from influxservers import Influxd, Nginx
from strategies import EXTRAS, instances

HOSTILE = (
    *("", " ", "  a  ", "\t", "\n", "\r\n", "\x01\x7f", "\u2028", "\ufeff", "\ufffd"),
    *(
        "\\",
        "a\\",
        "\\\\",
        "\\n",
        '"',
        '\\"',
        "'",
        "a,b=c d",
        ",",
        "=",
        "#",
        "null",
        "{}",
        "e\u0301\U0001f7e2",
    ),
)


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


MakeStore = Callable[[], Store]
"""Makes an empty store."""


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let no file of this process grow (Python ignores the signal and gets the error)."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def _half_a_pair(record: TrialRecord) -> TrialRecord:
    """There is no UTF-8 for half a surrogate pair; the wire lets none through."""
    return record.model_copy(update={"output_text": "\ud800"})


def _sqlite(directory: Path) -> Store:
    file = directory / "store.db"
    return Store(
        writer=lambda: SqliteSink(file),
        reader=lambda: SqliteReader(file),
        outage=_full_disk,
        unwritable=_half_a_pair,
    )


def _influxdb(server: Influxd, front: Nginx | None) -> Store:
    """Return an empty database; written straight to the server, or by the v2 API in front of it."""
    database = (front or server).database()
    settings = InfluxSettings(database.url, database.name)

    @contextmanager
    def outage() -> Iterator[None]:
        server.kill()
        try:
            yield
        finally:
            server.start()

    return Store(
        writer=lambda: InfluxSink(settings),
        reader=lambda: InfluxReader(settings),
        outage=outage,
        unwritable=_half_a_pair,
    )


@pytest.fixture(scope="module")
def influxd_of_ours(tmp_path_factory) -> Iterator[Influxd]:
    """A server that may be killed."""
    server = Influxd(tmp_path_factory.mktemp("influxd")).start()
    yield server
    server.kill()


STORES = [
    "sqlite",
    pytest.param("influxdb", marks=pytest.mark.integration),
    pytest.param("influxdb, v2 API", marks=pytest.mark.integration),
]


@pytest.fixture(scope="module", params=STORES)
def make_store(request, tmp_path_factory) -> Iterator[MakeStore]:
    if request.param == "sqlite":
        yield lambda: _sqlite(tmp_path_factory.mktemp("store"))
        return
    server = request.getfixturevalue("influxd_of_ours")
    if request.param == "influxdb":
        yield lambda: _influxdb(server, None)
        return
    front = Nginx(tmp_path_factory.mktemp("nginx"), server).start()
    yield lambda: _influxdb(server, front)
    front.kill()


@pytest.fixture
def store(make_store):
    return make_store()


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
    writer.write([stored(telemetry(1), 1), stored(telemetry(2), 2), stored(job(), 3)])
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
    assert reader.trial_counts("c", ["c.pi.2", "c.pi.3"]) == {"c.pi.2": 1}
    assert reader.trial_counts("c", []) == {}


def test_of_a_job_the_trials_of_its_own_device_count_and_no_others(writer, reader):
    writer.write(
        [
            stored(trial(1, "c.pi.1.w.0.0"), 1, "pi"),
            stored(trial(2, "c.pi.1.w.0.0"), 2, "pi", fleet="field"),
            stored(trial(3, "c.pi.1.w.1.0"), 3, "evil"),
            stored(trial(4, "c.pi.1.w.2.0"), 4, "evil"),
            stored(trial(5, "c.evil.1.w.0.0", job_id="c.evil.1"), 5, "evil"),
            stored(trial(6, "odd.w.0.0", job_id="odd"), 6, "pi"),
        ]
    )
    assert reader.trial_counts("c") == {"c.pi.1": 1, "c.evil.1": 1, "odd": 1}
    assert reader.trial_counts("c", ["c.evil.1"]) == {"c.evil.1": 1}
    assert reader.trials_since("c", "c.evil.1", 1) == 1
    assert reader.trials_since("c", "c.pi.1", 1) == 1


def test_trials_are_counted_from_the_attempt_that_began_the_job_anew(writer, reader):
    writer.write(
        [
            stored(trial(1, "c.pi.1.w.0.0"), 1),
            stored(trial(2, "c.pi.1.w.1.0"), 2),
            stored(trial(3, "c.pi.1.w.0.0", attempt=2), 3),
            stored(trial(4, "c.pi.1.w.0.0", attempt=3), 4),
            stored(trial(5, "c.pi.2.w.0.0", job_id="c.pi.2", attempt=2), 5),
        ]
    )
    assert [reader.trials_since("c", "c.pi.1", attempt) for attempt in (1, 2, 4)] == [2, 1, 0]


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
                last = seen
        except Exception as error:  # noqa: BLE001
            failures.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(0, 2000, 50):
        writer.write([stored(telemetry(start + at), start + at + 1) for at in range(50)])
    done.set()
    for thread in threads:
        thread.join()
    assert not failures


@settings(max_examples=40, deadline=None)
@given(record=st.one_of(*map(instances, RECORDS.values())), extra=EXTRAS)
def test_any_lawful_record_comes_back_as_it_was(make_store, record, extra):
    record = type(record).model_validate({**record.model_dump(), **extra})
    store = make_store()
    writer, reader = store.writer(), store.reader()
    writer.write([stored(_storable(record))])
    found = _only(reader, record)
    reader.close()
    writer.close()
    # As the wire sees it: there a whole number and a float of the same value are one.
    assert found.record.model_dump_json(exclude_none=True) == _storable(record).model_dump_json(
        exclude_none=True
    )
    assert (found.fleet, found.device, found.epoch, found.seq) == ("lab", "pi", EPOCH, 1)


@settings(max_examples=30, deadline=None)
@given(record=instances(TelemetryRecord))
def test_a_sample_that_ingest_made_no_record_of_comes_back_as_the_record_it_is(make_store, record):
    record = _storable(record)
    (sample,) = plain.decode_batch(data((1, record))).records
    assert isinstance(sample, plain.PlainTelemetry)
    store = make_store()
    writer, reader = store.writer(), store.reader()
    writer.write([stored(sample)])
    found = _only(reader, record)
    reader.close()
    writer.close()
    assert found.record.model_dump_json() == record.model_dump_json()
    assert (found.fleet, found.device) == ("lab", "pi")


@pytest.mark.parametrize("time_ns", [0, 1, 2**53 + 1, MAX_TIME_NS])
def test_times_are_kept_to_the_nanosecond_from_the_first_to_the_last(writer, reader, time_ns):
    item = stored(event().model_copy(update={"time_ns": time_ns}), 2**63 - 1)
    writer.write([item])
    assert reader.events() == [item]
    assert reader.events(since_ns=time_ns) == [item]


@pytest.mark.parametrize(
    "number",
    [0.0, -0.0, 5e-324, 1e-7, 0.1 + 0.2, 1e15 + 0.3, 2.0**53, 1e22, 1.7976931348623157e308],
)
def test_numbers_are_kept_to_the_last_bit(writer, reader, number):
    writer.write([stored(telemetry(temperature_c=-number), 1)])
    (found,) = reader.latest_telemetry().values()
    assert repr(found.temperature_c) == repr(-number)


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_kept_to_the_last_character(writer, reader, text):
    item = stored(
        trial(
            model=text,
            backend=text,
            quantization=text,
            workload=text,
            output_text=text,
            verdict_reasons=(text,),
            options={"a": text, "b": 1, "c": 1.0, "d": True, "e": None},
            failure={"code": text, "message": text, "new_field": text},
            new_field=text,
        )
    )
    writer.write([item])
    assert reader.trials("c") == [item]


def test_the_largest_lawful_record_is_stored(writer, reader):
    wide = "\N{LARGE GREEN CIRCLE}"
    many = {f"k{number}": wide * 512 for number in range(64)}
    item = stored(load(engine=many, options=many, backend=wide * 256, model=wide * 256))
    writer.write([item])
    assert reader.loads("c") == [item]


def _storable(record: Record) -> Record:
    """Return a record, at the last time there is if its own is beyond it.

    InfluxDB's range of times ends one nanosecond before the wire's; what is beyond it would go to
    the dead letters.
    """
    return record.model_copy(update={"time_ns": min(record.time_ns, MAX_TIME_NS)})


def _only(reader: Reader, record: Record) -> Stored[Record]:
    """Return the only record there is."""
    if record.kind == "telemetry":
        (((fleet, device), sample),) = reader.latest_telemetry().items()
        return stored(sample, 1, device, EPOCH, fleet)
    if record.kind == "event":
        (found,) = reader.events()
        return found
    find = {"trial": reader.trials, "load": reader.loads, "job": reader.job_records}[record.kind]
    (found,) = find(record.campaign_id)
    return found
