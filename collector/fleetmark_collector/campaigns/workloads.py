"""The workloads of a campaign file: which keys each kind takes, and what it makes on the wire."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from fleetmark_collector.campaigns.prompts import read_prompts
from fleetmark_collector.campaigns.repetitions import (
    DEFAULT_REPETITIONS,
    RepetitionsValue,
    on_the_wire,
)
from fleetmark_collector.campaigns.shapes import OneOrMany, Part, at_key
from fleetmark_collector.campaigns.words import MAX_PROMPT_TOKENS, prompt_of
from fleetmark_collector.campaigns.yaml_source import Problem
from fleetmark_protocol.codec import describe
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.ids import Name
from fleetmark_protocol.records import WorkloadKind
from fleetmark_protocol.workloads import Clients, SoakSeconds, Workload

MAX_NAME_CHARACTERS = 63
SOAK_REPETITIONS = 1

PROMPT_KEYS = ("prompt", "prompts", "prompts_file")
TAKES: Mapping[WorkloadKind, tuple[str, ...]] = {
    "single": ("prompt",),
    "multi": ("prompts", "prompts_file"),
    "context_sweep": ("prompt_tokens",),
    "concurrency": ("clients", *PROMPT_KEYS),
    "soak": ("duration_s", *PROMPT_KEYS),
    "coldstart": ("page_cache", "prompt"),
}
"""Keys of a kind beside those that all take."""
NEEDS = {"context_sweep": "prompt_tokens", "concurrency": "clients", "soak": "duration_s"}
"""What a kind cannot do without beside its prompts."""
OWN_KEYS = tuple(dict.fromkeys(key for keys in TAKES.values() for key in keys))


def _rules() -> dict[str, Any]:
    """Return what each kind takes and needs as JSON Schema, for editors."""
    rules = []
    for kind, takes in TAKES.items():
        rule: dict[str, Any] = {"properties": {key: False for key in OWN_KEYS if key not in takes}}
        if kind == "soak":
            rule["properties"]["repetitions"] = {"type": ["integer", "null"]}
        if kind in NEEDS:
            rule["required"] = [NEEDS[kind]]
        if prompts := [{"required": [key]} for key in takes if key in PROMPT_KEYS]:
            rule["oneOf"] = prompts
        rules.append({"if": {"properties": {"kind": {"const": kind}}}, "then": rule})
    return {"allOf": rules}


class WorkloadEntry(Part):
    """What is asked in one session, and how often; some kinds make several workloads."""

    model_config = ConfigDict(json_schema_extra=_rules())

    name: Name = Field(description="What reports call it.")
    kind: WorkloadKind = Field(
        description="single asks one prompt; multi all its prompts, one after another; "
        "context_sweep one prompt of each length; concurrency has several clients ask at the same "
        "time; soak asks without a pause; coldstart starts the engine anew for each request."
    )
    prompt: str | None = Field(default=None, description="The prompt, where one is enough.")
    prompts: list[str] | None = Field(default=None, description="The prompts.")
    prompts_file: str | None = Field(
        default=None,
        description="File with the prompts, beside the campaign file: one a line, or a list in a "
        ".yaml file.",
    )
    prompt_tokens: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MAX_PROMPT_TOKENS)], ...], OneOrMany()
    ] = Field(
        default=(),
        description="Lengths of the prompts of a context_sweep, made of common words; each is a "
        "workload of its own, such as sweep-128.",
    )
    clients: Annotated[tuple[Clients, ...], OneOrMany()] = Field(
        default=(),
        description="How many ask at the same time (concurrency); each number is a workload of its "
        "own, such as crowd-2.",
    )
    duration_s: SoakSeconds | None = Field(
        default=None, description="How long a soak asks, in seconds."
    )
    page_cache: Literal["keep", "drop"] | None = Field(
        default=None,
        description="Of a coldstart: drop has the weights read from the disk each time. "
        "Default: keep.",
    )
    output_tokens: Annotated[int, Workload.model_fields["output_tokens"]] = Field(
        default=Workload.model_fields["output_tokens"].default,
        description="Tokens to generate for each prompt.",
    )
    warmup: Annotated[int, Workload.model_fields["warmup"]] = Field(
        default=Workload.model_fields["warmup"].default,
        description="Repetitions before those that count; recorded and marked.",
    )
    repetitions: RepetitionsValue = Field(
        default=None,
        description="Repetitions that count: a number, or until the median is known well enough. "
        f"Default: {DEFAULT_REPETITIONS}; of a soak {SOAK_REPETITIONS}.",
    )

    @model_validator(mode="after")
    def _asks(self, info: ValidationInfo) -> "WorkloadEntry":
        # Done while validating, so that a missing file is told with all other mistakes.
        self.to_wire(Path((info.context or {}).get("dir", ".")))
        return self

    def to_wire(self, directory: Path) -> tuple[Workload, ...]:
        """Return what travels to the device, prompts read; one for each length or crowd.

        Raises:
            PydanticCustomError: keys that the kind does not take, or too few, or prompts that
                cannot be asked; `ctx["key"]` says where.
        """
        self._check_keys()
        key, prompts = self._prompts(directory)
        if not all(prompt.strip() for prompt in prompts):
            raise at_key(key, "empty prompt")
        common = self._common()
        several: list[dict[str, Any]] = [{"prompts": prompts}]
        if self.kind == "context_sweep":
            several = [{"prompts": (prompt_of(tokens),)} for tokens in self.prompt_tokens]
        elif self.kind == "concurrency":
            several = [{"prompts": prompts, "clients": clients} for clients in self.clients]
        names = self.names()
        if max(map(len, names)) > MAX_NAME_CHARACTERS:
            text = f"at most {MAX_NAME_CHARACTERS} characters with what is added: {names[-1]!r}"
            raise at_key("name", text)
        try:
            return tuple(
                Workload(name=name, **common, **own)
                for name, own in zip(names, several, strict=True)
            )
        except ValidationError as error:
            raise at_key(key, describe(error)) from error

    def names(self) -> tuple[str, ...]:
        """Return the names of its workloads; its own where it makes just one."""
        return wire_names(self.name, self.prompt_tokens or self.clients)

    def _common(self) -> dict[str, Any]:
        default = SOAK_REPETITIONS if self.kind == "soak" else DEFAULT_REPETITIONS
        often = default if self.repetitions is None else self.repetitions
        if self.kind == "soak" and not isinstance(often, int):
            raise at_key("repetitions", "a soak goes on for duration_s: give a number here")
        return {
            "kind": self.kind,
            "output_tokens": self.output_tokens,
            "warmup": self.warmup,
            "duration_s": self.duration_s,
            "page_cache": self.page_cache or "keep",
            **on_the_wire(often),
        }

    def _given(self) -> list[str]:
        return [key for key in OWN_KEYS if getattr(self, key) not in (None, ())]

    def _check_keys(self) -> None:
        takes = TAKES[self.kind]
        for key in self._given():
            if key not in takes:
                others = _joined([kind for kind, keys in TAKES.items() if key in keys], "and")
                verb = "do" if " " in others else "does"
                text = f"a {self.kind} workload takes {_joined(takes, 'or')}, not {key}"
                raise at_key(key, f"{text} ({others} {verb})")
        needed = NEEDS.get(self.kind)
        if needed is not None and needed not in self._given():
            raise at_key("", f"a {self.kind} workload needs {needed}")

    def _prompts(self, directory: Path) -> tuple[str, tuple[str, ...]]:
        """Return the prompts, and the key that they come from."""
        lawful = [key for key in TAKES[self.kind] if key in PROMPT_KEYS]
        if not lawful:
            return "prompt_tokens", ()
        given = [key for key in self._given() if key in PROMPT_KEYS]
        if len(given) != 1:
            either = "either " if len(lawful) > 1 else ""
            raise at_key("", f"give {either}{_joined(lawful, 'or')}")
        if self.prompt is not None:
            return "prompt", (self.prompt,)
        if self.prompts is not None:
            if not self.prompts:
                raise at_key("prompts", "empty list: give at least one prompt")
            return "prompts", tuple(self.prompts)
        try:
            return "prompts_file", read_prompts(directory / Path(str(self.prompts_file)))
        except ConfigError as error:
            raise at_key("prompts_file", error.message) from error


def wire_names(name: str, numbers: Sequence[int]) -> tuple[str, ...]:
    """Return the names of an entry's workloads: one for each number, or just its own."""
    return tuple(f"{name}-{number}" for number in numbers) or (name,)


def name_clashes(entries: Sequence[WorkloadEntry]) -> Iterator[Problem]:
    """Find names that two entries would give to a workload."""
    first: dict[str, str] = {}
    for index, entry in enumerate(entries):
        for name in {entry.name, *entry.names()}:
            other = first.setdefault(name, entry.name)
            if other != entry.name:
                text = f"{name!r} is a workload of {other!r} and of {entry.name!r}: rename one"
                yield Problem(("workloads", index, "name"), text)


def _joined(words: Sequence[str], last: str) -> str:
    """Return words as people list them: a, b or c."""
    *most, end = words
    return f"{', '.join(most)} {last} {end}" if most else end
