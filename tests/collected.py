"""Records and data messages for tests of the collector."""

from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol import codec
from fleetmark_protocol.records import (
    RECORD,
    EventRecord,
    JobRecord,
    LoadRecord,
    Record,
    TelemetryRecord,
    TrialRecord,
)

EPOCH = "0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a0001"
OTHER_EPOCH = "0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a0002"
BOOT = "0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a0003"
SHA = "ab" * 32
S = 10**9


def telemetry(time_s: float = 1, **more) -> TelemetryRecord:
    return TelemetryRecord(time_ns=int(time_s * S), boot_id=BOOT, **{"cpu_percent": 12.5, **more})


def _run(time_s: float, more: dict) -> dict:
    return {
        "time_ns": int(time_s * S),
        "campaign_id": "c",
        "job_id": "c.pi.1",
        "attempt": 1,
        "backend": "xllamacpp",
        "model": "smollm2",
        **more,
    }


def trial(time_s: float = 1, trial_id: str = "c.pi.1.w.0.0", **more) -> TrialRecord:
    return TrialRecord(
        **{
            **_run(time_s, {}),
            "trial_id": trial_id,
            "trial_index": 0,
            "workload": "w",
            "workload_kind": "single",
            "repetition": 0,
            "prompt_index": 0,
            "prompt_sha256": SHA,
            "output_tokens_requested": 8,
            "verdict": "VALID",
            **more,
        }
    )


def load(time_s: float = 1, **more) -> LoadRecord:
    return LoadRecord(**_run(time_s, {"load_s": 0.5, **more}))


def job(time_s: float = 1, state: str = "IN_PROGRESS", **more) -> JobRecord:
    return JobRecord(
        **{
            "time_ns": int(time_s * S),
            "campaign_id": "c",
            "job_id": "c.pi.1",
            "attempt": 1,
            "state": state,
            **more,
        }
    )


def event(time_s: float = 1, **more) -> EventRecord:
    return EventRecord(
        **{
            "time_ns": int(time_s * S),
            "severity": "info",
            "code": "STARTED",
            "message": "started",
            **more,
        }
    )


def stored(
    record: Record, seq: int = 1, device: str = "pi", epoch: str = EPOCH, fleet: str = "lab"
) -> Stored[Record]:
    return Stored(fleet, device, epoch, seq, record)


def data(*numbered: tuple[int, Record], epoch: str = EPOCH) -> bytes:
    """Return a data message of (seq, record) pairs, as an agent sends it."""
    return codec.encode_batch(
        epoch, [(seq, RECORD.dump_json(record, exclude_none=True)) for seq, record in numbered]
    )
