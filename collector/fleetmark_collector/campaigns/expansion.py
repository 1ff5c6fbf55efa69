"""Expands a campaign's matrix into cells: every combination, less `exclude`, plus `include`.

The rules of `exclude` and `include` are those of GitHub Actions' matrix; docs/campaigns.md says
where ours differ. A combination here is one workload of a cell, so that both can name workloads.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fleetmark_collector.campaigns.cells import Cell
from fleetmark_collector.campaigns.matrix import BackendEntry, CellEntry, Matrix
from fleetmark_collector.campaigns.yaml_source import Loc, Problem
from fleetmark_protocol.messages import ModelSpec
from fleetmark_protocol.settings import suggestion
from fleetmark_protocol.values import Scalar
from fleetmark_protocol.workloads import Workload

OPTION = "options."
"""Before an option's name in the keys of a combination."""
AXES = ("backend", "model", "quantization", "workload")
Groups = Mapping[str, Sequence[str]]
"""Name of an entry of `workloads` -> names of the workloads that it makes."""


@dataclass
class _Combination:
    """One workload of a cell while the matrix is being made.

    Attributes:
        values: key -> value; a key that is not there may be added by an include.
        own: keys that no include may overwrite.
        loc: of the last entry of the file that had a say.
    """

    values: dict[str, Scalar]
    own: frozenset[str]
    loc: Loc

    @property
    def cell(self) -> tuple[object, ...]:
        """What makes the cell, whatever it is asked."""
        options = sorted(
            (key, type(value).__name__, value)
            for key, value in self.values.items()
            if key.startswith(OPTION)
        )
        axes = (self.values.get(key) for key in ("backend", "model", "quantization"))
        return (*axes, *options)


@dataclass
class Expansion:
    """The cells of a matrix, in the order of the file, and what is wrong with it."""

    cells: list[Cell] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def expand(matrix: Matrix, workloads: Sequence[Workload], groups: Groups) -> Expansion:
    """Return the cells; with problems, the cells are of no use.

    Names of models and workloads must have been looked at before. A name in `groups` stands for all
    the workloads it makes.
    """
    out = Expansion()
    combinations = list(_product(matrix, workloads, groups, out.problems))
    for index, entry in enumerate(matrix.exclude):
        out.problems += _unknown(entry, combinations, groups, ("matrix", "exclude", index))
    if out.problems:
        return out
    kept = _excluded([list(_objects(one, groups)) for one in matrix.exclude], combinations, out)
    included = [list(_objects(one, groups)) for one in matrix.include]
    kept += _included(included, kept, workloads, out.problems)
    if not out.problems and not kept:
        out.problems.append(Problem(("matrix", "exclude"), "excludes every cell: none is left"))
    if not out.problems:
        _gather(matrix, workloads, kept, out)
    return out


# --- every combination -------------------------------------------------------------------------


def _product(
    matrix: Matrix, workloads: Sequence[Workload], groups: Groups, problems: list[Problem]
) -> Iterator[_Combination]:
    """Combine what each backend has; two entries of one backend must not make the same cell."""
    seen: dict[tuple[object, ...], int] = {}
    for index, entry in enumerate(matrix.backend):
        loc: Loc = ("matrix", "backend", index)
        mine = [_Combination(values, frozenset(values), loc) for values in _values(matrix, entry)]
        first = min((seen[one.cell] for one in mine if one.cell in seen), default=None)
        if first is not None:
            text = (
                f"makes cells that matrix.backend[{first}] makes as well: give one of them other "
                "options, models or quantizations"
            )
            problems.append(Problem(loc, text))
        seen |= {one.cell: index for one in mine}
        named = {one for name in entry.workload for one in groups.get(name, (name,))}
        asked = [one.name for one in workloads if not named or one.name in named]
        for one in mine:
            for name in asked:
                values = {**one.values, "workload": name}
                yield _Combination(values, frozenset(values), loc)


def _values(matrix: Matrix, entry: BackendEntry) -> Iterator[dict[str, Scalar]]:
    own = entry.options.model_dump(exclude_unset=True)
    options = {**matrix.options.model_dump(exclude_unset=True), **own}
    axes: dict[str, Iterable[Scalar]] = {
        "backend": (entry.name,),
        "model": [m.name for m in matrix.model if not entry.model or m.name in entry.model],
    }
    quantizations = entry.quantization or matrix.quantization
    if quantizations:
        axes["quantization"] = quantizations
    axes |= {f"{OPTION}{name}": values for name, values in options.items()}
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


# --- less what is excluded ---------------------------------------------------------------------


def _objects(entry: CellEntry, groups: Groups) -> Iterator[dict[str, Scalar]]:
    """Yield what an entry says, one value a key; a list stands for as many entries."""
    given: dict[str, Sequence[Scalar]] = {
        key: getattr(entry, key) for key in AXES if key in entry.model_fields_set
    }
    if "workload" in given:
        named = (one for name in entry.workload for one in groups.get(name, (name,)))
        given["workload"] = tuple(dict.fromkeys(named))
    options = entry.options.model_dump(exclude_unset=True)
    given |= {f"{OPTION}{name}": values for name, values in options.items()}
    for values in itertools.product(*given.values()):
        yield dict(zip(given, values, strict=True))


def _has(combination: Mapping[str, Scalar], wanted: Mapping[str, Scalar]) -> bool:
    return all(key in combination and combination[key] == wanted[key] for key in wanted)


