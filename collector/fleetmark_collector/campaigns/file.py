"""Reads a campaign file and tells everything that is wrong with it at once, with its place."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fleetmark_collector.campaigns.matrix import QUANTIZATION_PATTERN, ModelEntry
from fleetmark_collector.campaigns.schema import MAX_NAME_CHARACTERS, CampaignFile, Targets
from fleetmark_collector.campaigns.yaml_source import Loc, Problem, Source, path_text, read_yaml
from fleetmark_protocol.ids import NAME_PATTERN, SHA256_PATTERN
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES, QuietGate, Timeouts, Workload
from fleetmark_protocol.records import Scalar
from fleetmark_protocol.settings import suggestion

SPEC_BYTES = 16_000
"""Room that a job needs in its message beside the prompts, generously."""

_IN_WORDS = {
    NAME_PATTERN: "lower-case letters, digits, - and _, at most 63, a letter or digit first",
    SHA256_PATTERN: "64 hexadecimal digits in lower case",
    QUANTIZATION_PATTERN: "the name of a quantization in capitals, such as Q4_0 or Q4_K_M",
}


@dataclass(frozen=True)
class Choice:
    """One entry of `matrix.backend`, with what the matrix gives to all filled in."""

    backend: str
    models: tuple[ModelEntry, ...]
    quantizations: tuple[str | None, ...]
    """None stands for the model file as it is."""
    options: Mapping[str, tuple[Scalar, ...]]
    """Only options that the file gives."""
    workloads: tuple[Workload, ...]


@dataclass(frozen=True)
class Campaign:
    """What a campaign file says, checked and with its prompts read."""

    name: str
    description: str
    targets: Targets
    choices: tuple[Choice, ...]
    timeouts: Timeouts
    campaign_s: float
    quiet_gate: QuietGate
    order: Literal["shuffled", "listed"]
    seed: int
    unavailable: Literal["reject", "skip"]
    resume: bool
    file: Path
    text: str


def load_campaign(file: Path) -> Campaign:
    """Return the campaign.

    Raises:
        ConfigError: all mistakes, a line each: FILE:LINE:COLUMN: path: what is wrong.
    """
    source = read_yaml(file)
    try:
        shape = CampaignFile.model_validate_json(
            # As JSON: lists may stand for tuples there while everything else stays strict.
            json.dumps(source.data),
            context={"dir": file.parent},
        )
    except ValidationError as error:
        problems = [
            _problem(source, one) for one in error.errors(include_url=False, include_context=True)
        ]
        told = {one.loc for one in source.problems}
        problems = [one for one in problems if one.loc not in told]
        raise source.error([*source.problems, *problems]) from error
    workloads = tuple(entry.to_wire(file.parent) for entry in shape.workloads)
    choices = tuple(_choices(shape, workloads))
    problems = [*source.problems, *_across(source, shape, choices)]
    if problems:
        raise source.error(problems)
    return _campaign(shape, choices, source)


def campaign_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a campaign file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **CampaignFile.model_json_schema(),
    }


def _campaign(shape: CampaignFile, choices: tuple[Choice, ...], source: Source) -> Campaign:
    timeouts = shape.timeouts.model_dump()
    return Campaign(
        name=shape.name,
        description=shape.description,
        targets=shape.targets,
        choices=choices,
        campaign_s=timeouts.pop("campaign_s"),
        timeouts=Timeouts(**timeouts),
        quiet_gate=QuietGate(**shape.quiet_gate.model_dump()),
        order=shape.order,
        seed=shape.seed,
        unavailable=shape.unavailable,
        resume=shape.resume,
        file=source.file,
        text=source.text,
    )


def _choices(shape: CampaignFile, workloads: tuple[Workload, ...]) -> Iterator[Choice]:
    matrix = shape.matrix
    for entry in matrix.backend:
        own = entry.options.model_dump(exclude_unset=True)
        yield Choice(
            backend=entry.name,
            models=tuple(m for m in matrix.model if not entry.model or m.name in entry.model),
            quantizations=entry.quantization or matrix.quantization or (None,),
            options={**matrix.options.model_dump(exclude_unset=True), **own},
            workloads=tuple(w for w in workloads if not entry.workload or w.name in entry.workload),
        )


def _across(source: Source, shape: CampaignFile, choices: tuple[Choice, ...]) -> Iterator[Problem]:
    """Find what is wrong between keys that are each right."""
    yield from _unknown_names(source, shape)
    yield from _no_file(source, shape, choices)
    yield from _twice(source, choices)
    size = max(
        (sum(len(p.encode()) for w in choice.workloads for p in w.prompts) for choice in choices),
        default=0,
    )
    if size + SPEC_BYTES > MAX_PAYLOAD_BYTES:
        yield Problem(
            ("workloads",),
            f"{size} bytes of prompts; a job with all its prompts must fit in a message of "
            f"{MAX_PAYLOAD_BYTES} bytes (split the campaign)",
        )


def _unknown_names(source: Source, shape: CampaignFile) -> Iterator[Problem]:
    there = {
        "model": [model.name for model in shape.matrix.model],
        "workload": [workload.name for workload in shape.workloads],
    }
    for index, entry in enumerate(shape.matrix.backend):
        for key, known in there.items():
            for position, name in enumerate(getattr(entry, key)):
                if name not in known:
                    loc = ("matrix", "backend", index, key, position)
                    yield Problem(
                        source.place(loc),
                        f"no {key} {name!r} in this file{suggestion(name, known)}",
                    )


def _no_file(source: Source, shape: CampaignFile, choices: tuple[Choice, ...]) -> Iterator[Problem]:
    wanted = {
        (model.name, quantization)
        for choice in choices
        for model in choice.models
        for quantization in choice.quantizations
    }
    for index, model in enumerate(shape.matrix.model):
        for quantization in dict.fromkeys(q for choice in choices for q in choice.quantizations):
            if (model.name, quantization) in wanted and model.spec(quantization) is None:
                have = ", ".join(model.files)
                yield Problem(
                    source.place(("matrix", "model", index)),
                    f"{model.name} has files for {have} only, and no `ref` to derive from"
                    if quantization
                    else f"{model.name} has no `ref`: say which of its `files` to use with "
                    f"matrix.quantization (known: {have})",
                )


def _twice(source: Source, choices: tuple[Choice, ...]) -> Iterator[Problem]:
    """Find entries of one engine that make the same cell: it would be measured as two."""
    seen: dict[tuple[object, ...], int] = {}
    for index, choice in enumerate(choices):
        mine = {
            (choice.backend, model.name, quantization, _options(choice, values))
            for model in choice.models
            for quantization in choice.quantizations
            for values in itertools.product(*choice.options.values())
        }
        first = min((seen[cell] for cell in mine if cell in seen), default=None)
        if first is not None:
            yield Problem(
                source.place(("matrix", "backend", index)),
                f"makes cells that matrix.backend[{first}] makes as well: give one of them other "
                "options, models or quantizations",
            )
        seen |= dict.fromkeys(mine, index)


def _options(choice: Choice, values: tuple[Scalar, ...]) -> tuple[tuple[str, Scalar], ...]:
    return tuple(sorted(zip(choice.options, values, strict=True)))


def _problem(source: Source, detail: ErrorDetails) -> Problem:
    """Say in the file's own terms what pydantic found."""
    kind, text = detail["type"], detail["msg"].removeprefix("Value error, ")
    loc: Loc = tuple(detail["loc"])
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem(source.place(loc), f"unknown key{_did_you_mean(loc)}", at_key=True)
    if kind == "missing":
        return Problem((*source.place(loc[:-1]), loc[-1]), "missing")
    if kind == "campaign":
        loc = source.place(loc)
        return Problem((*loc, context["key"]) if context["key"] else loc, text)
    if loc and loc[-1] == "[key]":
        loc = loc[:-1]
    loc = source.place(loc)
    if kind == "string_pattern_mismatch":
        text = f"should be {_IN_WORDS.get(context['pattern'], context['pattern'])}"
    elif kind == "string_too_long" and loc == ("name",):
        text = f"at most {MAX_NAME_CHARACTERS} characters, as the time is added to make the id"
    elif kind == "string_type" and isinstance(detail["input"], int | float):
        text += " (put it in quotes)"
    if kind != "value_error" and not isinstance(detail["input"], dict | list | tuple):
        text += f" (got {_shown(detail['input'])})"
    return Problem(loc, text)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _did_you_mean(loc: Loc) -> str:
    """Return a hint: the key's right place if it has one elsewhere, else the nearest key here."""
    word = str(loc[-1])
    keys = _all_keys()
    places = {tuple(step for step in place if step != "*") for place in keys if place[-1] == word}
    # What an engine may have of its own is first of all a key of the whole matrix.
    fewest = min(map(len, places), default=0)
    parents = {path_text(place[:-1]) for place in places if len(place) == fewest}
    if 0 < len(parents) <= 2:
        named = " or ".join(f"under `{one}`" if one else "at the top" for one in sorted(parents))
        return f" (it belongs {named})"
    here = {str(one[-1]) for one in keys if len(one) == len(loc) and _same(one[:-1], loc)}
    return suggestion(word, sorted(here))


def _same(pattern: Loc, loc: Loc) -> bool:
    return all(step in (other, "*") for step, other in zip(pattern, loc[:-1], strict=True))


def _all_keys() -> list[Loc]:
    """Return the path of every key there is; `*` stands for a position or a name of one's own."""
    schema = CampaignFile.model_json_schema()
    found: list[Loc] = []

    def walk(node: Any, path: Loc) -> None:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        for key, value in node.get("properties", {}).items():
            if (*path, key) not in found:
                found.append((*path, key))
            walk(value, (*path, key))
        for option in node.get("anyOf", ()):
            walk(option, path)
        if "items" in node:
            walk(node["items"], (*path, "*"))
        if isinstance(node.get("additionalProperties"), dict):
            walk(node["additionalProperties"], (*path, "*"))
        for value in node.get("patternProperties", {}).values():
            walk(value, (*path, "*"))

    walk(schema, ())
    return found
