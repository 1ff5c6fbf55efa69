"""Backup and restore of what the collector keeps: whole, checked, never over what is there."""

import itertools
import json
import os
import sqlite3
import threading

import pytest
from typer.testing import CliRunner

from fleetmark_collector import datalock
from fleetmark_collector.backup import MANIFEST, back_up, restore
from fleetmark_collector.cli.main import build
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.sinks.stores import open_reader, open_writer
from fleetmark_protocol.errors import ConfigError, StoreError, StoreUnavailable

NOW_NS = 1_750_000_000 * 10**9


@pytest.fixture
def settings(tmp_path):
    return CollectorSettings(data_dir=tmp_path / "data")


def write(file, *values):
    """Put rows into a database of ours, in write-ahead mode as the collector has it."""
    file.parent.mkdir(exist_ok=True)
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE IF NOT EXISTS t (value)")
    db.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
    return db


def read(file):
    db = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
    try:
        return [row[0] for row in db.execute("SELECT value FROM t ORDER BY rowid")]
    finally:
        db.close()


def names(directory):
    return sorted(file.name for file in directory.iterdir())


def test_a_backup_holds_what_was_committed_though_the_database_is_open(settings, tmp_path):
    open_ones = [write(settings.state_file, "a campaign"), write(settings.store_file, "a record")]
    settings.dead_letter_file.write_text('{"reason": "x"}\n')
    manifest = back_up(settings, tmp_path / "copy", clock=lambda: NOW_NS)
    assert read(tmp_path / "copy" / "state.db") == ["a campaign"]
    assert read(tmp_path / "copy" / "store.db") == ["a record"]
    assert names(tmp_path / "copy") == [MANIFEST, "dead_letters.jsonl", "state.db", "store.db"]
    assert set(manifest.files) == {"dead_letters.jsonl", "state.db", "store.db"}
    for db in open_ones:
        db.close()


def test_a_database_is_copied_as_it_was_at_one_moment_though_it_is_written_to(settings, tmp_path):
    """A writer adds pairs, each in one transaction: no copy may hold half of one."""
    write(settings.state_file).close()
    stop = threading.Event()
    written = itertools.count()

    def write_on():
        db = write(settings.state_file)
        while not stop.is_set():
            number = next(written)
            db.execute("BEGIN")
            db.executemany("INSERT INTO t VALUES (?)", [(f"{number}-{n}",) for n in range(50)])
            db.execute("COMMIT")
        db.close()

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        copies = []
        for number in range(8):
            back_up(settings, tmp_path / f"copy{number}")
            copies.append(read(tmp_path / f"copy{number}" / "state.db"))
    finally:
        stop.set()
        writer.join()
    for values in copies:
        assert len(values) % 50 == 0
        assert values == [f"{n // 50}-{n % 50}" for n in range(len(values))]
    assert len(copies[-1]) > len(copies[0]), "the writer was at work all the time"


def test_a_restored_directory_is_as_it_was(settings, tmp_path):
    write(settings.state_file, "old").close()
    write(settings.store_file, "old").close()
    back_up(settings, tmp_path / "copy")
    write(settings.state_file, "new").close()
    db = write(settings.store_file, "new")  # left open: its write-ahead log is beside it
    restored = restore(settings, tmp_path / "copy", clock=lambda: NOW_NS)
    db.close()
    assert read(settings.state_file) == ["old"]
    assert read(settings.store_file) == ["old"]
    assert restored.kept == settings.data_dir / "before-restore-20250615-150640"
    assert read(restored.kept / "state.db") == ["old", "new"]
    assert read(restored.kept / "store.db") == ["old", "new"]


def test_what_is_not_in_the_backup_stays_where_it_is(settings, tmp_path):
    """With an InfluxDB there is no store.db; an older one lying there is none of its business."""
    write(settings.state_file, "old").close()
    back_up(settings, tmp_path / "copy")
    write(settings.store_file, "mine").close()
    restore(settings, tmp_path / "copy")
    assert read(settings.store_file) == ["mine"]


