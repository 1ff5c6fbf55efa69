"""The shape of a campaign file: what keys there are, what they mean, what values they take."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationInfo

from fleetmark_collector.campaigns.abort import AbortRule
from fleetmark_collector.campaigns.bounds import Seconds, Usd, written_now
from fleetmark_collector.campaigns.matrix import Matrix
from fleetmark_collector.campaigns.retries import Retries
from fleetmark_collector.campaigns.rollout import Rollout
from fleetmark_collector.campaigns.schedule_keys import ScheduleKeys
from fleetmark_collector.campaigns.selection import Targets
from fleetmark_collector.campaigns.shapes import OneOrMany, Part, twin
from fleetmark_collector.campaigns.windows import Windows
from fleetmark_collector.campaigns.workloads import WorkloadEntry
from fleetmark_protocol.ids import Name
from fleetmark_protocol.messages import CoolDown, QuietGate, Timeouts

MAX_NAME_CHARACTERS = 63 - len("-20260101-000000")
"""A campaign's id is its name with the time after it, and is a name itself."""
DEFAULT_CAMPAIGN_S = 86_400.0
DEFAULT_BLOCKS = 4

CampaignName = Annotated[Name, StringConstraints(max_length=MAX_NAME_CHARACTERS)]


def _renamed(value: object) -> object:
    if value == "shuffled":
        raise ValueError("shuffled is called blocked now: write `order: blocked`")
    return value


def _a_number(value: object, info: ValidationInfo) -> object:
    # To Python true is 1, and to older versions it was.
    if not written_now(info):
        return 1 if value == 1 else value
    if isinstance(value, bool | float):
        raise ValueError(f"should be 1 (got {json.dumps(value)})")
    return value


def _resume(value: object) -> object:
    # Told as alternatives, one mistake would be told twice.
    if value is True or value is False or value == "restart":
        return value
    raise ValueError(f"should be true, false or restart (got {json.dumps(value)})")


OrderName = Literal["blocked", "interleaved", "listed"]


class Limits(Part):
    """What the campaign may take; one that is expected to take more needs `--yes` to start."""

    duration_s: Annotated[Seconds, Field(gt=0)] | None = Field(
        default=None, description="From start to end, in seconds."
    )
    cost_usd: Usd | None = Field(
        default=None, description="Of all devices together, at the prices in `cost`."
    )


class Cost(Part):
    """What devices cost while they work, so that a plan can say what a campaign costs."""

    usd_per_hour: Annotated[dict[Name, Usd], Field(min_length=1)] = Field(
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

    class CoolDownEntry(Part): ...  # noqa: D101

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
                Annotated[Seconds, Field(gt=0)],
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
    CoolDownEntry = twin(
        CoolDown,
        "CoolDown",
        "What a device must cool down to before it goes on.",
        {
            "temperature_c": "Temperature in °C to fall to.",
            "before": "Before each job, or before each repetition.",
            "timeout_s": "How long to wait for it; past it, trials are SUSPECT.",
        },
    )


class CampaignFile(Part):
    """A fleetmark campaign: which devices run which models on which engines, asked what."""

    version: Annotated[Literal[1], BeforeValidator(_a_number)] = Field(
        description="Version of this format: 1."
    )
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
    cool_down: CoolDownEntry | None = Field(
        default=None, description="What a device must cool down to before it goes on."
    )
    retries: Retries | None = Field(
        default=None, description="Which jobs that went wrong are run again, and how often."
    )
    rollout: Rollout | None = Field(default=None, description="How fast jobs are sent.")
    abort: Annotated[tuple[AbortRule, ...], OneOrMany()] = Field(
        default=(), description="When the campaign stops because it goes wrong on too many devices."
    )
    windows: Windows | None = Field(
        default=None, description="When jobs may run on a device; left out, at any time."
    )
    schedule: ScheduleKeys | None = Field(
        default=None,
        description="When it runs, again and again; `fleetmark campaign schedule` registers it.",
    )
    order: Annotated[OrderName, BeforeValidator(_renamed)] = Field(
        default="blocked",
        description="Order of the cells on a device: blocked runs each cell all at once, in an "
        "order drawn by `seed`, which keeps slow drift of the machine from favouring one side; "
        "interleaved splits the repetitions of each over `blocks` jobs and draws a new order for "
        "each round of them; listed goes by the file.",
    )
    blocks: int = Field(
        default=DEFAULT_BLOCKS,
        ge=2,
        le=100,
        description="Jobs that each cell is split into, if it has as many repetitions; with "
        "`order: interleaved`.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="Of the order of the cells and of the sample of devices.",
    )
    unavailable: Literal["reject", "skip"] = Field(
        default="reject",
        description="Cells whose backend a device does not have: reject sends them, and the device "
        "says why not; skip leaves them out of the plan.",
    )
    resume: Annotated[bool | Literal["restart"], BeforeValidator(_resume)] = Field(
        default=True,
        description="After an interruption: true goes on at the first trial not recorded, restart "
        "begins the job anew, false has it FAILED.",
    )
