"""How `fleetmark fleet install` looks: live on a terminal, lines elsewhere, a table at the end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from fleetmark_collector.cli.common import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from fleetmark_collector.fleet.hosts import Target
    from fleetmark_collector.fleet.install import Outcome, Watcher

STYLES = {"done": "green", "unchanged": "dim", "planned": "cyan", "failed": "red"}


class Lines:
    """A line for each thing that begins or ends, on standard error."""

    def step(self, target: "Target", doing: str) -> None:
        """See `Watcher`."""
        typer.echo(f"{target.destination}: {doing}", err=True)

    def ended(self, outcome: "Outcome") -> None:
        """See `Watcher`."""
        typer.echo(f"{outcome.target.destination}: {_in_words(outcome)}", err=True)

    def note(self, text: str) -> None:
        """See `Watcher`."""
        typer.echo(f"note: {text}", err=True)


class Live:
    """A line on the terminal for each device that is being dealt with, and how many are done."""

    def __init__(self, progress: "Progress", count: int) -> None:
        self._progress = progress
        self._count, self._ended = count, 0
        self._all = progress.add_task("devices", doing=f"0 of {count} done")
        self._tasks: dict[str, TaskID] = {}

    def step(self, target: "Target", doing: str) -> None:
        """See `Watcher`."""
        name = target.destination
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, doing=doing)
        self._progress.update(self._tasks[name], doing=doing)

    def ended(self, outcome: "Outcome") -> None:
        """See `Watcher`."""
        task = self._tasks.pop(outcome.target.destination, None)
        if task is not None:
            self._progress.remove_task(task)
        if outcome.state == "failed":
            self.note(f"{outcome.target.destination}: {_in_words(outcome)}")
        self._ended += 1
        self._progress.update(self._all, doing=f"{self._ended} of {self._count} done")

    def note(self, text: str) -> None:
        """See `Watcher`."""
        from rich.text import Text

        self._progress.console.print(Text(text))


@contextmanager
def watching(count: int) -> "Iterator[Watcher]":
    """Tell the user on standard error: results go to standard output."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    out = Console(stderr=True)
    if not out.is_terminal:
        yield Lines()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[doing]}", markup=False),
    )
    with Progress(*columns, console=out, transient=True) as progress:
        yield Live(progress, count)


def print_outcomes(outcomes: "Sequence[Outcome]") -> None:
    """Print a table with a row for each device, and how many came out how."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("HOST", "DEVICE", "RESULT"):
        table.add_column(title, no_wrap=True)
    table.add_column("WHAT", overflow="fold")
    for one in outcomes:
        what = ", ".join(one.steps) or "-" if one.problem is None else one.problem
        cells = (one.target.destination, one.device or "-", one.state, what)
        table.add_row(*(Text(cell) for cell in cells), style=STYLES[one.state])
    out = console()
    if not out.is_terminal:
        out.width = max(out.width, 160)
    out.print(table)
    for hint in dict.fromkeys(one.hint for one in outcomes if one.hint):
        out.print(Text(f"hint: {hint}"), soft_wrap=True)
    counts = {state: sum(one.state == state for one in outcomes) for state in STYLES}
    said = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    typer.echo(f"{len(outcomes)} devices: {said}")


def outcome_json(outcome: "Outcome") -> dict[str, Any]:
    """Return an outcome as plain data."""
    return {
        "host": outcome.target.destination,
        "device": outcome.device,
        "state": outcome.state,
        "steps": list(outcome.steps),
        "problem": outcome.problem,
        "hint": outcome.hint,
    }


def _in_words(outcome: "Outcome") -> str:
    if outcome.problem is not None:
        return f"failed: {outcome.problem}"
    return f"{outcome.state} ({', '.join(outcome.steps)})" if outcome.steps else outcome.state
