"""The outbox keeps records until they are acknowledged, within its bound, whatever happens."""

import json
import sqlite3
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetmark_agent.database import Database
from fleetmark_agent.outbox import RESERVE, Outbox
from fleetmark_protocol import codec
from fleetmark_protocol.errors import OutboxFull, StoreError
from fleetmark_protocol.records import EventRecord, JobRecord, TelemetryRecord

BOOT = str(uuid.uuid4())
CAP = 10 * 2**20


def telemetry(time_ns: int = 1, **values: float) -> TelemetryRecord:
    return TelemetryRecord(time_ns=time_ns, boot_id=BOOT, **values)


def event(time_ns: int = 1, code: str = "test") -> EventRecord:
    return EventRecord(time_ns=time_ns, severity="info", code=code, message="m")


def open_outbox(file: Path, max_bytes: int = CAP) -> tuple[Database, Outbox]:
    database = Database(file)
    return database, Outbox(database, max_bytes, clock_ns=lambda: 7)


def kinds(outbox: Outbox) -> list[str]:
    return [json.loads(body)["kind"] for _, body in outbox.batch(10_000, CAP)]


def test_results_are_sent_before_telemetry_and_each_in_order_of_seq(tmp_path):
    _, outbox = open_outbox(tmp_path / "o.db")
    seqs = [outbox.append(r) for r in (telemetry(), event(), telemetry(), event())]
    assert seqs == sorted(seqs)
    assert [seq for seq, _ in outbox.batch(10, CAP)] == [seqs[1], seqs[3], seqs[0], seqs[2]]


def test_a_batch_respects_both_limits_and_leaves_out_what_is_under_way(tmp_path):
    _, outbox = open_outbox(tmp_path / "o.db")
    seqs = [outbox.append(event()) for _ in range(10)]
    assert [s for s, _ in outbox.batch(3, CAP, skip=set(seqs[:2]))] == seqs[2:5]
    assert [s for s, _ in outbox.batch(10, 1)] == seqs[:1], (
        "one record goes, however small the limit"
    )


def test_only_an_ack_of_this_epoch_frees_records(tmp_path):
    _, outbox = open_outbox(tmp_path / "o.db")
    seqs = [outbox.append(event()) for _ in range(5)]
    outbox.batch(10, CAP)
    assert outbox.ack(str(uuid.uuid4()), [(seqs[0], seqs[-1])]) == 0
    assert outbox.backlog().records == 5
    assert outbox.ack(outbox.epoch, [(seqs[1], seqs[2]), (seqs[4], seqs[4] + 100)]) == 3
    assert [s for s, _ in outbox.batch(10, CAP)] == [seqs[0], seqs[3]]
    assert outbox.ack(outbox.epoch, [(seqs[1], seqs[2])]) == 0, "a repeated ack does nothing"


def test_an_ack_of_what_was_never_sent_frees_nothing(tmp_path):
    database, outbox = open_outbox(tmp_path / "o.db")
    seqs = [outbox.append(r) for r in (telemetry(), event(), telemetry(), event())]
    everything = [(1, 2**63 - 1)]
    assert outbox.ack(outbox.epoch, everything) == 0
    assert [s for s, _ in outbox.batch(1, CAP)] == [seqs[1]]
    assert outbox.ack(outbox.epoch, everything) == 1
    assert [s for s, _ in outbox.batch(2, CAP)] == [seqs[3], seqs[0]]
    late = outbox.append(event())
    assert outbox.ack(outbox.epoch, everything) == 2
    assert [s for s, _ in outbox.batch(9, CAP)] == [late, seqs[2]]
    database.close()
    _, outbox = open_outbox(tmp_path / "o.db")
    assert outbox.ack(outbox.epoch, everything) == 0, "not sent since the start: it is sent again"
    assert outbox.backlog().records == 2


def test_what_was_not_acknowledged_is_there_after_a_restart_under_the_same_epoch(tmp_path):
    database, outbox = open_outbox(tmp_path / "o.db")
    seqs = [outbox.append(event()) for _ in range(3)]
    before = outbox.backlog()
    database.close()
    _, again = open_outbox(tmp_path / "o.db")
    assert again.epoch == outbox.epoch
    assert [s for s, _ in again.batch(10, CAP)] == seqs
    assert again.backlog() == before


def test_a_seq_that_a_power_cut_took_back_is_never_given_to_another_record(tmp_path):
    database, outbox = open_outbox(tmp_path / "o.db")
    given = [outbox.append(telemetry()) for _ in range(RESERVE + 50)]
    # What a power cut can do to transactions that were not synced: the newest rows are gone.
    with database.transaction() as connection:
        connection.execute("DELETE FROM records")
    database.close()
    _, again = open_outbox(tmp_path / "o.db")
    assert again.append(telemetry()) > max(given)


def test_times_of_one_kind_strictly_increase_even_over_a_restart_and_a_clock_set_back(tmp_path):
    database, outbox = open_outbox(tmp_path / "o.db")
    for time_ns in (100, 100, 50):
        outbox.append(event(time_ns))
    database.close()
    _, again = open_outbox(tmp_path / "o.db")
    again.append(event(10))
    times = [json.loads(body)["time_ns"] for _, body in again.batch(10, CAP)]
    assert times == [100, 101, 102, 103]


