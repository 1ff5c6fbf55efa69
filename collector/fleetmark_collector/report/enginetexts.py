"""Says in words whether engines did equal work, and what frameworks cost on top of them."""

from collections.abc import Iterator
from typing import Any

from fleetmark_collector.report.equalwork import EnginePair, EqualWork
from fleetmark_collector.report.findings import gain_text
from fleetmark_collector.report.labels import clean
from fleetmark_collector.report.overhead import Overhead, shows
from fleetmark_collector.report.sameness import Sameness
from fleetmark_protocol.metrics import METRICS

_STYLES = {
    Sameness.IDENTICAL: "better",
    Sameness.SAME_TEXT: "better",
    Sameness.DIVERGES: "worse",
    Sameness.TOKENIZED: "worse",
    Sameness.NOT_COMPARABLE: "",
}


def title_of(group: EqualWork) -> str:
    """Return which engines these are."""
    return f"{clean(group.device)}, {clean(group.model)} {clean(group.quantization)}"


def pair_text(pair: EnginePair) -> str:
    """Return a pair's verdict in one line."""
    return f"{pair.work.text}; {pair.form}" if pair.form else pair.work.text


def equal_work_lines(group: EqualWork) -> Iterator[str]:
    """Yield a group in few lines: who did the same, who differs from them and how."""
    same: list[list[int]] = []
    for position in range(len(group.engines)):
        for others in same:
            pair = group.between(others[0], position)
            if pair is not None and pair.work.worst.kind is Sameness.IDENTICAL:
                others.append(position)
                break
        else:
            same.append([position])
    most = max(same, key=len)
    works = [pair.work for pair in (group.between(most[0], other) for other in most[1:]) if pair]
    if works:
        yield f"{_names(group, most)}: {max(works, key=lambda work: work.prompts).text}"
    for others in same:
        pair = group.between(most[0], others[0])
        if pair is not None and others is not most:
            yield f"{_names(group, others)} against {_names(group, most[:1])}: {pair_text(pair)}"
    unsteady = [index for index, one in enumerate(group.engines) if one.repeats is False]
    if unsteady:
        yield f"{_names(group, unsteady)}: not deterministic: repetitions gave different output"


def equal_work_table(group: EqualWork) -> dict[str, Any]:
    """Return a group as a table of every engine against those before it."""
    return {
        "title": title_of(group),
        "lines": list(equal_work_lines(group)),
        "names": [one.name for one in group.engines],
        "rows": [
            {
                "name": one.name,
                "cells": [_cell(group, row, column) for column in range(row + 1)],
                "blank": len(group.engines) - row - 1,
            }
            for row, one in enumerate(group.engines)
        ],
    }


def overhead_text(one: Overhead) -> str:
    """Return what a framework costs in one workload."""
    where = f"{clean(one.workload)}: {one.framework} against {one.bare}"
    if one.not_comparable is not None:
        return f"{where}: not comparable: {one.not_comparable}"
    parts = [
        ", ".join(filter(None, (f"{METRICS[name].title} {gain_text(found)}", shows(found))))
        for name, found in one.ratios.items()
    ]
    return f"{where}: {'; '.join(parts) or 'nothing measured on both sides'}"


def _names(group: EqualWork, positions: list[int]) -> str:
    return ", ".join(group.engines[position].name for position in positions)


def _cell(group: EqualWork, row: int, column: int) -> dict[str, str]:
    pair = group.between(row, column)
    if pair is None:
        repeats = group.engines[row].repeats
        said = {True: "repeats itself", False: "not deterministic", None: "-"}[repeats]
        return {"value": said, "note": "", "style": "worse" if repeats is False else "self"}
    work, worst = pair.work, pair.work.worst
    notes = [pair.form] if pair.form else []
    if work.prompts > 1:
        notes.insert(0, f"{work.identical} of {work.prompts} identical")
    value = worst.text
    if worst.kind in (Sameness.TOKENIZED, Sameness.NOT_COMPARABLE):
        value = str(worst.kind)
        notes.insert(0, worst.detail.strip("()"))
    return {"value": value, "note": "; ".join(notes), "style": _STYLES[worst.kind]}
