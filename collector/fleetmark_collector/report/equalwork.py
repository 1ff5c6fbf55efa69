"""Sets the engines of a campaign against one another: who did the same work on the same weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.compare import weights_differ
from fleetmark_collector.report.jobs import Config
from fleetmark_collector.report.labels import short_labels
from fleetmark_collector.report.sameness import (
    Answers,
    Prompt,
    Sameness,
    Verdict,
    Work,
    compare_work,
    repeats_itself,
)
from fleetmark_protocol.messages import Options
from fleetmark_protocol.records import TrialRecord

ENGINE_OPTIONS = frozenset({"start", "inner_backend", "dtype", "load_quantization"})
"""Options that make another engine of the same backend."""


@dataclass(frozen=True)
class Engine:
    """One engine as a campaign ran it on one device.

    Attributes:
        name: what tells it from the others of its group.
        repeats: whether each repetition gave the same; None where nothing was repeated or its
            sampling is random.
    """

    name: str
    config: Config
    repeats: bool | None


@dataclass(frozen=True)
class EnginePair:
    """Two engines of a group, by their positions in it, and what they made of the same prompts.

    Attributes:
        form: how the weights differ in form though they are of one origin; None where both read
            the same file.
    """

    first: int
    second: int
    work: Work
    form: str | None


@dataclass(frozen=True)
class EqualWork:
    """The engines that ran one model on one device, each pair compared.

    Attributes:
        quantization: of the weights; engines that alone have another one are among these too.
        common: what the engines have in common.
    """

    fleet: str
    device: str
    model: str
    quantization: str
    common: tuple[str, ...]
    engines: tuple[Engine, ...]
    pairs: tuple[EnginePair, ...]

    def between(self, one: int, other: int) -> EnginePair | None:
        """Return the pair of two positions; None for an engine and itself."""
        wanted = (min(one, other), max(one, other))
        return next((pair for pair in self.pairs if (pair.first, pair.second) == wanted), None)


def equal_work(cells: Sequence[Cell]) -> list[EqualWork]:
    """Return the engines of each device, model and quantization, compared pair by pair."""
    by_config: dict[Config, list[Cell]] = {}
    for cell in cells:
        if cell.measured:
            by_config.setdefault(cell.config, []).append(cell)
    return [
        _compared(name, {config: by_config[config] for config in configs})
        for name, configs in _groups(list(by_config))
    ]


def _groups(all_configs: Sequence[Config]) -> Iterator[tuple[str, list[Config]]]:
    """Yield quantizations with the configurations to be compared, two engines at least."""
    models: dict[tuple[str, str, str], list[Config]] = {}
    for config in all_configs:
        models.setdefault((config.fleet, config.device, config.model), []).append(config)
    for configs in models.values():
        by_form: dict[tuple[object, ...], list[Config]] = {}
        for config in configs:
            by_form.setdefault((config.quantization, *_setting(config, configs)), []).append(config)
        main = max(by_form.values(), key=lambda group: len(_engines(group)))
        for group in by_form.values():
            # An engine that has the weights in a form of its own is set against the others, too.
            absent = [one for one in configs if _engine(one) not in _engines(main)]
            members = [*group, *absent] if group is main else group
            if len(_engines(members)) > 1:
                yield group[0].quantization or "?", sorted(members, key=plainness)


def plainness(config: Config) -> tuple[bool, bool]:
    """Order by how plainly an engine runs: what others are set against comes first."""
    options = dict(config.options)
    return (options.get("inner_backend") is not None, options.get("start") == "cold")


def _setting(config: Config, configs: Sequence[Config]) -> tuple[object, ...]:
    """Return the options that all have and that do not make an engine (threads, context_tokens)."""
    everywhere = set.intersection(*({name for name, _ in one.options} for one in configs))
    return tuple(
        item for item in config.options if item[0] in everywhere and item[0] not in ENGINE_OPTIONS
    )


def _engine(config: Config) -> tuple[object, ...]:
    return (config.backend, *(item for item in config.options if item[0] in ENGINE_OPTIONS))


def _engines(configs: Sequence[Config]) -> set[tuple[object, ...]]:
    return {_engine(config) for config in configs}


def _compared(quantization: str, members: Mapping[Config, Sequence[Cell]]) -> EqualWork:
    configs = list(members)
    shorts, common = short_labels(configs)
    answers = [_answers(members[config]) for config in configs]
    return EqualWork(
        fleet=configs[0].fleet,
        device=configs[0].device,
        model=configs[0].model,
        quantization=quantization,
        common=common,
        engines=tuple(
            Engine(shorts[config], config, repeats_itself(mine) if _greedy(config) else None)
            for config, mine in zip(configs, answers, strict=True)
        ),
        pairs=tuple(
            _pair(members, answers, first, second)
            for first in range(len(configs))
            for second in range(first + 1, len(configs))
        ),
    )


def _pair(
    members: Mapping[Config, Sequence[Cell]], answers: Sequence[Answers], first: int, second: int
) -> EnginePair:
    configs = list(members)
    one, other = configs[first], configs[second]
    why = weights_differ(members[one], members[other])
    if why is None and not (_greedy(one) and _greedy(other)):
        why = "not greedy (temperature above 0)"
    if why is not None:
        return EnginePair(first, second, Work(Verdict(Sameness.NOT_COMPARABLE, why), 0, 0), None)
    work = compare_work(answers[first], answers[second])
    return EnginePair(first, second, work, _form(one, other, answers[first], answers[second]))


def _form(one: Config, other: Config, mine: Answers, theirs: Answers) -> str | None:
    files = [
        {trial.model_sha256 for trials in side.values() for trial in trials}
        for side in (mine, theirs)
    ]
    if files[0] == files[1]:
        return None
    if one.quantization == other.quantization:
        return "two files of the same weights"
    return f"weights differ in form: {one.quantization or '?'} and {other.quantization or '?'}"


def _answers(cells: Sequence[Cell]) -> Answers:
    found: dict[Prompt, list[TrialRecord]] = {}
    for cell in cells:
        for trial in cell.measured:
            record = trial.record
            found.setdefault((record.workload, record.prompt_index), []).append(record)
    return found


def _greedy(config: Config) -> bool:
    return dict(config.options).get("temperature", Options().temperature) == 0
