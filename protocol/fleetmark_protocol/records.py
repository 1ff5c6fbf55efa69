"""The records that flow from a device to the store: telemetry, trial, load, job, event.

Every time is in nanoseconds since the Unix epoch on the device's clock; durations are seconds
taken from a monotonic clock. A quantity that a device cannot observe is absent (None), never 0.
Unknown fields are kept as they came (a newer agent may send more than this version knows), as
long as they are plain numbers, strings or booleans.
"""

import re
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    model_validator,
)

from fleetmark_protocol.ids import JobId, Name, Sha256, TrialId, Uuid
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.values import (
    MAX_SCALARS,
    Count,
    Finite,
    Label,
    Many,
    Percent,
    Positive,
    Scalar,
    Scalars,
    Text,
    TimeNs,
    TokenIds,
)

_EXTRA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class WireModel(BaseModel):
    """What all records share: immutable; unknown plain fields kept, as far as a store can bear."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, Scalar] = Field(init=False)

    @model_validator(mode="after")
    def _bound_extras(self) -> Self:
        if self.__pydantic_extra__:
            if len(self.__pydantic_extra__) > MAX_SCALARS:
                raise ValueError(f"more than {MAX_SCALARS} unknown fields")
            if not all(map(_EXTRA_NAME.fullmatch, self.__pydantic_extra__)):
                raise ValueError("an unknown field whose name is no identifier of 64 characters")
        return self


class Verdict(StrEnum):
    """Whether a trial may enter a comparison."""

    VALID = "VALID"
    SUSPECT = "SUSPECT"
    INVALID = "INVALID"


class Failure(WireModel):
    """A typed failure: `code` and `retryable` come from an error type of `errors.py`."""

    code: Label
    message: Text
    retryable: bool = False


WorkloadKind = Literal["single", "multi", "context_sweep", "concurrency", "soak", "coldstart"]


class TelemetryRecord(WireModel):
    """One sample of the device; `backend_*`, `rss_*` and `pss_*` only while a backend runs."""

    kind: Literal["telemetry"] = "telemetry"
    time_ns: TimeNs
    boot_id: Uuid
    job_id: JobId | None = None
    trial_id: TrialId | None = None
    cpu_percent: Percent | None = None
    cpu_percent_per_core: Annotated[Many[Percent], Field(max_length=1024)] | None = None
    cpu_steal_percent: Percent | None = None
    load_1m: Positive | None = None
    load_5m: Positive | None = None
    cpu_freq_hz: Positive | None = None
    temperature_c: Finite | None = None
    mem_total_bytes: Count | None = None
    mem_available_bytes: Count | None = None
    mem_used_percent: Percent | None = None
    swap_used_bytes: Count | None = None
    swap_in_bytes: Count | None = None
    disk_free_bytes: Count | None = None
    disk_read_bytes_per_s: Positive | None = None
    disk_write_bytes_per_s: Positive | None = None
    net_rx_bytes_per_s: Positive | None = None
    net_tx_bytes_per_s: Positive | None = None
    power_w: Positive | None = None
    throttled: Annotated[int, Field(ge=0, le=1)] | None = None
    throttled_bits: Count | None = None
    outbox_records: Count | None = None
    outbox_used_percent: Percent | None = None
    backend_cpu_percent: Positive | None = None
    rss_bytes: Count | None = None
    rss_file_bytes: Count | None = None
    pss_bytes: Count | None = None
    agent_cpu_percent: Positive | None = None
    agent_rss_bytes: Count | None = None


class _Run(WireModel):
    """Which cell of which campaign a measurement belongs to."""

    time_ns: TimeNs
    campaign_id: Name
    job_id: JobId
    attempt: Annotated[int, Field(ge=1, lt=2**31)]
    backend: Label
    backend_version: Label | None = None
    model: Label
    model_sha256: Sha256 | None = None
    model_origin_sha256: Sha256 | None = None
    quantization: Label | None = None
    options: Scalars = Field(default_factory=dict)
    """The options of the cell, as the campaign file gave them (threads, context_tokens, ...)."""


class LoadRecord(_Run):
    """One model load, measured apart from any request."""

    kind: Literal["load"] = "load"
    load_s: Positive | None = None
    model_bytes: Count | None = None
    model_bits_per_weight: Positive | None = None
    rss_bytes: Count | None = None
    rss_file_bytes: Count | None = None
    pss_bytes: Count | None = None
    engine: Scalars = Field(default_factory=dict)
    """What the engine granted or told at the load (context size, threads, build)."""
    failure: Failure | None = None


class TrialRecord(_Run):
    """One measured request. Metrics are defined in `metrics.py`; a failed trial lacks them."""

    kind: Literal["trial"] = "trial"
    trial_id: TrialId
    trial_index: Count
    workload: Label
    workload_kind: WorkloadKind
    repetition: Count
    prompt_index: Count
    warmup: bool = False
    cold: bool = False
    """Whether the engine was started and the model loaded for this trial alone."""
    clients: Count | None = None
    """How many asked at the same time; only where the workload is of kind concurrency."""
    client: Count | None = None
    """Which of them this one was, from 0."""
    soak_s: Positive | None = None
    """How long the soak had gone on when this request began."""
    prompt_sha256: Sha256
    prompt_tokens: Count | None = None
    prompt_tokens_evaluated: Count | None = None
    prompt_ids_sha256: Sha256 | None = None
    prompt_ids: TokenIds | None = None
    """The first token ids of the prompt; in the first repetition of a greedy trial only."""
    output_tokens: Count | None = None
    output_tokens_requested: Count
    output_sha256: Sha256 | None = None
    output_ids_sha256: Sha256 | None = None
    output_ids: TokenIds | None = None
    """As `prompt_ids`, of the output: what tells where two engines diverge."""
    output_text: Text | None = None
    stop_reason: Label | None = None
    ttft_s: Positive | None = None
    tpot_s: Positive | None = None
    prefill_tps: Positive | None = None
    decode_tps: Positive | None = None
    itl_p50_s: Positive | None = None
    itl_p95_s: Positive | None = None
    itl_p99_s: Positive | None = None
    latency_s: Positive | None = None
    load_s: Positive | None = None
    latency_cold_s: Positive | None = None
    throughput_tps: Positive | None = None
    model_cached_percent: Percent | None = None
    engine_load_s: Positive | None = None
    engine_prefill_s: Positive | None = None
    engine_decode_s: Positive | None = None
    cpu_percent_before: Percent | None = None
    cpu_percent_mean: Percent | None = None
    cpu_percent_p95: Percent | None = None
    cpu_percent_max: Percent | None = None
    cpu_steal_percent_mean: Percent | None = None
    backend_cpu_percent_mean: Positive | None = None
    backend_cpu_percent_p95: Positive | None = None
    backend_cpu_percent_max: Positive | None = None
    cpu_freq_hz_min: Positive | None = None
    temperature_c_max: Finite | None = None
    mem_used_percent_mean: Percent | None = None
    mem_used_percent_max: Percent | None = None
    swap_in_bytes: Count | None = None
    rss_bytes: Count | None = None
    rss_file_bytes: Count | None = None
    pss_bytes: Count | None = None
    agent_cpu_percent: Positive | None = None
    agent_rss_bytes: Count | None = None
    energy_j: Positive | None = None
    energy_source: Literal["meter", "pmic", "rapl", "nvml", "model"] | None = None
    co2_g: Positive | None = None
    usd_per_hour: Positive | None = None
    """Price of the machine, as the campaign file gave it; `cost_usd` goes by it."""
    cost_usd: Positive | None = None
    eq: Positive | None = None
    eq_per_token: Positive | None = None
    samples: Count | None = None
    verdict: Verdict
    verdict_reasons: Annotated[Many[Label], Field(max_length=64)] = ()
    failure: Failure | None = None


class JobRecord(WireModel):
    """A job changed its state on the device.

    A terminal record says in `trials_recorded` how many trial records the job has put in the
    outbox over all its attempts, so that the centre knows when it has them all.
    """

    kind: Literal["job"] = "job"
    time_ns: TimeNs
    campaign_id: Name
    job_id: JobId
    attempt: Count
    state: JobState
    trials_recorded: Count = 0
    trials_planned: Count = 0
    since_attempt: Count | None = None
    """The attempt at which the job was begun from its start; trials of earlier ones do not count.
    Absent: the first."""
    failure: Failure | None = None


class EventRecord(WireModel):
    """Something an operator should see (agent started, telemetry thinned, job interrupted...)."""

    kind: Literal["event"] = "event"
    time_ns: TimeNs
    severity: Literal["info", "warning", "error"]
    code: Label
    message: Text
    job_id: JobId | None = None
    data: Scalars = Field(default_factory=dict)


Record = Annotated[
    TelemetryRecord | TrialRecord | LoadRecord | JobRecord | EventRecord,
    Field(discriminator="kind"),
]
"""Any record; `kind` tells which."""

Kind = Literal["telemetry", "trial", "load", "job", "event"]

RECORD: TypeAdapter[Record] = TypeAdapter(Record)
"""Validates and dumps any record."""
