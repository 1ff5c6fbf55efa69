"""`fleetmark fleet install`: what is wrong is told before anything begins, and how it looks."""

import io
import json

import pytest
import typer
from rich.console import Console
from rich.progress import Progress, TextColumn
from typer.testing import CliRunner

from fleetmark_collector.cli import fleet
from fleetmark_collector.cli.fleet_output import Lines, Live, outcome_json, print_outcomes
from fleetmark_collector.fleet.hosts import Target
from fleetmark_collector.fleet.install import Outcome
from fleetmark_protocol.errors import ConfigError

DONE = Outcome(Target("pi@one", "pi-1", (), "x:1"), "pi-1", "done", ("enroll", "identity"))
SAME = Outcome(Target("two", None, (), "HOSTS"), "pi-2", "unchanged")
FAILED = Outcome(
    Target("three", None, (), "HOSTS"), None, "failed", (), "[red]no[/red]", "go there"
)


@pytest.fixture
def run(tmp_path):
    """Return what runs the command with nothing on this machine being touched."""
    app = typer.Typer()
    fleet.register(app)

    def invoke(*args):
        given = ["fleet", "install", "--data-dir", str(tmp_path / "data"), *map(str, args)]
        return CliRunner().invoke(app, given)

    return invoke


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-oProxyCommand=x"], "No such option"),
        (["board", "--jobs", "0"], "--jobs"),
        (["board", "--wait", "-1"], "--wait"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_option_is_refused(run, args, words):
    done = run(*args)
    assert done.exit_code == 2
    assert words in done.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--", "-oProxyCommand=x"], "is no destination for ssh"),
        (["@nowhere"], "nowhere"),
        (["board", "--package", "fleetmark-agent.deb"], "is no package"),
        (["board", "--kits", "nowhere"], "--kits: nowhere is no directory"),
        (["board", "--ssh-config", "nowhere"], "--ssh-config"),
        (["board", "--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_a_wrong_word_is_the_users_mistake(run, args, words):
    done = run(*args)
    assert isinstance(done.exception, ConfigError)
    assert words in str(done.exception)


def test_a_table_has_a_row_for_each_with_its_problem_and_what_to_do(capsys):
    print_outcomes([DONE, SAME, FAILED])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["pi@one", "pi-1", "done", "enroll,", "identity"],
        ["two", "pi-2", "unchanged", "-"],
        # Words of a device are no markup.
        ["three", "-", "failed", "[red]no[/red]"],
    ]
    assert lines[4:] == ["hint: go there", "3 devices: 1 done, 1 unchanged, 1 failed"]


def test_without_a_terminal_each_beginning_and_end_is_a_line_of_standard_error(capsys):
    lines = Lines()
    lines.step(DONE.target, "looking")
    for one in (DONE, SAME, FAILED):
        lines.ended(one)
    lines.note("tell the broker")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "pi@one: looking",
        "pi@one: done (enroll, identity)",
        "two: unchanged",
        "three: failed: [red]no[/red]",
        "note: tell the broker",
    ]


def test_on_a_terminal_there_is_a_line_for_each_that_is_being_dealt_with():
    screen = io.StringIO()
    with Progress(
        TextColumn("{task.description}={task.fields[doing]}", markup=False),
        console=Console(file=screen, force_terminal=True, width=80),
        auto_refresh=False,
    ) as progress:
        live = Live(progress, 2)
        live.step(DONE.target, "looking")
        live.step(FAILED.target, "looking")
        live.step(DONE.target, "starting")
        progress.refresh()
        live.ended(DONE)
        live.ended(FAILED)
        last = [(task.description, task.fields["doing"]) for task in progress.tasks]
    said = screen.getvalue()
    assert "pi@one=starting" in said
    assert "three=looking" in said
    # A failure stays on the screen.
    assert "three: failed: [red]no[/red]" in said
    assert last == [("devices", "2 of 2 done")]


def test_a_program_reads_all_of_it():
    assert json.loads(json.dumps(outcome_json(FAILED))) == {
        "host": "three",
        "device": None,
        "state": "failed",
        "steps": [],
        "problem": "[red]no[/red]",
        "hint": "go there",
    }
