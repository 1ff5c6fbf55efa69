"""The messages on the topics: status, inventory, batch, ack, assignment."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fleetmark_protocol.ids import JobId, Name, Sha256, Uuid
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Record
from fleetmark_protocol.values import NO_NUL, Count, Label, Many, Positive, Scalars, Text, TimeNs
from fleetmark_protocol.workloads import Message, Workload

MAX_BATCH_RECORDS = 1000
MAX_PAYLOAD_BYTES = 1_000_000
"""Larger messages are refused by both sides before they are parsed."""


class Status(Message):
    """Birth (online) and will (offline) of one agent process; retained."""

    online: bool
    boot_id: Uuid
    agent_version: Label
    started_ns: TimeNs


class Hardware(Message):
    """What the device is; a field is absent where the device does not say."""

    arch: Label
    os: Label
    kernel: Label
    hostname: Label
    cpu_model: Label | None = None
    board: Label | None = None
    cores_physical: Count | None = None
    cores_logical: Count | None = None
    mem_total_bytes: Count | None = None
    machine_id: Label | None = None
    """Digest of the OS's machine id: equal for two agents on one machine, and only then."""


class BackendInfo(Message):
    """One backend as its `probe` sees it."""

    name: Label
    available: bool
    version: Label | None = None
    reason: Text | None = None
    """Why it is not available."""
    hint: Text | None = None
    """What would make it so."""
    features: Many[Label] = ()
    """What the engine was built with (AVX2, NEON, BLAS...), where it tells."""
    formats: Many[Label] = ()
    """Kinds of model files it reads."""
    architectures: Many[Label] = ()
    """Architectures of models it runs (`llama`, `qwen2`), where it is particular about them."""
    takes: Many[Label] = ()
    """Names of the options that it honours."""


class ModelInfo(Message):
    """One model file in the device's store."""

    name: Label
    sha256: Sha256
    bytes: Count
    format: Label = "gguf"
    """Kind of file: gguf, ggml, safetensors (a directory) or llamafile."""
    architecture: Label | None = None
    parameters: Count | None = None
    quantization: Label | None = None
    bits_per_weight: Positive | None = None
    origin_sha256: Sha256 | None = None
    """Digest of the file whose weights these are; its own for a file that was not converted."""
    kv_bytes_per_token: Count | None = None
    """Memory that each token of a context takes beside the weights: keys and values as F16."""


class SensorInfo(Message):
    """One sensor: what it would report and where the numbers come from."""

    name: Label
    available: bool
    source: Label
    fields: Many[Label] = ()


class KnownJob(Message):
    """A job as the device knows it."""

    job_id: JobId
    attempt: Count
    state: JobState
    centre: Label | None = None
    """As its `JobSpec` said."""


class Inventory(Message):
    """What a device is and has; retained, sent again when it changes."""

    boot_id: Uuid
    time_ns: TimeNs
    agent_version: Label
    python_version: Label
    tags: Many[Name] = ()
    hardware: Hardware
    backends: Many[BackendInfo] = ()
    models: Many[ModelInfo] = ()
    sensors: Many[SensorInfo] = ()
    allowed_backends: Many[Label] = ()
    allowed_sources: Many[Label] = ()
    """Prefixes of model references that the device's owner allows."""
    jobs: Many[KnownJob] = ()
    time_zone: Label | None = None
    """Name in the IANA database; what maintenance windows in the device's own time go by."""
    max_job_s: Positive | None = None
    """Longest that the device's owner lets a job hold it; absent where an older agent speaks."""
    max_context_tokens: Count | None = None
    """Most tokens that the owner allows over all contexts of an engine; absent without a limit."""


Seq = Annotated[int, Field(ge=1, lt=2**63)]


class Envelope(Message):
    """A record with its place in the outbox."""

    seq: Seq
    record: Record


class Batch(Message):
    """Records of one outbox; `epoch` names the outbox, so that a new one may count from 1.

    One without records asks whether a collector is there that takes them: it is answered, too.
    """

    epoch: Uuid
    agent_version: Label | None = None
    """Of whoever sends it; a collector that does not go with it refuses it. Absent: 0.1.0."""
    records: Annotated[Many[Envelope], Field(max_length=MAX_BATCH_RECORDS)]


def _ordered(span: tuple[int, int]) -> tuple[int, int]:
    if span[0] > span[1]:
        raise ValueError("a range's first seq must not be after its last")
    return span


SeqRange = Annotated[tuple[Seq, Seq], AfterValidator(_ordered)]
"""First and last `seq`, both included."""


