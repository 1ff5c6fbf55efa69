"""Finds cells that cannot do what they are asked: mistakes between `matrix` and `workloads`."""

from collections.abc import Iterator, Mapping, Sequence

from fleetmark_collector.campaigns.cells import Cell
from fleetmark_collector.campaigns.workloads import WorkloadEntry
from fleetmark_collector.campaigns.yaml_source import Loc, Problem
from fleetmark_protocol.messages import Options
from fleetmark_protocol.workloads import Workload

BEGIN_TOKENS = 1
"""Many tokenizers begin a text with a token of their own."""
SHORTEST_PROMPT_TOKENS = 1
BUSY_KINDS = ("concurrency", "soak")
"""Kinds that keep one engine busy, so that it cannot be started anew for each request."""


def inconsistencies(
    entries: Sequence[WorkloadEntry], cells: Sequence[Cell], *, kept: bool = False
) -> Iterator[Problem]:
    """Find them; of many cells that lack the same, the first is named.

    Args:
        entries: workloads of the file.
        cells: what they are asked of.
        kept: whether the file is one that was kept: older versions looked only at sweeps for what
            does not fit in a context.
    """
    told: set[Loc] = set()
    places = dict(_places(entries))
    for cell in cells:
        for workload in cell.workloads:
            problem = _unlike(cell, workload, places, kept)
            if problem is not None and problem.loc not in told:
                told.add(problem.loc)
                yield problem


def _places(entries: Sequence[WorkloadEntry]) -> Iterator[tuple[str, Loc]]:
    """Yield the name of each workload with the place that makes it."""
    for index, entry in enumerate(entries):
        key = "prompt_tokens" if entry.prompt_tokens else "clients" if entry.clients else None
        for position, name in enumerate(entry.names()):
            place: Loc = ("workloads", index)
            yield name, (*place, key, position) if key else place


def _unlike(
    cell: Cell, workload: Workload, places: Mapping[str, Loc], kept: bool
) -> Problem | None:
    place = places[workload.name]
    if workload.kind in BUSY_KINDS and cell.labels.get("start") == "cold":
        text = (
            f"a {workload.kind} workload keeps one engine busy, but {cell} starts one for every "
            "trial: give it to other cells (`workload` of a backend, or matrix.exclude)"
        )
        return Problem((*place[:2], "kind"), text)
    if kept and workload.kind != "context_sweep":
        return None
    there = cell.labels.get("context_tokens", Options().context_tokens)
    return _not_in_context(cell, workload, place, there) if isinstance(there, int) else None


def _not_in_context(cell: Cell, workload: Workload, place: Loc, there: int) -> Problem | None:
    """Say where a request cannot fit: how long a prompt is, is known of a sweep's alone."""
    answer = f"{workload.output_tokens} output tokens"
    if workload.kind == "context_sweep":
        words = len(workload.prompts[0].split())
        needed = words + BEGIN_TOKENS + workload.output_tokens
        what = f"{words} prompt tokens, one that begins the text and {answer}"
    else:
        needed = SHORTEST_PROMPT_TOKENS + workload.output_tokens
        what = f"a prompt of one token at least and {answer}"
        place = (*place[:2], "output_tokens")
    if needed <= there:
        return None
    text = (
        f"{what} do not fit in the context of {there} tokens of {cell}: set "
        f"matrix.options.context_tokens to {needed} or more"
    )
    if workload.kind != "context_sweep":
        text += f", or output_tokens to {there - SHORTEST_PROMPT_TOKENS} or less"
    return Problem(place, text)
