"""Makes up a campaign's records, for tests of what reads them; none of its numbers is real."""

import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure, JobRecord, LoadRecord, Record, TrialRecord

CAMPAIGN = "fake-campaign"
EPOCH = "00000000-0000-4000-8000-000000000001"
START_NS = 1_800_000_000 * 10**9
ORIGIN = hashlib.sha256(b"origin").hexdigest()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class FakeJob:
    """One job's records; figures are a fixed cost with seeded noise of a few per cent."""

    device: str = "pi-1"
    fleet: str = "lab"
    backend: str = "xllamacpp"
    model: str = "tiny"
    quantization: str | None = "Q4_0"
    options: dict[str, Any] = field(default_factory=lambda: {"threads": 2})
    number: int = 1
    tpot_s: float = 0.010
    """Its speed; all other times follow from it."""
    noise: float = 0.02
    seed: int = 0
    records: list[Record] = field(default_factory=list)

    @property
    def job_id(self) -> str:
        return f"{CAMPAIGN}.{self.device}.{self.number:03d}"

    def _run(self, attempt: int) -> dict[str, Any]:
        return {
            "time_ns": START_NS + (self.number * 1000 + len(self.records)) * 10**9,
            "campaign_id": CAMPAIGN,
            "job_id": self.job_id,
            "attempt": attempt,
            "backend": self.backend,
            "backend_version": "1.2.3",
            "model": self.model,
            "model_sha256": digest(f"{self.model} {self.quantization}"),
            "model_origin_sha256": ORIGIN,
            "quantization": self.quantization,
            "options": self.options,
        }

    def load(self, attempt: int = 1, **fields: Any) -> "FakeJob":
        usual = {
            "load_s": 0.4,
            "model_bytes": 100_000_000,
            "model_bits_per_weight": {"Q8_0": 8.5, "Q4_0": 4.5}.get(self.quantization or ""),
        }
        self.records.append(LoadRecord(**(self._run(attempt) | usual | fields)))
        return self

    def trial(
        self,
        workload: str = "single",
        repetition: int = 0,
        prompt: int = 0,
        *,
        attempt: int = 1,
        **fields: Any,
    ) -> "FakeJob":
        # By what is measured and not by when: the same trial is as fast in every test.
        noise = random.Random(f"{self.seed} {self.job_id} {workload} {repetition} {prompt}")
        tpot_s = self.tpot_s * (1 + noise.uniform(-self.noise, self.noise))
        tokens, prompt_tokens = 32, 20 + 10 * prompt
        ttft_s = tpot_s * prompt_tokens / 4
        warmup = bool(fields.get("warmup"))
        usual: dict[str, Any] = {
            "trial_id": f"{self.job_id}.{workload}.{'w' if warmup else ''}{repetition}.{prompt}",
            "trial_index": len(self.records),
            "workload": workload,
            "workload_kind": "multi" if workload.startswith("multi") else "single",
            "repetition": repetition,
            "prompt_index": prompt,
            "prompt_sha256": digest(f"prompt {workload} {prompt}"),
            "prompt_ids_sha256": digest(f"ids {workload} {prompt}"),
            "prompt_tokens": prompt_tokens,
            "prompt_tokens_evaluated": prompt_tokens,
            "output_tokens": tokens,
            "output_tokens_requested": tokens,
            "output_sha256": digest(f"output {self.quantization} {workload} {prompt}"),
            "output_ids_sha256": digest(f"output {self.quantization} {workload} {prompt}"),
            "output_text": "the answer",
            "stop_reason": "length",
            "ttft_s": ttft_s,
            "tpot_s": tpot_s,
            "prefill_tps": prompt_tokens / ttft_s,
            "decode_tps": 1 / tpot_s,
            "latency_s": ttft_s + tpot_s * (tokens - 1),
            "cpu_percent_mean": 80 + noise.uniform(-5, 5),
            "backend_cpu_percent_mean": 190 + noise.uniform(-5, 5),
            "rss_bytes": int(self.tpot_s * 2e10 + noise.uniform(0, 1e6)),
            "pss_bytes": int(self.tpot_s * 1.9e10 + noise.uniform(0, 1e6)),
            "mem_used_percent_mean": 30 + noise.uniform(0, 1),
            "verdict": "VALID",
        }
        self.records.append(TrialRecord(**(self._run(attempt) | usual | fields)))
        return self

    def job(self, state: JobState, attempt: int = 1, **fields: Any) -> "FakeJob":
        trials = {r.trial_id for r in self.records if isinstance(r, TrialRecord)}
        self.records.append(
            JobRecord(
                **(
                    {
                        "time_ns": self._run(attempt)["time_ns"],
                        "campaign_id": CAMPAIGN,
                        "job_id": self.job_id,
                        "attempt": attempt,
                        "state": state,
                        "trials_recorded": len(trials),
                        "trials_planned": len(trials),
                    }
                    | fields
                )
            )
        )
        return self

    def usual(self, repetitions: int = 8, prompts: int = 3) -> "FakeJob":
        """A job that went well: a load, a warm-up each, single and multi repetitions."""
        self.job(JobState.IN_PROGRESS).load()
        self.trial("single", warmup=True, latency_cold_s=0.9, verdict="VALID")
        self.trial("multi", warmup=True)
        for repetition in range(repetitions):
            self.trial("single", repetition)
            for prompt in range(prompts):
                self.trial("multi", repetition, prompt)
        return self.job(JobState.SUCCEEDED)


def failure(code: str = "OUT_OF_MEMORY", message: str = "killed") -> Failure:
    return Failure(code=code, message=message)


def stored(*jobs: FakeJob) -> list[Stored[Record]]:
    """All records of the jobs, numbered through per device as an outbox does."""
    found: list[Stored[Record]] = []
    seqs: dict[tuple[str, str], int] = {}
    for job in jobs:
        for record in job.records:
            seqs[job.fleet, job.device] = seqs.get((job.fleet, job.device), 0) + 1
            seq = seqs[job.fleet, job.device]
            found.append(Stored(job.fleet, job.device, EPOCH, seq, record))
    return found


def store(directory: Path, *jobs: FakeJob) -> SqliteReader:
    """The jobs' records in a real store; the caller closes what this returns."""
    file = directory / "store.db"
    sink = SqliteSink(file)
    sink.write(stored(*jobs))
    sink.close()
    return SqliteReader(file)


def usual_jobs() -> list[FakeJob]:
    """Two devices x two quantizations; the 8-bit weights are slower, one device is slower."""
    return [
        FakeJob(
            device=device, quantization=quantization, number=number, tpot_s=speed * slow
        ).usual()
        for device, slow in (("ec2-1", 1.0), ("pi-1", 3.0))
        for number, (quantization, speed) in enumerate((("Q4_0", 0.010), ("Q8_0", 0.014)), 1)
    ]
