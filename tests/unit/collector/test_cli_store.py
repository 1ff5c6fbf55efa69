"""`fleetmark store` without a server: the embedded store, wrong input, and how progress looks."""

import io
import json

import pytest
from rich.console import Console

from collected import stored, telemetry
from fleetmark_collector.cli import store
from fleetmark_collector.findings import Finding
from fleetmark_collector.sinks.copying import Copied, Part
from fleetmark_collector.sinks.sqlite import SqliteSink
from unit.collector.test_cli_main import fleetmark


@pytest.fixture
def influxdb(tmp_path):
    """Settings that name a server which is not there."""
    config = tmp_path / "collector.toml"
    config.write_text(
        f'data_dir = "{tmp_path}/data"\n[store]\nkind = "influxdb"\nurl = "http://127.0.0.1:1"\n'
    )
    return config


def test_the_embedded_store_is_made_once(tmp_path):
    first = fleetmark("store", "init", "--data-dir", tmp_path)
    assert (first.returncode, first.stdout) == (0, f"made the embedded store {tmp_path}/store.db\n")
    again = fleetmark("store", "init", "--data-dir", tmp_path)
    assert again.stdout == f"there is the embedded store {tmp_path}/store.db\n"


def test_a_check_of_the_embedded_store_counts_its_records(tmp_path):
    missing = fleetmark("store", "check", "--data-dir", tmp_path)
    assert missing.returncode == 1
    assert "no data yet" in missing.stdout
    sink = SqliteSink(tmp_path / "store.db")
    sink.write([stored(telemetry())])
    sink.close()
    done = fleetmark("store", "check", "--json", "--data-dir", tmp_path)
    assert done.returncode == 0
    (found,) = json.loads(done.stdout)
    assert found["level"] == "ok"
    assert "telemetry 1" in found["text"]


@pytest.mark.parametrize("text", ["", "90", "d", "0d", "1y", "-1d", "90 d", "1000000d"])
def test_a_retention_that_is_no_time_is_the_user_s_mistake(tmp_path, influxdb, text):
    done = fleetmark("store", "init", "--retention", text, "--config", influxdb)
    assert done.returncode == 2
    assert "90d, 52w, 12h or forever" in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12h", 12 * 3600), ("90d", 90 * 86400), ("2w", 14 * 86400), ("forever", 0), (None, None)],
)
def test_a_retention_is_hours_days_or_weeks(text, seconds):
    assert store._retention_s(text) == seconds


def test_the_embedded_store_takes_no_retention(tmp_path):
    done = fleetmark("store", "init", "--retention", "90d", "--data-dir", tmp_path)
    assert done.returncode == 2
    assert "for ever" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("sqlite", "sqlite"), "the same store"),
        (("sqlite", "postgres"), "postgres"),
        (("sqlite", "influxdb"), "name no InfluxDB"),
    ],
)
def test_a_copy_that_makes_no_sense_is_the_user_s_mistake(tmp_path, arguments, text):
    done = fleetmark("store", "copy", *arguments, "--data-dir", tmp_path)
    assert done.returncode == 2
    assert text in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("init",), ("check",), ("copy", "influxdb", "sqlite")])
def test_a_server_that_is_away_is_a_failure_and_not_the_user_s_mistake(influxdb, command):
    done = fleetmark("store", *command, "--config", influxdb)
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (influxdb.parent / "data" / "store.db").exists()


def progress(monkeypatch, *, terminal: bool, capsys) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    monkeypatch.setattr(store, "console", lambda: console)
    with store._progress() as tell:
        for done in range(0, 1001, 10):
            tell(Copied(total=1000, done=done, kind="trial"))
        tell(Copied(total=1000, done=1000))
    return out.getvalue() + capsys.readouterr().out


def test_without_a_terminal_progress_is_a_few_lines(monkeypatch, capsys):
    lines = progress(monkeypatch, terminal=False, capsys=capsys).splitlines()
    assert lines[0] == "0 of 1000 records (0%)"
    assert lines[-1] == "1000 of 1000 records (100%)"
    assert len(lines) <= 12


def test_on_a_terminal_progress_is_a_bar(monkeypatch, capsys):
    text = progress(monkeypatch, terminal=True, capsys=capsys)
    assert "1000/1000" in text
    assert "comparing" in text


def test_nothing_to_copy_is_told_once(monkeypatch, capsys):
    tell = store._lines()
    tell(Copied())
    assert capsys.readouterr().out == "0 of 0 records (100%)\n"
    tell(Copied())
    assert capsys.readouterr().out == ""


def test_what_is_not_in_the_target_is_named(capsys):
    part = Part("trial", "lab", "pi", "", 7)
    done = Copied(
        total=7, done=7, refused=1, refusals=["trial lab/pi seq 3: odd"], missing=[(part, 2)]
    )
    assert not store._print_result(done, store.Kind.INFLUXDB)
    told = capsys.readouterr().err
    assert "refused: trial lab/pi seq 3: odd" in told
    assert "missing: 2 of 7 trial records of lab/pi" in told
    assert store._print_result(Copied(total=7, done=7), store.Kind.SQLITE)
    assert "all 7 records are in sqlite" in capsys.readouterr().out


def test_a_finding_and_what_to_do_about_it_stand_in_columns():
    from fleetmark_collector.cli.common import print_finding

    out = io.StringIO()
    print_finding(Console(file=out), Finding("store database", "missing", "none", "make it"))
    assert out.getvalue() == f"missing store database  none\n{'':<24}-> make it\n"