class Ack(Message):
    """Ranges of one outbox that are durably written (or can never be, and were dead-lettered).

    One with `refused` has no ranges: nothing was taken, and the agent keeps what it sent.
    """

    epoch: Uuid
    ranges: Annotated[Many[SeqRange], Field(max_length=MAX_BATCH_RECORDS)]
    collector_version: Label | None = None
    """Of whoever says it; an agent that does not go with it lets go of nothing. Absent: 0.1.0."""
    refused: Text | None = None
    """Why nothing was taken, and what to do about it."""


class ModelSpec(Message):
    """The model of a job.

    `ref` is one of `path:NAME` (a file in the device's model store), `https://...`,
    `hf://owner/repo/file`, `pypi://package==version/member`, or `remote:NAME` (no file: a model
    that an engine's own server has under this name). Where `quantization` differs from what the
    file holds, the device derives it once and keeps the result.
    """

    name: Name
    ref: Annotated[str, Field(max_length=1024, pattern=NO_NUL)]
    sha256: Sha256 | None = None
    quantization: Label | None = None


class Options(Message):
    """Engine options of a job; None leaves the choice to the backend's documented default."""

    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    context_tokens: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    batch_tokens: Annotated[int, Field(ge=1, le=65536)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    ignore_eos: bool = True
    """Generate exactly what was asked, so that every engine does the same work."""
    start: Literal["warm", "cold"] = "warm"
    """Cold: every trial has an engine started and a model loaded for it alone."""
    inner_backend: Name | None = None
    """The backend that a framework drives (`langchain`)."""
    dtype: Literal["fp32", "bf16"] | None = None
    """What floating-point weights are computed in (`transformers`)."""
    parallel: Annotated[int, Field(ge=1, le=256)] | None = None
    """Requests that an engine shall be able to serve at once; each has `context_tokens` of its
    own. A `concurrency` workload needs at least as many as it has clients."""
    load_quantization: Literal["int8_dynamic", "int8_weight_only", "int4_weight_only"] | None = None
    """What floating-point weights are quantized to as they are loaded (`transformers`)."""


class Timeouts(Message):
    """Deadlines; a job past its own is TIMED_OUT, a load or trial past theirs FAILED."""

    load_s: Annotated[float, Field(gt=0)] = 600.0
    trial_s: Annotated[float, Field(gt=0)] = 900.0
    job_s: Annotated[float, Field(gt=0)] = 7200.0


class QuietGate(Message):
    """What the machine must be before a job starts; past `timeout_s` trials are SUSPECT."""

    cpu_percent_max: Annotated[float, Field(gt=0, le=100)] = 20.0
    temperature_c_max: Annotated[float, Field(gt=0, le=150)] | None = None
    timeout_s: Annotated[float, Field(ge=0)] = 60.0


class CoolDown(Message):
    """Temperature to fall to before work starts; past `timeout_s` trials are SUSPECT."""

    temperature_c: Annotated[float, Field(gt=0, le=150)]
    before: Literal["job", "repetition"] = "job"
    timeout_s: Annotated[float, Field(ge=0)] = 600.0


Resume = bool | Literal["restart"]


class JobSpec(Message):
    """Everything a device needs to run one job: choices and numbers, never a command or code."""

    job_id: JobId
    campaign_id: Name
    backend: Name
    model: ModelSpec
    options: Options = Options()
    labels: Scalars = Field(default_factory=dict)
    """The cell's options as the campaign file gave them; copied into every record."""
    workloads: Annotated[Many[Workload], Field(min_length=1)]
    timeouts: Timeouts = Timeouts()
    quiet_gate: QuietGate = QuietGate()
    cool_down: CoolDown | None = None
    usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of the device while it works; without it trials have no cost."""
    centre: Label | None = None
    """Name of the centre that gives it; a centre withdraws what it does not know only if it is its
    own."""
    resume: Resume = True
    """After an interruption: go on at the first trial not recorded (true), begin the job anew
    (`restart`), or give it up as FAILED (false)."""


class Assignment(Message):
    """The desired state of one job; retained until the job is terminal."""

    desired: Literal["run", "cancel"]
    job: JobSpec
    attempts_begun: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Attempts that the centre has heard of: a device that has forgotten the job counts on from
    here, so that no two attempts ever have one number."""
    collector_version: Label | None = None
    """Of whoever assigns it; an agent that does not go with it rejects the job. Absent: 0.1.0."""


class JobName(Message):
    """As much of a job as its refusal has to name."""

    job_id: JobId
    campaign_id: Name


class AssignmentHead(Message):
    """As much of an assignment as every version says alike: enough to refuse the rest of it."""

    desired: Literal["run", "cancel"]
    job: JobName
    attempts_begun: Annotated[int, Field(ge=0, lt=2**31)] = 0
    collector_version: Label | None = None