def test_a_backup_can_be_put_on_a_new_machine(settings, tmp_path):
    write(settings.state_file, "a campaign").close()
    back_up(settings, tmp_path / "copy")
    new = CollectorSettings(data_dir=tmp_path / "elsewhere" / "data")
    assert restore(new, tmp_path / "copy").kept is None
    assert read(new.state_file) == ["a campaign"]


def test_the_real_store_can_be_read_after_a_restore(settings, tmp_path):
    open_writer(settings).close()
    back_up(settings, tmp_path / "copy")
    new = CollectorSettings(data_dir=tmp_path / "new")
    restore(new, tmp_path / "copy")
    reader = open_reader(new)
    assert set(reader.counts().values()) == {0}
    reader.close()


def test_nothing_is_put_into_a_directory_that_holds_something(settings, tmp_path):
    write(settings.state_file, "x").close()
    back_up(settings, tmp_path / "copy")
    with pytest.raises(ConfigError, match="not empty"):
        back_up(settings, tmp_path / "copy")


def test_an_empty_data_directory_is_no_backup(settings, tmp_path):
    with pytest.raises(ConfigError, match="nothing to back up"):
        back_up(settings, tmp_path / "copy")


def test_a_damaged_database_is_not_passed_off_as_a_backup(settings, tmp_path):
    write(settings.state_file, *("x" * 500 for _ in range(200))).close()
    with settings.state_file.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096))
    with pytest.raises(StoreError):
        back_up(settings, tmp_path / "copy")
    assert not (tmp_path / "copy" / MANIFEST).exists()
    with pytest.raises(ConfigError, match="is no backup"):
        restore(settings, tmp_path / "copy")


def test_while_a_collector_runs_nothing_is_restored(settings, tmp_path):
    write(settings.state_file, "old").close()
    back_up(settings, tmp_path / "copy")
    write(settings.state_file, "new").close()
    with datalock.held(settings.data_dir), pytest.raises(ConfigError, match="another collector"):
        restore(settings, tmp_path / "copy")
    assert read(settings.state_file) == ["old", "new"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda copy: (copy / "state.db").unlink(), "is missing"),
        (lambda copy: (copy / "state.db").write_bytes(b"other"), "SHA-256 differs"),
        (lambda copy: (copy / MANIFEST).unlink(), "is no backup"),
        (lambda copy: (copy / MANIFEST).write_text("{"), "Invalid JSON"),
        (lambda copy: (copy / MANIFEST).write_text('{"format": 2}'), "format"),
    ],
)
def test_a_backup_that_was_changed_is_refused_and_nothing_is_replaced(
    settings, tmp_path, spoil, message
):
    write(settings.state_file, "old").close()
    back_up(settings, tmp_path / "copy")
    spoil(tmp_path / "copy")
    before = read(settings.state_file)
    with pytest.raises(ConfigError, match=message):
        restore(settings, tmp_path / "copy")
    assert read(settings.state_file) == before
    left = [name for name in names(settings.data_dir) if "restor" in name]
    assert left == []


def test_a_manifest_cannot_name_a_file_outside_its_directory(settings, tmp_path):
    write(settings.state_file, "old").close()
    back_up(settings, tmp_path / "copy")
    manifest = json.loads((tmp_path / "copy" / MANIFEST).read_text())
    manifest["files"] = {"../../evil": manifest["files"]["state.db"]}
    (tmp_path / "copy" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="files"):
        restore(settings, tmp_path / "copy")


def test_a_disk_without_room_is_said_and_leaves_no_backup_behind(settings, tmp_path, monkeypatch):
    write(settings.state_file, "old").close()
    settings.dead_letter_file.write_text("{}\n")

    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path / "copy"))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        back_up(settings, tmp_path / "copy")
    assert not (tmp_path / "copy" / MANIFEST).exists()


def test_the_commands_say_what_they_did(settings, tmp_path):
    write(settings.state_file, "x").close()
    where = ["--data-dir", str(settings.data_dir)]
    run = CliRunner().invoke
    made = run(build(), ["backup", str(tmp_path / "copy"), *where])
    assert made.exit_code == 0
    assert "state.db" in made.output
    back = run(build(), ["restore", str(tmp_path / "copy"), *where])
    assert back.exit_code == 0
    assert "before-restore-" in back.output
