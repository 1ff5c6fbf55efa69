"""A copy of a store: whole, in pieces, stopped in the middle, or onto what is there already."""

import json

import pytest

from collected import EPOCH, OTHER_EPOCH, event, job, load, stored, telemetry, trial
from fakes.fake_writer import FakeWriter
from fleetmark_collector.sinks import copying
from fleetmark_collector.sinks.copying import Positions, copy
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_collector.sinks.sqlite_parts import SqliteParts
from fleetmark_protocol.errors import PartialWrite, StoreUnavailable

RECORDS = 28


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("fleetmark_collector.sinks.sqlite_parts.BATCH_RECORDS", 4)


@pytest.fixture
def source(tmp_path):
    sink = SqliteSink(tmp_path / "source.db")
    sink.write([stored(telemetry(second), second) for second in range(1, 11)])
    sink.write([stored(telemetry(second), second, epoch=OTHER_EPOCH) for second in range(21, 26)])
    sink.write([stored(trial(n, f"c.pi.1.w.{n}.0"), 100 + n) for n in range(1, 10)])
    sink.write([stored(load(1), 200), stored(job(2), 201), stored(event(3), 202)])
    sink.write([stored(telemetry(1, cpu_percent=1), 1, device="ec2")])
    sink.close()
    parts = SqliteParts(tmp_path / "source.db")
    yield parts
    parts.close()


class Target:
    """A store to copy into."""

    def __init__(self, directory):
        self.file = directory / "target.db"
        self.writer = SqliteSink(self.file)
        self.parts = SqliteParts(self.file)
        self.positions_file = directory / "copy.json"

    def positions(self, route="a b"):
        return Positions(self.positions_file, route)

    def close(self):
        self.parts.close()
        self.writer.close()


@pytest.fixture
def target(tmp_path):
    target = Target(tmp_path)
    yield target
    target.close()


def test_a_copy_has_every_record_of_every_kind_outbox_and_device(source, target, tmp_path):
    done = copy(source, target.parts, target.writer, target.positions())
    assert done.complete
    assert done.total == done.done == RECORDS
    readers = [SqliteReader(tmp_path / name) for name in ("source.db", "target.db")]
    for ask in (
        lambda one: one.counts(),
        lambda one: one.trials("c"),
        lambda one: one.loads("c"),
        lambda one: one.job_records("c"),
        lambda one: one.events(),
        lambda one: one.telemetry("lab", "pi", 0, 10**18),
        lambda one: one.latest_telemetry(),
    ):
        assert ask(readers[0]) == ask(readers[1])
    for reader in readers:
        reader.close()


def test_a_second_copy_changes_nothing(source, target):
    copy(source, target.parts, target.writer, target.positions())
    again = copy(source, target.parts, target.writer, target.positions())
    assert again.complete
    assert sum(part.records for part in target.parts.parts()) == again.total


class Stopped(BaseException):
    """Ctrl-C."""


def test_a_copy_that_was_stopped_goes_on_where_it_was(source, target):
    def stop_late(state):
        if state.done >= 16:
            raise Stopped

    with pytest.raises(Stopped):
        copy(source, target.parts, target.writer, target.positions(), stop_late)
    kept = json.loads(target.positions_file.read_text())
    assert sum(records for _, records in kept["parts"].values()) >= 12
    written = FakeWriter()
    told = []
    copy(source, target.parts, written, target.positions(), lambda state: told.append(state.done))
    assert len(written.written) <= RECORDS - 12
    assert max(told) == RECORDS
    assert not target.positions_file.exists()


def test_positions_of_another_target_do_not_count(source, target):
    first = target.positions()
    first.reached(source.parts()[0], 10**6, 1)
    first.save()
    assert target.positions("a elsewhere").of(source.parts()[0]) == (-1, 0)
    assert target.positions().of(source.parts()[0]) == (10**6, 1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"route": "a b", "parts": {"x": 1}}'])
def test_positions_that_cannot_be_read_mean_a_beginning(source, target, text):
    target.positions_file.write_text(text)
    assert copy(source, target.parts, target.writer, target.positions()).complete


def test_what_the_target_can_never_hold_is_told_and_the_rest_is_copied(source, target):
    class Refusing:
        threads = 1

        def write(self, items):
            refused = {at: "too odd" for at, item in enumerate(items) if item.record.kind == "job"}
            rest = [at for at in range(len(items)) if at not in refused]
            target.writer.write([items[at] for at in rest])
            if refused:
                raise PartialWrite("some", accepted=rest, rejected=refused)

        def close(self):
            pass

    done = copy(source, target.parts, Refusing(), target.positions())
    assert not done.complete
    assert done.refused == 1
    assert done.refusals == ["job lab/pi seq 201: too odd"]
    assert done.missing == []


def test_what_is_put_off_is_tried_again_and_nothing_is_written_twice_over(source, target):
    class PuttingOff:
        threads = 1

        def __init__(self):
            self.calls = 0

        def write(self, items):
            self.calls += 1
            if self.calls % 2 and len(items) > 1:
                target.writer.write(items[:1])
                raise PartialWrite("later", accepted=[0], rejected={})
            target.writer.write(items)

        def close(self):
            pass

    waits = []
    done = copy(source, target.parts, PuttingOff(), target.positions(), sleep=waits.append)
    assert done.complete
    assert waits


def test_a_target_that_is_away_for_a_moment_is_waited_for(source, target):
    away = FakeWriter([StoreUnavailable("away"), StoreUnavailable("away"), None])
    waits = []
    copy(source, target.parts, away, target.positions(), sleep=waits.append)
    assert waits == [0.5, 1.0]


def test_a_target_that_stays_away_ends_the_copy_and_what_was_done_is_remembered(source, target):
    done_before = len(source.parts()) - 1
    away = FakeWriter([*[None] * done_before, *[StoreUnavailable("away", hint="look")] * 1000])
    waits = []
    with pytest.raises(StoreUnavailable, match="away") as caught:
        copy(source, target.parts, away, target.positions(), sleep=waits.append)
    assert caught.value.hint == "look"
    assert copying.PATIENCE_S <= sum(waits) <= copying.PATIENCE_S + 20
    assert target.positions_file.exists()


def test_records_that_are_not_there_in_the_end_are_missed(source, target):
    done = copy(source, target.parts, FakeWriter(), target.positions())
    assert not done.complete
    assert sum(lacking for _, lacking in done.missing) == RECORDS


def test_a_source_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(StoreUnavailable, match="no embedded store"):
        SqliteParts(tmp_path / "nothing.db")
    assert list(tmp_path.iterdir()) == []


def test_a_part_s_name_tells_kind_device_and_outbox(source):
    keys = {part.key for part in source.parts()}
    assert f"telemetry/lab/pi/{EPOCH}" in keys
    assert len(keys) == len(source.parts()) == 7
