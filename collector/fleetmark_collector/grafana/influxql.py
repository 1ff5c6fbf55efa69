"""InfluxQL as data: a query is put together from parts, so that quoting happens in one place."""

from dataclasses import dataclass, replace
from typing import Literal, Self

Format = Literal["time_series", "table"]

INTERVAL = "$__interval"
"""The width of one point on the screen, which Grafana fills in."""


def name(text: str) -> str:
    """Quote the name of a measurement, a tag or a field."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def literal(text: str) -> str:
    """Quote a text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def chosen(tag: str, variable: str | None = None) -> str:
    """Return the condition that a tag is among what is chosen in a template variable.

    `:regex` makes Grafana escape each value and join several by `|`, whatever the value looks like;
    without it, its InfluxDB plugin leaves values alone that begin with a digit. "All" comes as
    `.*`, which also takes series that lack the tag.
    """
    return f"{name(tag)} =~ /^${{{variable or tag}:regex}}$/"


@dataclass(frozen=True)
class Column:
    """One selected column, such as `median("latency_s") AS "latency_s"`."""

    expression: str
    alias: str

    def __str__(self) -> str:
        bare = self.expression == name(self.alias)
        return self.expression if bare else f"{self.expression} AS {name(self.alias)}"


def column(field: str, function: str = "", alias: str = "") -> Column:
    """Return a field, or a function of it, under its own name unless another is given."""
    quoted = name(field)
    return Column(f"{function}({quoted})" if function else quoted, alias or field)


@dataclass(frozen=True)
class Query:
    """One SELECT.

    Attributes:
        columns: what is selected.
        source: a measurement, several, or another query.
        where: conditions, all of which must hold; the time filter is added.
        by: tags that are told apart.
        every: width of the windows that times are put into; empty for one value of all.
        newest: only so many rows, the newest first; 0 for all, the oldest first.
        format: how Grafana shall read the answer.
        alias: name of each series, where `format` is time_series; `[[tag_device]]` is a tag.
    """

    columns: tuple[Column, ...]
    source: "str | tuple[str, ...] | Query"
    where: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    every: str = ""
    newest: int = 0
    format: Format = "time_series"
    alias: str = ""

    def table(self) -> Self:
        """Return the same for a table: one row per series and time, tags as columns."""
        return replace(self, format="table", alias="")

    def named(self, *tags: str, prefix: str = "", suffix: str = "") -> Self:
        """Return the same with series named by tags."""
        return replace(self, alias=prefix + " · ".join(f"[[tag_{tag}]]" for tag in tags) + suffix)

    def __str__(self) -> str:
        parts = ["SELECT", ", ".join(map(str, self.columns)), "FROM", self._from()]
        # A condition on the time reaches into the query that it is selected from, but says so only
        # there where points are read.
        if not isinstance(self.source, Query):
            parts += ["WHERE", " AND ".join((*self.where, "$timeFilter"))]
        elif self.where:
            parts += ["WHERE", " AND ".join(self.where)]
        groups = [f"time({self.every})"] if self.every else []
        groups += map(name, self.by)
        if groups:
            parts += ["GROUP BY", ", ".join(groups)]
        if self.every:
            # Windows without a point are left out: a gap is a gap, not a zero.
            parts.append("fill(none)")
        if self.newest:
            parts.append(f"ORDER BY time DESC LIMIT {self.newest}")
        return " ".join(parts)

    def _from(self) -> str:
        if isinstance(self.source, Query):
            return f"({self.source})"
        sources = (self.source,) if isinstance(self.source, str) else self.source
        return ", ".join(map(name, sources))
