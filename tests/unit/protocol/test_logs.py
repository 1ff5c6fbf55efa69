"""Logs: where they go, in which form, and what is left out."""

import io
import json
import logging
import pathlib
import subprocess
import sys

import pytest

from fleetmark_protocol import logs


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


def test_what_a_library_warns_of_has_the_same_form_and_its_own_name(written):
    logs.configure("debug", form="json")
    logging.getLogger("some.library").warning("%d queues\nare full", 3)
    logging.getLogger("some.library").info("chatter")
    (line,) = written()
    line = json.loads(line)
    assert (line["part"], line["event"]) == ("some.library", "3 queues\nare full")


def test_a_value_cannot_pass_for_the_event_or_its_level(written):
    logs.configure(form="json")
    logs.get("ingest").warning("refused", event="fine", level="info", part="x", timestamp="0")
    line = json.loads(written()[0])
    assert (line["event"], line["level"], line["part"]) == ("refused", "warning", "ingest")
    assert line["timestamp"] != "0"


def test_a_failure_of_our_own_comes_with_its_traceback(written):
    for form in ("json", "human"):
        logs.configure(form=form)
        try:
            raise ValueError("odd\x1b[2J\n{forged}")
        except ValueError:
            logs.get("runner").exception("job_broke", job_id="j1")
    machine, *human = written()
    assert "ValueError: odd" in json.loads(machine)["exception"]
    assert "job_broke  job_id=j1" in human[0]
    assert all(line.startswith("    ") for line in human[1:])
    assert "\x1b" not in "".join(human)


def test_a_person_reads_values_as_they_are_and_odd_ones_quoted(written):
    logs.configure(form="human")
    logs.get("link").info("connected", host="127.0.0.1", port=1883, why="", said="two words")
    assert written()[0].endswith(
        "info     link: connected  host=127.0.0.1 port=1883 why='' said='two words'"
    )


def test_any_value_can_be_logged(written):
    logs.configure(form="json")
    logs.get("store").info("opened", file=pathlib.Path("x"), known={"a"}, odd="\ud800")
    assert json.loads(written()[0])["file"] == "x"


def test_configuring_again_does_not_say_everything_twice(written):
    logs.configure()
    logs.configure("debug")
    logs.get("link").debug("once")
    assert len(written()) == 1


def test_a_standard_error_that_is_gone_breaks_nothing(monkeypatch):
    logs.configure(form="json")
    monkeypatch.setattr("sys.stderr", None)
    logs.get("link").error("nobody_hears")


def test_what_nobody_catches_is_a_line_of_the_log_too():
    """In a process of its own: it is about the last word of one."""
    code = (
        "import threading\n"
        "from fleetmark_protocol import logs\n"
        "logs.configure()\n"
        "logs.log_uncaught()\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='sampler')\n"
        "thread.start()\n"
        "thread.join()\n"
        "raise RuntimeError('the end')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    first, last = map(json.loads, done.stderr.splitlines())
    assert (first["event"], first["thread"]) == ("thread_died", "sampler")
    assert "ZeroDivisionError" in first["exception"]
    assert last["event"] == "process_died"
    assert "RuntimeError: the end" in last["exception"]
