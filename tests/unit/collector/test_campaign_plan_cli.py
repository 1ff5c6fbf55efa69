"""`fleetmark campaign plan|validate|run`: what they say of kinds of workloads and of windows."""

import json

import pytest

from campaigncli import Cli
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.messages import Hardware

HARDWARE = Hardware(
    arch="aarch64", os="Linux", kernel="6", hostname="pi", board="Raspberry Pi 4", cores_logical=4
)
BY_NAME = ("name: tiny", "name: tiny-135m")
"""Tells the size of the model."""


@pytest.fixture
def cli(tmp_path):
    made = Cli(tmp_path)
    made.add_device("pi-1", hardware=HARDWARE, tags=("pi4",))
    return made


def change(cli, *changes):
    text = cli.file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    cli.file.write_text(text)


KINDS = """\
  - {name: heat, kind: soak, prompt: hello, duration_s: 900}
  - {name: crowd, kind: concurrency, prompt: hello, clients: 2, repetitions: 4}
  - {name: qa, kind: single, prompt: hello, repetitions: {half_width_percent: 5, min: 4, max: 16}}
order: interleaved
blocks: 2
cool_down: {temperature_c: 60}
"""


def test_a_plan_shows_blocks_kinds_and_how_many_trials_there_may_be(cli):
    text = cli.file.read_text()
    cli.file.write_text(text[: text.index("  - {name: one")] + KINDS)
    change(cli, BY_NAME, ("[Q8_0, Q4_0]", "Q8_0"), ("threads: [1, 2]", "threads: 1"))
    done = cli("plan", str(cli.file))
    assert done.exit_code == 0, done.output
    assert "1 of 2" in done.output
    assert "2 of 2" in done.output
    assert "crowd-2 (concurrency), qa (adaptive)" in done.output
    assert "heat (soak of 15:00)" in done.output
    # In a block two rounds of two clients and a warm-up, and six to eight of the other with its.
    assert "2 jobs, 28 to 32+ trials." in done.output
    assert "note: waiting for 60 °C before each job comes on top, 600 s each time" in done.output
    validated = cli("validate", str(cli.file), data=False)
    assert "On each device: 2 jobs, 28 to 32+ trials." in validated.output
    plan = json.loads(cli("plan", str(cli.file), "--json").stdout)
    assert [job["block"] for job in plan["jobs"]] == [
        {"number": 1, "of": 2},
        {"number": 2, "of": 2},
    ]
    assert [(job["trials_at_least"], job["trials"]) for job in plan["jobs"]] == [
        (13, 15),
        (15, 17),
    ]
    soak = plan["jobs"][1]["seconds"]
    assert soak["low"] > 900
    assert soak["high"] < 4 * 900


NIGHT = "windows: {times: 02:00-02:30, time_zone: UTC}\n"


def test_what_does_not_fit_into_its_windows_is_refused_unless_it_is_wanted(cli):
    change(cli, BY_NAME, ("kind: single", "kind: soak, duration_s: 3600"))
    cli.file.write_text(cli.file.read_text() + NIGHT)
    for command in ("plan", "run"):
        done = cli(command, str(cli.file), *(("--detach",) if command == "run" else ()))
        assert isinstance(done.exception, ConfigError), done.output
        assert "no window is longer than 1800 s" in str(done.exception)
        assert "--yes" in str(done.exception.hint)
    assert cli("list").output.startswith("No campaigns")
    done = cli("run", str(cli.file), "--detach", "--yes")
    assert done.exit_code == 0, done.output
    assert "started beyond its limits" in done.output
