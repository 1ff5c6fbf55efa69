"""Makes a dashboard's query ready to be run without Grafana, as Grafana itself does it."""

import re
from collections.abc import Mapping, Sequence

from fleetmark_collector.grafana.variables import EVERYTHING

_VARIABLE = re.compile(r"\$\{(\w+):regex\}")
_SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}/]")


def escaped(value: str) -> str:
    """Return what matches a value and nothing else, within a regular expression of InfluxQL."""
    return _SPECIAL.sub(r"\\\g<0>", value)


def fill(
    query: str,
    chosen: Mapping[str, str | Sequence[str] | None],
    start_ms: int,
    end_ms: int,
    interval: str = "10s",
) -> str:
    """Return the query with values in the place of variables.

    Args:
        query: as a dashboard has it.
        chosen: variable -> a value or several; None, or no entry, stands for "All".
        start_ms: begin of the time shown, milliseconds since the epoch, itself included.
        end_ms: its end, itself included.
        interval: width of a point on the screen.
    """

    def values(found: re.Match[str]) -> str:
        value = chosen.get(found[1])
        if value is None:
            return EVERYTHING
        if isinstance(value, str):
            return escaped(value)
        parts = [escaped(one) for one in value]
        return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"

    text = _VARIABLE.sub(values, query)
    text = text.replace("$timeFilter", f"time >= {start_ms}ms and time <= {end_ms}ms")
    return text.replace("$__interval", interval)
