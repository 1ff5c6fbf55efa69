"""Splits a cell's repetitions over several jobs, so that its measurements lie apart in time; pure.

What changes slowly on a machine (heat, neighbours, the time of day) then meets all cells alike.
"""

import math
from dataclasses import replace

from fleetmark_collector.campaigns.cells import INTERVAL_TAKES, Cell
from fleetmark_protocol.workloads import Adaptive, Workload

MAX_HALF_WIDTH_PERCENT = 100.0


def split(cell: Cell, blocks: int) -> tuple[Cell, ...]:
    """Return the cell in parts that a job each measures, in order.

    There are as many as `blocks`, or as the most repetitions of any of its workloads if that is
    fewer. A soak is whole in the last of them: what it heats up disturbs the fewest that follow.

    Args:
        cell: with all its workloads.
        blocks: parts at most.
    """
    parts = {one.name: _parts(one, blocks) for one in cell.workloads}
    count = max(map(len, parts.values()))
    out: list[list[Workload]] = [[] for _ in range(count)]
    for workload in cell.workloads:
        mine = parts[workload.name]
        first = count - 1 if workload.kind == "soak" else 0
        for number, part in enumerate(mine, first):
            out[number].append(part)
    return tuple(replace(cell, workloads=tuple(workloads)) for workloads in out)


def _parts(workload: Workload, blocks: int) -> list[Workload]:
    if workload.kind == "soak":
        return [workload]
    if workload.adaptive is not None:
        # A part that cannot make as many could never tell that it knows enough.
        count = max(1, min(blocks, workload.repetitions // INTERVAL_TAKES))
        return _adaptive_parts(workload, workload.adaptive, count)
    count = min(blocks, workload.repetitions)
    each, more = divmod(workload.repetitions, count)
    parts = []
    begun = workload.first_repetition
    for number in range(count):
        repetitions = each + (number < more)
        change = {"repetitions": repetitions, "first_repetition": begun}
        parts.append(workload.model_copy(update=change))
        begun += repetitions
    return parts


def _adaptive_parts(workload: Workload, adaptive: Adaptive, count: int) -> list[Workload]:
    """Have each part know its own median as well as the whole needs it.

    An interval narrows with the square root of the number of repetitions, so a part with an n-th of
    them may be as many times wider as the root of n. Numbers of repetitions that a part does not
    use are left out, as each begins before anybody knows how many the one before will make.
    """
    wider = adaptive.half_width_percent * math.sqrt(count)
    own = adaptive.model_copy(
        update={
            "half_width_percent": min(MAX_HALF_WIDTH_PERCENT, wider),
            "min": math.ceil(adaptive.min / count),
            "budget_s": None if adaptive.budget_s is None else adaptive.budget_s / count,
        }
    )
    most = math.ceil(workload.repetitions / count)
    return [
        workload.model_copy(
            update={
                "adaptive": own,
                "repetitions": most,
                "first_repetition": workload.first_repetition + number * most,
            }
        )
        for number in range(count)
    ]
