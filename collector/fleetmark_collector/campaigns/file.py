"""Reads a campaign file and tells everything that is wrong with it at once, with its place."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fleetmark_collector.campaigns.bounds import MAX_S
from fleetmark_collector.campaigns.cells import Cell
from fleetmark_collector.campaigns.consistency import inconsistencies
from fleetmark_collector.campaigns.expansion import expand
from fleetmark_collector.campaigns.matrix import QUANTIZATION_PATTERN
from fleetmark_collector.campaigns.policy import Policy
from fleetmark_collector.campaigns.schedule_keys import ScheduleKeys
from fleetmark_collector.campaigns.schema import (
    MAX_NAME_CHARACTERS,
    CampaignFile,
    Cost,
    Limits,
    OrderName,
)
from fleetmark_collector.campaigns.selection import Targets
from fleetmark_collector.campaigns.workloads import name_clashes
from fleetmark_collector.campaigns.yaml_source import Loc, Problem, Source, path_text, read_yaml
from fleetmark_protocol.ids import NAME_PATTERN, SHA256_PATTERN
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES, CoolDown, QuietGate, Resume, Timeouts
from fleetmark_protocol.settings import suggestion

SPEC_BYTES = 16_000
"""Room that a job needs in its message beside the prompts, generously."""

_IN_WORDS = {
    NAME_PATTERN: "lower-case letters, digits, - and _, at most 63, a letter or digit first",
    SHA256_PATTERN: "64 hexadecimal digits in lower case",
    QUANTIZATION_PATTERN: "the name of a quantization in capitals, such as Q4_0 or Q4_K_M",
}


@dataclass(frozen=True)
class Campaign:
    """What a campaign file says, checked and with its prompts read."""

    name: str
    description: str
    targets: Targets
    cells: tuple[Cell, ...]
    """The combinations of the matrix in the order that the file lists them."""
    timeouts: Timeouts
    campaign_s: float
    quiet_gate: QuietGate
    order: OrderName
    blocks: int
    cool_down: CoolDown | None
    seed: int
    unavailable: Literal["reject", "skip"]
    resume: Resume
    limits: Limits
    cost: Cost | None
    file: Path
    text: str
    source: Source = field(repr=False, compare=False)
    """Knows where each piece of the file stands."""
    policy: Policy = field(default_factory=Policy)
    """How it is carried out."""
    schedule: ScheduleKeys | None = None
    """When it runs again and again, once it is registered."""


def load_campaign(file: Path) -> Campaign:
    """Return the campaign.

    Raises:
        ConfigError: all mistakes, a line each: FILE:LINE:COLUMN: path: what is wrong.
    """
    return checked(read_yaml(file))


def checked(source: Source, *, kept: bool = False) -> Campaign:
    """Return the campaign of a file's data.

    Args:
        source: the data.
        kept: see `bounds.written_now`.

    Raises:
        ConfigError: all mistakes, as `load_campaign` tells them.
    """
    directory = source.file.parent
    try:
        shape = CampaignFile.model_validate_json(
            # As JSON: lists may stand for tuples there while everything else stays strict.
            json.dumps(source.data),
            context={"dir": directory, "kept": kept},
        )
    except ValidationError as error:
        problems = [
            _problem(source, one) for one in error.errors(include_url=False, include_context=True)
        ]
        told = {one.loc for one in source.problems}
        problems = [one for one in problems if one.loc not in told]
        raise source.error([*source.problems, *problems]) from error
    problems = [*source.problems, *_across(source, shape)]
    made = None
    if not problems:
        entries = shape.workloads
        workloads = [one for entry in entries for one in entry.to_wire(directory)]
        made = expand(shape.matrix, workloads, {one.name: one.names() for one in entries})
        more = [*made.problems, *inconsistencies(entries, made.cells, kept=kept)]
        problems += [replace(one, loc=source.place(one.loc)) for one in more]
        problems += _too_large(made.cells)
    if made is None or problems:
        raise source.error(problems)
    return _campaign(shape, tuple(made.cells), source)


def campaign_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a campaign file, for editors."""
    schema = CampaignFile.model_json_schema()
    _close(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _close(node: Any) -> None:
    """Have names that fit no pattern refused: to a schema they are just other names."""
    if isinstance(node, dict):
        if "patternProperties" in node:
            node["additionalProperties"] = False
        for value in node.values():
            _close(value)
    elif isinstance(node, list):
        for value in node:
            _close(value)


def _campaign(shape: CampaignFile, cells: tuple[Cell, ...], source: Source) -> Campaign:
    timeouts, cool_down = shape.timeouts.model_dump(), shape.cool_down
    return Campaign(
        name=shape.name,
        description=shape.description,
        targets=shape.targets,
        cells=cells,
        campaign_s=timeouts.pop("campaign_s"),
        timeouts=Timeouts(**timeouts),
        quiet_gate=QuietGate(**shape.quiet_gate.model_dump()),
        order=shape.order,
        blocks=shape.blocks,
        cool_down=None if cool_down is None else CoolDown(**cool_down.model_dump()),
        seed=shape.seed,
        unavailable=shape.unavailable,
        resume=shape.resume,
        limits=shape.limits,
        cost=shape.cost,
        source=source,
        file=source.file,
        text=source.text,
        policy=Policy(
            retries=shape.retries,
            rollout=shape.rollout,
            abort=shape.abort,
            windows=shape.windows,
        ),
        schedule=shape.schedule,
    )


def _across(source: Source, shape: CampaignFile) -> Iterator[Problem]:
    """Find what is wrong between keys that are each right."""
    named = [name for entry in shape.workloads for name in (entry.name, *entry.names())]
    there = {
        "model": [model.name for model in shape.matrix.model],
        "workload": list(dict.fromkeys(named)),
    }
    entries: list[tuple[Loc, object]] = [
        *((("matrix", "backend", at), one) for at, one in enumerate(shape.matrix.backend)),
        *((("matrix", "include", at), one) for at, one in enumerate(shape.matrix.include)),
    ]
    for loc, entry in entries:
        for key, known in there.items():
            for position, name in enumerate(getattr(entry, key)):
                if name not in known:
                    yield Problem(
                        source.place((*loc, key, position)),
                        f"no {key} {name!r} in this file{suggestion(name, known)}",
                    )
    for problem in name_clashes(shape.workloads):
        yield replace(problem, loc=source.place(problem.loc))
    if "blocks" in shape.model_fields_set and shape.order != "interleaved":
        text = f"only with `order: interleaved`, and the order here is {shape.order}"
        yield Problem(("blocks",), text)
    if shape.limits.cost_usd is not None and shape.cost is None:
        yield Problem(
            ("limits", "cost_usd"), "nothing to compare with: give prices in cost.usd_per_hour"
        )


def _too_large(cells: Sequence[Cell]) -> Iterator[Problem]:
    size = max(
        (sum(len(p.encode()) for w in cell.workloads for p in w.prompts) for cell in cells),
        default=0,
    )
    if size + SPEC_BYTES > MAX_PAYLOAD_BYTES:
        yield Problem(
            ("workloads",),
            f"{size} bytes of prompts; a job with all its prompts must fit in a message of "
            f"{MAX_PAYLOAD_BYTES} bytes (split the campaign)",
        )


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
    if kind == "within":
        loc = source.place(loc)
        return Problem(loc, text, position=source.inside(loc, context["offset"]))
    if loc and loc[-1] == "[key]":
        loc = loc[:-1]
    loc = source.place(loc)
    if kind == "string_pattern_mismatch":
        text = f"should be {_IN_WORDS.get(context['pattern'], context['pattern'])}"
    elif kind == "string_too_long" and loc == ("name",):
        text = f"at most {MAX_NAME_CHARACTERS} characters, as the time is added to make the id"
    elif kind == "less_than_equal" and context["le"] == MAX_S:
        text = f"at most {MAX_S:.0f} seconds, which is ten years"
    elif kind == "string_type" and isinstance(detail["input"], int | float):
        text += " (put it in quotes)"
    if kind != "value_error" and not isinstance(detail["input"], dict | list | tuple):
        text += f" (got {_shown(detail['input'])})"
    if kind == "literal_error":
        text += _nearest(str(detail["input"]), context["expected"])
    return Problem(loc, text)


def _nearest(word: str, expected: str) -> str:
    """Return a hint where one of the values that pydantic lists in quotes is close."""
    hint = suggestion(word, re.findall(r"'([^']*)'", expected))
    return hint if "did you mean" in hint else ""


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
