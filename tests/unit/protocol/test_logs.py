"""Logs: where they go, in which form, and what is left out."""

import io
import json
import logging

import pytest

from fleetmark_protocol import logs


@pytest.fixture(autouse=True)
def leave_no_configuration_behind():
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    root.handlers[:] = before


@pytest.fixture
def written(capsys):
    """What went to standard error since the last call, as lines."""
    return lambda: capsys.readouterr().err.splitlines()


def test_away_from_a_terminal_each_line_is_an_event_as_json(written):
    logs.configure()
    logs.get("ingest").info("batch_written", records=5)
    line = json.loads(written()[0])
    assert (line["event"], line["part"], line["records"]) == ("batch_written", "ingest", 5)
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_not_written(written):
    logs.configure("warning")
    logs.get("link").info("connected")
    logs.get("link").warning("disconnected")
    assert [json.loads(line)["event"] for line in written()] == ["disconnected"]


def test_a_hostile_value_cannot_forge_a_line(written):
    for form in ("json", "human"):
        logs.configure(form=form)
        logs.get("ingest").warning("refused", topic='x"\n{"event":"forged"}\x1b[2J')
    lines = written()
    assert len(lines) == 2
    assert not any("\x1b[2J" in line for line in lines)


def test_a_loggers_owner_may_be_made_before_logging_is_configured(written):
    log = logs.get("early")
    logs.configure(form="json")
    log.info("started")
    assert json.loads(written()[0])["part"] == "early"


def test_results_on_standard_output_stay_clean(capsys):
    logs.configure(form="json")
    logs.get("report").error("oops")
    assert capsys.readouterr().out == ""


def test_lines_go_where_standard_error_is_now(monkeypatch):
    first, second = io.StringIO(), io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", first)
        logs.configure(form="json")
    first.close()
    monkeypatch.setattr("sys.stderr", second)
    logs.get("late").info("still_here")
    assert json.loads(second.getvalue())["event"] == "still_here"
