"""The shape of a campaign file: what keys there are, what they mean, what values they take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fleetmark_collector.campaigns.matrix import Matrix
from fleetmark_collector.campaigns.prompts import read_prompts
from fleetmark_collector.campaigns.selection import Targets
from fleetmark_collector.campaigns.shapes import OneOrMany, Part, twin
from fleetmark_protocol.codec import describe
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.ids import Name
from fleetmark_protocol.messages import QuietGate, Timeouts
from fleetmark_protocol.workloads import Workload

MAX_NAME_CHARACTERS = 63 - len("-20260101-000000")
"""A campaign's id is its name with the time after it, and is a name itself."""
DEFAULT_CAMPAIGN_S = 86_400.0

CampaignName = Annotated[Name, StringConstraints(max_length=MAX_NAME_CHARACTERS)]


class Limits(Part):
    """What the campaign may take; one that is expected to take more needs `--yes` to start."""

    duration_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="From start to end, in seconds."
    )
    cost_usd: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Of all devices together, at the prices in `cost`."
    )


class Cost(Part):
    """What devices cost while they work, so that a plan can say what a campaign costs."""

    usd_per_hour: Annotated[dict[Name, Annotated[float, Field(ge=0)]], Field(min_length=1)] = Field(
        description="Price of an hour by tag or device id; a device's own id counts first."
    )
    note: str = Field(
        default="",
        max_length=256,
        description="Where and when the prices were true; the plan shows it.",
    )


if TYPE_CHECKING:
    # To a type checker, which cannot follow `twin`, they are just mappings of the file.
    class TimeoutsEntry(Part): ...  # noqa: D101

    class QuietGateEntry(Part): ...  # noqa: D101

else:
    TimeoutsEntry = twin(
        Timeouts,
        "Timeouts",
        "Time limits, in seconds.",
        {
            "load_s": "For loading the model once.",
            "trial_s": "For one request.",
            "job_s": "For one job, from its start on the device.",
        },
        more={
            "campaign_s": (
                Annotated[float, Field(gt=0)],
                Field(
                    default=DEFAULT_CAMPAIGN_S,
                    description="For the whole campaign; what is not done by then is given up. "
                    f"Default: {DEFAULT_CAMPAIGN_S}.",
                ),
            )
        },
    )
    QuietGateEntry = twin(
        QuietGate,
        "QuietGate",
        "What a device must be like before a job starts.",
        {
            "cpu_percent_max": "Highest CPU load of the machine, in percent.",
            "temperature_c_max": "Highest temperature in °C; left out, it is not looked at.",
            "timeout_s": "How long to wait for quiet; past it, trials are SUSPECT.",
        },
    )


def _wire_default(field: str) -> Any:
    return Workload.model_fields[field].default


class WorkloadEntry(Part):
    """What is asked in one session, and how often."""

    name: Name = Field(description="What reports call it.")
    kind: Literal["single", "multi"] = Field(
        description="single asks one prompt; multi asks all its prompts, one after another."
    )
    prompt: str | None = Field(default=None, description="The prompt of a single workload.")
    prompts: list[str] | None = Field(default=None, description="The prompts of a multi workload.")
    prompts_file: str | None = Field(
        default=None,
        description="File with the prompts of a multi workload, beside the campaign file: one a "
        "line, or a list in a .yaml file.",
    )
    output_tokens: Annotated[int, Workload.model_fields["output_tokens"]] = Field(
        default=_wire_default("output_tokens"), description="Tokens to generate for each prompt."
    )
    warmup: Annotated[int, Workload.model_fields["warmup"]] = Field(
        default=_wire_default("warmup"),
        description="Repetitions before those that count; recorded and marked.",
    )
    repetitions: Annotated[int, Workload.model_fields["repetitions"]] = Field(
        default=_wire_default("repetitions"), description="Repetitions that count."
    )

    @model_validator(mode="after")
    def _asks(self, info: ValidationInfo) -> "WorkloadEntry":
        # Done while validating, so that a missing file is told with all other mistakes.
        self.to_wire(Path((info.context or {}).get("dir", ".")))
        return self

    def to_wire(self, directory: Path) -> Workload:
        """Return what travels to the device, its prompts read.

        Raises:
            PydanticCustomError: no prompt or too many sources of them; `ctx["key"]` says where.
        """
        key, prompts = self._prompts(directory)
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise _at(key, "empty prompt" if prompts else "empty list: give at least one prompt")
        plain = self.model_dump(exclude={"prompt", "prompts", "prompts_file"})
        try:
            return Workload(**plain, prompts=prompts)
        except ValidationError as error:
            raise _at(key, describe(error)) from error

    def _prompts(self, directory: Path) -> tuple[str, tuple[str, ...]]:
        lawful = ("prompt",) if self.kind == "single" else ("prompts", "prompts_file")
        given = [
            key for key in ("prompt", "prompts", "prompts_file") if getattr(self, key) is not None
        ]
        for key in given:
            if key not in lawful:
                raise _at(key, f"a {self.kind} workload takes {' or '.join(lawful)}")
        if len(given) != 1:
            raise _at("", f"give {'either ' * (len(lawful) > 1)}{' or '.join(lawful)}")
        if self.prompt is not None:
            return "prompt", (self.prompt,)
        if self.prompts is not None:
            return "prompts", tuple(self.prompts)
        try:
            return "prompts_file", read_prompts(directory / Path(str(self.prompts_file)))
        except ConfigError as error:
            raise _at("prompts_file", error.message) from error


def _at(key: str, text: str) -> PydanticCustomError:
    """Return a mistake of one key of a mapping, which pydantic would blame as a whole."""
    return PydanticCustomError("campaign", "{text}", {"text": text, "key": key})


class CampaignFile(Part):
    """A fleetmark campaign: which devices run which models on which engines, asked what."""

    version: Literal[1] = Field(description="Version of this format: 1.")
    name: CampaignName = Field(description="Start of the campaign's id.")
    description: str = Field(default="", max_length=4096, description="For people.")
    targets: Targets = Field(description="Which devices run it: each one that any key names.")
    matrix: Matrix = Field(description="What is compared.")
    workloads: Annotated[tuple[WorkloadEntry, ...], OneOrMany()] = Field(
        description="What each cell of the matrix is asked."
    )
    limits: Limits = Field(
        default_factory=Limits, description="What the campaign may take, by the plan's estimate."
    )
    cost: Cost | None = Field(default=None, description="Prices, for the plan's estimate.")
    timeouts: TimeoutsEntry = Field(
        default_factory=TimeoutsEntry, description="Time limits, in seconds."
    )
    quiet_gate: QuietGateEntry = Field(
        default_factory=QuietGateEntry,
        description="What a device must be like before a job starts.",
    )
    order: Literal["shuffled", "listed"] = Field(
        default="shuffled",
        description="Order of the cells on a device; shuffled keeps slow drift of the machine from "
        "favouring one side.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="Of the shuffled order and of the sample of devices.",
    )
    unavailable: Literal["reject", "skip"] = Field(
        default="reject",
        description="Cells whose backend a device does not have: reject sends them, and the device "
        "says why not; skip leaves them out of the plan.",
    )
    resume: bool = Field(
        default=True,
        description="After an interruption go on at the first trial not recorded; else the job "
        "has FAILED.",
    )
