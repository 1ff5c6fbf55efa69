"""Prints tables and lists in a terminal: every figure whole, in as many tables as it takes."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fleetmark_collector.report.sheets import Sheet

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Column = tuple[str, "Sequence[str | Text]"]
"""A title and a value for each row."""


def title_lines(title: str, unit: str = "") -> str:
    """Return a column's title, a word a line, so that ten columns fit beside the row's name."""
    return "\n".join([*title.split(), *([unit] if unit else [])])


def print_table(
    console: "Console",
    names: "Sequence[Text]",
    columns: Sequence[Column],
    fixed: Sequence[Column] = (),
) -> None:
    """Print a row per name, in as many tables as it takes to show every figure whole.

    Args:
        console: where to.
        names: of the rows.
        columns: what each table has a part of.
        fixed: columns that each table has, as rows may have the same name.
    """
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    widest = max(len(name) for name in names)
    table.add_column("Cell", overflow="fold", min_width=min(widest, 30))
    for title, _ in (*fixed, *columns):
        table.add_column(title, justify="right", no_wrap=True)
    for row, name in enumerate(names):
        table.add_row(name, *(values[row] for _, values in (*fixed, *columns)))
    # The names alone may be folded.
    natural = Measurement.get(console, console.options.update(width=10_000), table).maximum
    least = natural - max(0, widest - 30)
    if least > console.width and len(columns) > 1:
        middle = (len(columns) + 1) // 2
        print_table(console, names, columns[:middle], fixed)
        print_table(console, names, columns[middle:], fixed)
    else:
        console.print(table)
        console.print()


def print_sheet(console: "Console", sheet: Sheet) -> None:
    """Print a sheet with what is to be said of it."""
    from rich.text import Text

    names = [Text(name) for name, _ in sheet.rows]
    columns: list[Column] = [
        (
            title_lines(*column),
            [
                Text(
                    f"{entries[place].value} {entries[place].half}".strip(),
                    style="green" if entries[place].better else "",
                )
                for _, entries in sheet.rows
            ],
        )
        for place, column in enumerate(sheet.columns)
    ]
    print_table(console, names, columns[sheet.keys :], columns[: sheet.keys])
    print_list(console, "", [sheet.note, *sheet.remarks])


def print_list(console: "Console", title: str, lines: Iterable[str]) -> None:
    """Print lines below a title; nothing where there are none."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column()
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row("-", Text(line))
    if grid.row_count:
        if title:
            console.print()
            console.print(Text(title, style="bold"))
        console.print(grid)
