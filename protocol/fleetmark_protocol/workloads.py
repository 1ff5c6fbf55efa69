"""What a job asks of an engine: prompts, how often, by how many clients, for how long."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleetmark_protocol.ids import Name
from fleetmark_protocol.records import WorkloadKind
from fleetmark_protocol.values import NO_NUL, Many


class Message(BaseModel):
    """What all messages share: immutable; unknown fields are ignored, so that a newer peer may say
    more."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


Prompt = Annotated[str, Field(max_length=200_000, pattern=NO_NUL)]
Repetitions = Annotated[int, Field(ge=1, le=10_000)]
Clients = Annotated[int, Field(ge=1, le=256)]
SoakSeconds = Annotated[float, Field(gt=0, le=604_800)]


class Adaptive(Message):
    """Repeats until the median is known well enough, or until the time for it is spent.

    Known well enough: half the width of the 95 % interval of the median of a repetition's latency
    is at most `half_width_percent` of that median.
    """

    half_width_percent: Annotated[float, Field(gt=0, le=100)]
    min: Repetitions = 3
    """Repetitions that are made whatever they take."""
    budget_s: Annotated[float, Field(gt=0)] | None = None
    """No repetition is begun after so many seconds of this workload's repetitions."""


class Workload(Message):
    """What is asked in one session.

    `single` asks one prompt; `multi` all, one after another; `context_sweep` one of a series of
    prompts that differ in length (each length is a workload of its own); `concurrency` has
    `clients` ask at the same time; `soak` asks without a pause for `duration_s`; `coldstart` starts
    the engine anew for each request.
    """

    name: Name
    kind: WorkloadKind
    prompts: Annotated[Many[Prompt], Field(min_length=1)]
    output_tokens: Annotated[int, Field(ge=1, le=65536)] = 64
    warmup: Annotated[int, Field(ge=0, le=100)] = 1
    repetitions: Repetitions = 8
    """With `adaptive` the most that are made."""
    first_repetition: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Number of the first repetition: a cell that is measured in several jobs counts on."""
    adaptive: Adaptive | None = None
    clients: Clients = 1
    """Requests at the same time (`concurrency`)."""
    duration_s: SoakSeconds | None = None
    """How long a repetition goes on asking (`soak`)."""
    page_cache: Literal["keep", "drop"] = "keep"
    """Whether the weights may still be in memory when the engine starts (`coldstart`)."""
