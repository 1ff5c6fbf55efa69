"""Compares two cells: whether they may be compared at all, and what each metric shows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.judged import Trial, energy_sources
from fleetmark_collector.report.reported import OF_ENERGY, REPORTED
from fleetmark_collector.report.sameness import tokenized
from fleetmark_collector.report.statistics import Outcome, Ratio, outcome, ratio
from fleetmark_protocol.metrics import METRICS


@dataclass(frozen=True)
class Comparison:
    """One metric of a cell against the same of another; a `gain` above 1 is better."""

    metric: str
    gain: Ratio
    outcome: Outcome


@dataclass(frozen=True)
class Versus:
    """A cell against the baseline.

    Attributes:
        not_comparable: why they are not compared; None where they are.
        comparisons: by metric; those that both cells have and where a direction is good.
        same_outputs: whether both generated the same, prompt by prompt; None where unknown.
        notes: what the reader should know of this comparison.
    """

    not_comparable: str | None
    comparisons: Mapping[str, Comparison]
    same_outputs: bool | None
    notes: tuple[str, ...] = ()


def why_not_comparable(cell: Cell, other: Cell) -> str | None:
    """Return why two cells of one workload are not to be compared; None where they are.

    Equal work only: the same weights by their origin (or the very same file), the same prompt
    tokens, the same number of generated tokens.
    """
    if not cell.measured or not other.measured:
        return "no usable trial on one side"
    return (
        weights_differ([cell], [other])
        or _starts(cell, other)
        or _prompts(cell, other)
        or _outputs_asked(cell, other)
    )


def weights_differ(mine: Sequence[Cell], theirs: Sequence[Cell]) -> str | None:
    """Return why two configurations did not run the same weights; None where they did."""
    origins = [_all(cells, "model_origin_sha256") for cells in (mine, theirs)]
    files = [_all(cells, "model_sha256") for cells in (mine, theirs)]
    for found in (origins, files):
        # The same file is the same weights, even where its origin is unknown.
        if found[0] == found[1] and len(found[0]) == 1 and None not in found[0]:
            return None
    if any(None in found for found in origins):
        return "where the weights come from is unknown"
    if any(len(found) > 1 for found in origins):
        return "a cell was measured with more than one model"
    return "weights of different origin"


def compare_metric(
    cell: Cell, other: Cell, metric: str, *, confidence: float, seed: int
) -> Comparison | None:
    """Return what the metric shows of two comparable cells; None where it shows nothing."""
    better = METRICS[metric].better
    if better == "neither" or (
        metric in OF_ENERGY and energy_sources(cell.measured) != energy_sources(other.measured)
    ):
        return None
    mine, theirs = cell.values(metric), other.values(metric)
    over, under = (mine, theirs) if better == "higher" else (theirs, mine)
    gain = ratio(over, under, confidence=confidence, seed=seed)
    return None if gain is None else Comparison(metric, gain, outcome(gain))


def compare(cell: Cell, other: Cell, *, confidence: float, seed: int, same_machine: bool) -> Versus:
    """Return all that can be said of a cell against another one."""
    why = why_not_comparable(cell, other)
    if why is not None:
        return Versus(why, {}, None)
    found = (
        compare_metric(cell, other, metric, confidence=confidence, seed=seed) for metric in REPORTED
    )
    notes: list[str] = []
    same = same_outputs(cell, other)
    if same is not None:
        notes.append(
            "same output as the baseline" if same else "output differs from the baseline's"
        )
    if same_machine and cell.config[:2] != other.config[:2]:
        notes.append("on the same machine as the baseline")
    mine, theirs = energy_sources(cell.measured), energy_sources(other.measured)
    if mine and theirs and mine != theirs:
        notes.append(
            f"energy not compared: {'+'.join(mine)} here, {'+'.join(theirs)} in the baseline"
        )
    return Versus(None, {one.metric: one for one in found if one is not None}, same, tuple(notes))


def comparable_groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Split cells of one workload into groups whose members may be compared with one another."""
    groups: list[list[Cell]] = []
    for cell in cells:
        for group in groups:
            if all(why_not_comparable(cell, other) is None for other in group):
                group.append(cell)
                break
        else:
            groups.append([cell])
    return groups


def same_outputs(cell: Cell, other: Cell) -> bool | None:
    """Whether both cells generated the same; None where that was not recorded."""
    mine, theirs = _by_prompt(cell.measured), _by_prompt(other.measured)
    for prompt in mine.keys() & theirs.keys():
        # Token ids where both have them: equal texts may be different tokens.
        for field in ("output_ids_sha256", "output_sha256"):
            here = {getattr(trial.record, field) for trial in mine[prompt]}
            there = {getattr(trial.record, field) for trial in theirs[prompt]}
            if None not in here | there:
                break
        else:
            return None
        if len(here | there) > 1:
            return False
    return True if mine.keys() & theirs.keys() else None


def _starts(cell: Cell, other: Cell) -> str | None:
    if cell.cold == other.cold:
        return None
    return "cold starts against warm" if cell.cold else "warm starts against cold"


def _prompts(cell: Cell, other: Cell) -> str | None:
    mine, theirs = _by_prompt(cell.measured), _by_prompt(other.measured)
    if mine.keys() != theirs.keys():
        return f"prompts {_listed(mine)} against {_listed(theirs)}"
    for prompt in sorted(mine):
        both = [trial.record for trial in (*mine[prompt], *theirs[prompt])]
        first, *others = both
        ids = {record.prompt_ids_sha256 for record in both}
        if None not in ids and len(ids) == 1:
            continue
        if len({record.prompt_sha256 for record in both}) > 1:
            return _at(cell, prompt, "different prompts")
        difference = next(filter(None, (tokenized(first, other) for other in others)), None)
        if difference is not None:
            return _at(cell, prompt, f"prompt tokenized differently ({difference})")
        if any(record.prompt_tokens is None for record in both):
            return _at(cell, prompt, "the number of prompt tokens is unknown")
    return None


def _outputs_asked(cell: Cell, other: Cell) -> str | None:
    mine, theirs = _by_prompt(cell.measured), _by_prompt(other.measured)
    for prompt in sorted(mine):
        here = {trial.record.output_tokens for trial in mine[prompt]}
        there = {trial.record.output_tokens for trial in theirs[prompt]}
        if None in here | there:
            return _at(cell, prompt, "the number of generated tokens is unknown")
        if len(here | there) > 1:
            return _at(cell, prompt, f"generated {_span(here)} tokens against {_span(there)}")
    return None


def _at(cell: Cell, prompt: int, text: str) -> str:
    return text if len(cell.prompts) < 2 else f"prompt {prompt}: {text}"


def _by_prompt(trials: Iterable[Trial]) -> dict[int, list[Trial]]:
    found: dict[int, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.record.prompt_index, []).append(trial)
    return found


def _all(cells: Sequence[Cell], field: str) -> set[str | None]:
    return {getattr(trial.record, field) for cell in cells for trial in cell.measured}


def _listed(prompts: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(prompts)))


def _span(counts: Iterable[int | None]) -> str:
    known = sorted(count for count in counts if count is not None)
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"