def _unknown(
    entry: CellEntry, combinations: Sequence[_Combination], groups: Groups, loc: Loc
) -> Iterator[Problem]:
    """Find values of an exclude that no combination has: a typing mistake, most likely."""
    told: set[tuple[str, Scalar]] = set()
    for wanted in _objects(entry, {}):
        for key, value in wanted.items():
            known = {one.values[key] for one in combinations if key in one.values}
            if key == "workload":
                known |= {name for name, made in groups.items() if not known.isdisjoint(made)}
            if value in known or (key, value) in told:
                continue
            told.add((key, value))
            at: Loc = (*loc, *key.split("."))
            if key.startswith(OPTION) and not known:
                yield Problem(at, f"no cell has the option {key.removeprefix(OPTION)!r}")
                continue
            position = _values_of(entry, key).index(value)
            what = key.removeprefix(OPTION)
            hint = suggestion(_text(value), sorted(map(_text, known)))
            yield Problem((*at, position), f"no cell has the {what} {_text(value)!r}{hint}")


def _values_of(entry: CellEntry, key: str) -> Sequence[Scalar]:
    if key.startswith(OPTION):
        return tuple(getattr(entry.options, key.removeprefix(OPTION)))
    return tuple(getattr(entry, key))


def _text(value: Scalar) -> str:
    return "null" if value is None else str(value)


def _excluded(
    entries: Sequence[Sequence[Mapping[str, Scalar]]],
    combinations: list[_Combination],
    out: Expansion,
) -> list[_Combination]:
    """Return what no entry excludes."""
    kept = combinations
    for index, objects in enumerate(entries):
        # Against all, not against what is left: two excludes may overlap.
        if not any(_has(one.values, wanted) for one in combinations for wanted in objects):
            text = "excludes nothing: no cell has all of this"
            out.problems.append(Problem(("matrix", "exclude", index), text))
        kept = [one for one in kept if not any(_has(one.values, wanted) for wanted in objects)]
    return kept


# --- plus what is included ---------------------------------------------------------------------


def _included(
    entries: Sequence[Sequence[Mapping[str, Scalar]]],
    combinations: Sequence[_Combination],
    workloads: Sequence[Workload],
    problems: list[Problem],
) -> list[_Combination]:
    """Add to combinations what the entries say; return the combinations they make anew."""
    made: list[_Combination] = []
    for index, objects in enumerate(entries):
        loc: Loc = ("matrix", "include", index)
        for wanted in objects:
            fitting = [
                one
                for one in combinations
                if all(one.values[key] == wanted[key] for key in wanted if key in one.own)
            ]
            changed = [one for one in fitting if not _has(one.values, wanted)]
            for one in changed:
                one.values |= wanted
                one.loc = loc
            if fitting and not changed:
                text = "makes nothing new: the matrix has this cell already"
                problems.append(Problem(loc, text))
            elif not fitting:
                made += _new(wanted, workloads, loc, problems)
    return made


def _new(
    wanted: Mapping[str, Scalar],
    workloads: Sequence[Workload],
    loc: Loc,
    problems: list[Problem],
) -> Iterator[_Combination]:
    missing = [key for key in ("backend", "model") if key not in wanted]
    if missing:
        text = f"fits no cell of the matrix, and a new cell needs {' and '.join(missing)} as well"
        problems.append(Problem(loc, text))
        return
    asked = (wanted["workload"],) if "workload" in wanted else (one.name for one in workloads)
    for name in asked:
        values = {**wanted, "workload": name}
        yield _Combination(values, frozenset(values), loc)


# --- cells -------------------------------------------------------------------------------------


def _gather(
    matrix: Matrix,
    workloads: Sequence[Workload],
    combinations: Sequence[_Combination],
    out: Expansion,
) -> None:
    """Put the workloads of each cell together again."""
    grouped: dict[tuple[object, ...], dict[Scalar, _Combination]] = {}
    for one in combinations:
        mine = grouped.setdefault(one.cell, {})
        other = mine.setdefault(one.values["workload"], one)
        if other is not one:
            loc = max(one.loc, other.loc, key=lambda loc: loc[1] == "include")
            problem = Problem(loc, f"makes a cell twice: {_described(one)}")
            if problem not in out.problems:
                out.problems.append(problem)
    for mine in grouped.values():
        first = next(iter(mine.values()))
        spec = _spec(matrix, first, out.problems)
        if spec is not None:
            labels = {
                key.removeprefix(OPTION): value
                for key, value in first.values.items()
                if key.startswith(OPTION)
            }
            asked = tuple(one for one in workloads if one.name in mine)
            out.cells.append(Cell(str(first.values["backend"]), spec, labels, asked))


def _spec(matrix: Matrix, combination: _Combination, problems: list[Problem]) -> ModelSpec | None:
    """Return the model that a job asks for; a problem where no file gives it."""
    name, quantization = combination.values["model"], combination.values.get("quantization")
    index, model = next((at, model) for at, model in enumerate(matrix.model) if model.name == name)
    spec = model.spec(None if quantization is None else str(quantization))
    if spec is not None:
        return spec
    have = ", ".join(model.files)
    text = (
        f"{name} has files for {have} only, and no `ref` to derive from"
        if quantization
        else f"{name} has no `ref`: say which of its `files` to use with matrix.quantization "
        f"(known: {have})"
    )
    included = combination.loc[1] == "include"
    problem = Problem(combination.loc if included else ("matrix", "model", index), text)
    if problem not in problems:
        problems.append(problem)
    return None


def _described(combination: _Combination) -> str:
    values = {key.removeprefix(OPTION): _text(v) for key, v in combination.values.items()}
    axes = [values.pop(key) for key in AXES if key in values]
    return " ".join([*axes, *(f"{name}={value}" for name, value in values.items())])
