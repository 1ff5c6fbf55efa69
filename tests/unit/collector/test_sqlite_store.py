"""What only the embedded store promises."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from collected import stored, telemetry, trial
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_collector.sinks.sqlite_schema import SCHEMA_VERSION
from fleetmark_protocol.errors import StoreError, StoreUnavailable


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "data" / "store.db"


def test_a_commit_waits_for_the_disk_because_an_ack_frees_the_device_s_copy(file):
    sink = SqliteSink(file)
    assert sink._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert sink._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    sink.close()


def test_what_a_killed_collector_had_written_is_there(file):
    script = textwrap.dedent(
        """
        import os, pathlib, signal, sys
        sys.path.insert(0, sys.argv[2])
        from collected import stored, trial
        from fleetmark_collector.sinks.sqlite import SqliteSink
        sink = SqliteSink(pathlib.Path(sys.argv[1]))
        sink.write([stored(trial(n, f"c.pi.1.w.{n}.0"), n) for n in range(1, 101)])
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    tests = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", script, file, tests], env=os.environ)
    assert killed.returncode == -9
    reader = SqliteReader(file)
    assert reader.trial_counts("c") == {"c.pi.1": 100}
    reader.close()


def test_a_batch_is_seen_whole_or_not_at_all(file):
    sink = SqliteSink(file)
    sink.write([stored(telemetry(0), 1)])
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        reader = SqliteReader(file)
        while not done.is_set():
            seen.append(reader.counts()["telemetry"])
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for start in range(1, 2000, 50):
        sink.write([stored(telemetry(start + at), start + at + 1) for at in range(50)])
    done.set()
    thread.join()
    sink.close()
    assert {number % 50 for number in seen} == {1}


def test_a_reader_in_the_middle_of_a_transaction_does_not_hold_the_writer_up(file):
    sink = SqliteSink(file)
    sink.write([stored(telemetry(), 1)])
    slow = sqlite3.connect(file, isolation_level=None)
    slow.execute("BEGIN")
    assert slow.execute("SELECT count(*) FROM telemetry").fetchone() == (1,)
    sink.write([stored(telemetry(), 2)])
    assert slow.execute("SELECT count(*) FROM telemetry").fetchone() == (1,)
    slow.execute("COMMIT")
    assert slow.execute("SELECT count(*) FROM telemetry").fetchone() == (2,)
    slow.close()
    sink.close()


def test_a_reader_cannot_change_the_store(file):
    SqliteSink(file).close()
    reader = SqliteReader(file)
    with pytest.raises(StoreError):
        reader._rows("DELETE FROM telemetry")
    reader.close()


@pytest.mark.parametrize("opener", [SqliteSink, lambda file: SqliteReader(file).counts()])
def test_a_store_of_a_newer_version_is_left_alone(file, opener):
    SqliteSink(file).close()
    db = sqlite3.connect(file)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match="newer fleetmark") as caught:
        opener(file)
    assert not caught.value.retryable
    assert caught.value.hint


@pytest.mark.parametrize("opener", [SqliteSink, lambda file: SqliteReader(file).counts()])
def test_a_file_that_is_no_database_is_refused_and_not_overwritten(file, opener):
    file.parent.mkdir()
    file.write_text("my diary, volume one\n" * 100)
    with pytest.raises(StoreError) as caught:
        opener(file)
    assert not caught.value.retryable
    assert file.read_text().startswith("my diary")


def test_a_reader_without_a_store_says_so_and_makes_none(file):
    reader = SqliteReader(file)
    with pytest.raises(StoreUnavailable, match="no data yet") as caught:
        reader.trials("c")
    assert "data_dir" in caught.value.hint
    assert not file.parent.exists()


def test_a_reader_finds_a_store_that_comes_later(file):
    reader = SqliteReader(file)
    with pytest.raises(StoreUnavailable):
        reader.counts()
    sink = SqliteSink(file)
    sink.write([stored(trial())])
    assert reader.counts()["trial"] == 1
    reader.close()
    sink.close()


def test_a_store_that_another_program_holds_is_unavailable_and_then_works(file, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.sqlitefile.BUSY_TIMEOUT_S", 0.05)
    sink = SqliteSink(file)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        sink.write([stored(trial())])
    holder.execute("ROLLBACK")
    holder.close()
    sink.write([stored(trial())])
    sink.close()


def test_a_directory_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        SqliteSink(tmp_path / "file" / "store.db")


def test_odd_characters_in_the_path_are_just_characters(tmp_path):
    sink = SqliteSink(tmp_path / "100% of #1? é" / "store.db")
    sink.write([stored(trial())])
    reader = SqliteReader(tmp_path / "100% of #1? é" / "store.db")
    assert reader.counts()["trial"] == 1
    reader.close()
    sink.close()