def test_near_the_cap_old_telemetry_is_thinned_and_the_loss_is_recorded(tmp_path):
    cap = 60_000
    _, outbox = open_outbox(tmp_path / "o.db", cap)
    results = [outbox.append(event()) for _ in range(20)]
    for time_ns in range(1, 2001):
        outbox.append(telemetry(time_ns))
    assert outbox.backlog().bytes <= cap
    left = [(seq, json.loads(body)) for seq, body in outbox.batch(10_000, CAP)]
    assert set(results) <= {seq for seq, _ in left}
    thinned = sum(r["data"]["records"] for _, r in left if r.get("code") == "telemetry_thinned")
    kept = sum(1 for _, r in left if r["kind"] == "telemetry")
    assert thinned + kept == 2000
    assert max(r["time_ns"] for _, r in left if r["kind"] == "telemetry") == 2000


def test_results_go_in_beyond_the_cap_but_telemetry_does_not(tmp_path):
    cap = 20_000
    _, outbox = open_outbox(tmp_path / "o.db", cap)
    count = 0
    while outbox.backlog().bytes < cap + 5000:
        outbox.append(event())
        count += 1
    assert outbox.append(telemetry()) == 0
    assert kinds(outbox).count("event") == count
    outbox.ack(outbox.epoch, [(1, 10**6)])
    outbox.append(telemetry())
    confession = [json.loads(b) for _, b in outbox.batch(10, CAP) if b"telemetry_lost" in b]
    assert [c["data"]["records"] for c in confession] == [1]


def test_a_full_disk_raises_for_results_counts_telemetry_and_recovers(tmp_path):
    database, outbox = open_outbox(tmp_path / "o.db")
    with database.transaction() as connection:
        pass
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    stored: list[int] = []

    def fill() -> None:
        for _ in range(1000):
            stored.append(outbox.append(event()))  # noqa: PERF401 - what went in before it raises

    with pytest.raises(OutboxFull, match="full"):
        fill()
    for _ in range(200):
        outbox.append(telemetry())
    connection.execute("PRAGMA max_page_count = 1000000")
    stored.append(outbox.append(event()))
    rows = outbox.batch(10_000, CAP)
    assert set(stored) <= {seq for seq, _ in rows}
    records = [json.loads(body) for _, body in rows]
    lost = sum(r["data"]["records"] for r in records if r.get("code") == "telemetry_lost")
    assert lost + sum(1 for r in records if r["kind"] == "telemetry") == 200
    assert outbox.backlog().records == len(rows)


def test_a_damaged_file_is_put_aside_and_a_new_epoch_begins(tmp_path):
    file = tmp_path / "o.db"
    database, outbox = open_outbox(file)
    outbox.append(event())
    database.close()
    file.write_bytes(b"not a database at all" * 1000)
    again_database, again = open_outbox(file)
    assert again.epoch != outbox.epoch
    assert again_database.healed_from is not None
    assert again_database.healed_from.read_bytes().startswith(b"not a database")


def test_a_file_of_a_newer_agent_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "o.db"
    database, _ = open_outbox(file)
    database.close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer agent"):
        Database(file)


def test_threads_that_append_at_once_get_distinct_numbers(tmp_path):
    _, outbox = open_outbox(tmp_path / "o.db")
    seqs: list[int] = []

    def work(record):
        seqs.extend([outbox.append(record) for _ in range(200)])

    threads = [
        threading.Thread(target=work, args=(r,)) for r in (telemetry(), event(), telemetry())
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seqs)) == 600
    assert outbox.backlog().records == 600


def test_encoded_batches_are_what_the_contract_says(tmp_path):
    _, outbox = open_outbox(tmp_path / "o.db")
    job = JobRecord(
        time_ns=time.time_ns(), campaign_id="c", job_id="c.d.000", attempt=1, state="QUEUED"
    )
    outbox.append(job)
    outbox.append(telemetry(cpu_percent=12.5))
    decoded = codec.decode_batch(codec.encode_batch(outbox.epoch, outbox.batch(10, CAP)))
    assert decoded.epoch == outbox.epoch
    assert decoded.bad == []
    assert decoded.records[0].record == job


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.booleans()),
            st.tuples(st.just("ack"), st.integers(1, 40), st.integers(0, 10)),
            st.tuples(st.just("restart")),
        ),
        max_size=40,
    )
)
def test_in_any_history_exactly_the_unacknowledged_records_are_left(tmp_path_factory, history):
    file = tmp_path_factory.mktemp("outbox") / "o.db"
    database, outbox = open_outbox(file)
    expected: set[int] = set()
    for step in history:
        if step[0] == "append":
            expected.add(outbox.append(event() if step[1] else telemetry()))
        elif step[0] == "ack":
            outbox.batch(1000, CAP)
            outbox.ack(outbox.epoch, [(step[1], step[1] + step[2])])
            expected = {s for s in expected if not step[1] <= s <= step[1] + step[2]}
        else:
            database.close()
            database, outbox = open_outbox(file)
    assert {seq for seq, _ in outbox.batch(1000, CAP)} == expected
    assert outbox.backlog().records == len(expected)
    database.close()


def test_a_record_that_is_undone_with_its_transaction_is_not_counted(tmp_path):
    database, outbox = open_outbox(tmp_path / "o.db")
    outbox.append(event())

    def write_and_fail() -> None:
        with database.transaction(durable=True):
            outbox.append(event())
            raise ValueError

    for _ in range(3):
        with pytest.raises(ValueError):
            write_and_fail()
    assert outbox.backlog().records == 1
    assert len(outbox.batch(10, CAP)) == 1
