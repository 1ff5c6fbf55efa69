"""The figures that a simulated device reports: plausible in size and shape, and all made up.

Energy is left out: a record says which kind of meter it comes from, and there is none.
"""

import random
from typing import Any

from fleetmark_protocol.messages import BackendInfo, Hardware, JobSpec, Options, SensorInfo
from fleetmark_protocol.records import TelemetryRecord
from fleetmark_protocol.version import SIMULATED_VERSION

CORES = 4
MEM_TOTAL_BYTES = 8 * 2**30
FREQ_HZ = 2.4e9
SAMPLE_S = 0.2
"""Between the samples that a real trial's window would hold."""

MODEL_BYTES = 10**8
CHARS_PER_TOKEN = 4
PREFILL_SHARE = 0.2
"""Of a trial's time."""

NO_ENGINE = "a simulated device has no engine; with --run-jobs it answers with made-up figures"


class Figures:
    """One device's machine; the same seed and device give the same figures."""

    def __init__(self, seed: int, device: str) -> None:
        """Begin at a point of the device's own.

        Args:
            seed: of the simulation.
            device: its id.
        """
        self._seed = seed
        # Made up in a way that can be repeated; nothing secret hangs on it.
        self._rng = random.Random(f"{seed}/{device}")  # noqa: S311 - figures
        self._machine = self._rng.uniform(0.9, 1.1)
        self._cpu = self._rng.uniform(2, 20)
        self._celsius = self._rng.uniform(40, 55)
        self._mem = self._rng.uniform(15, 40)

    def telemetry(
        self,
        time_ns: int,
        boot_id: str,
        backlog: tuple[int, float],
        job: tuple[str, str | None] | None,
    ) -> TelemetryRecord:
        """Return a sample.

        Args:
            time_ns: now.
            boot_id: of this start.
            backlog: records in the outbox, and how full it is in percent; these two are real.
            job: ids of the job and, inside one, the trial under way.
        """
        rng = self._rng
        busy = job is not None and job[1] is not None
        self._cpu = _walk(rng, self._cpu, 95.0 if busy else 8.0, 3.0, 0.5, 100.0)
        self._celsius = _walk(rng, self._celsius, 70.0 if busy else 48.0, 0.5, 30.0, 84.0)
        self._mem = _walk(rng, self._mem, 45.0 if busy else 25.0, 0.3, 5.0, 95.0)
        used = int(MEM_TOTAL_BYTES * self._mem / 100)
        engine: dict[str, Any] = {}
        if busy:
            engine = {
                "backend_cpu_percent": round(self._cpu * CORES * 0.95, 1),
                "rss_bytes": MODEL_BYTES + rng.randrange(10**7),
                "rss_file_bytes": MODEL_BYTES,
                "pss_bytes": MODEL_BYTES + rng.randrange(10**7),
            }
        return TelemetryRecord(
            time_ns=time_ns,
            boot_id=boot_id,
            job_id=None if job is None else job[0],
            trial_id=None if job is None else job[1],
            cpu_percent=round(self._cpu, 1),
            cpu_percent_per_core=tuple(
                round(min(100.0, self._cpu * rng.uniform(0.8, 1.2)), 1) for _ in range(CORES)
            ),
            cpu_steal_percent=0.0,
            load_1m=round(self._cpu * CORES / 100, 2),
            load_5m=round(self._cpu * CORES / 120, 2),
            cpu_freq_hz=FREQ_HZ,
            temperature_c=round(self._celsius, 1),
            mem_total_bytes=MEM_TOTAL_BYTES,
            mem_available_bytes=MEM_TOTAL_BYTES - used,
            mem_used_percent=round(self._mem, 2),
            swap_used_bytes=0,
            swap_in_bytes=0,
            disk_free_bytes=20 * 2**30,
            disk_read_bytes_per_s=0.0,
            disk_write_bytes_per_s=round(rng.uniform(0, 50_000), 1),
            net_rx_bytes_per_s=round(rng.uniform(100, 2_000), 1),
            net_tx_bytes_per_s=round(rng.uniform(300, 3_000), 1),
            throttled=0,
            throttled_bits=0,
            outbox_records=backlog[0],
            outbox_used_percent=min(100.0, round(backlog[1], 3)),
            agent_cpu_percent=round(rng.uniform(0.3, 0.9), 2),
            agent_rss_bytes=30 * 2**20,
            **engine,
        )

    def load_s(self, spec: JobSpec, trial_s: float) -> float:
        """Return how long a simulated load takes: as long as a trial, roughly."""
        return trial_s * self._pace(spec)

    def duration_s(self, spec: JobSpec, trial_s: float) -> float:
        """Return how long a simulated trial takes; engines differ, and so do devices, a little."""
        return trial_s * self._pace(spec) * max(0.5, self._rng.gauss(1.0, 0.02))

    def _pace(self, spec: JobSpec) -> float:
        cell = f"{self._seed}/{spec.backend}/{spec.model.name}/{spec.model.quantization}"
        return self._machine * random.Random(cell).uniform(0.7, 1.3)  # noqa: S311 - figures

    def answer(
        self, spec: JobSpec, prompt: str, output_tokens: int, duration_s: float
    ) -> dict[str, Any]:
        """Return what a worker would send of such a request (see `worker`)."""
        prompt_tokens = len(prompt) // CHARS_PER_TOKEN + 1
        total_ns = int(duration_s * 1e9)
        first_ns = int(total_ns * PREFILL_SHARE)
        step_ns = (total_ns - first_ns) / output_tokens
        return {
            "start_ns": 0,
            "token_times_ns": [int(first_ns + step_ns * n) for n in range(output_tokens)],
            "token_counts": [1] * output_tokens,
            "token_ids": [],
            "end_ns": total_ns,
            "text": f"made up by a simulated {spec.backend}",
            "completion": {
                "prompt_tokens": prompt_tokens,
                "prompt_tokens_evaluated": prompt_tokens,
                "output_tokens": output_tokens,
                "stop_reason": "length",
            },
        }

    def cached_percent(self, *, dropped: bool) -> float:
        """Return how much of the weights a cold start found in memory."""
        return round(self._rng.uniform(0, 2), 2) if dropped else 100.0

    def window(self, duration_s: float, *, slowed: bool = False) -> dict[str, Any]:
        """Return what sensors would have seen of a trial, under the names of its record.

        Args:
            duration_s: how long it took.
            slowed: whether the processor was slowed down by heat.
        """
        rng = self._rng
        backend = rng.uniform(370.0, 390.0)
        agent = round(rng.uniform(0.5, 1.5), 2)
        cpu = round((backend + agent + rng.uniform(1.0, 5.0)) / CORES, 2)
        return {
            "cpu_percent_before": round(rng.uniform(1, 10), 1),
            "cpu_percent_mean": cpu,
            "cpu_percent_p95": cpu,
            "cpu_percent_max": cpu,
            "cpu_steal_percent_mean": 0.0,
            "backend_cpu_percent_mean": round(backend, 2),
            "backend_cpu_percent_p95": round(backend, 2),
            "backend_cpu_percent_max": round(backend, 2),
            "cpu_freq_hz_min": FREQ_HZ * (0.7 if slowed else 1.0),
            "temperature_c_max": round(self._celsius + rng.uniform(0, 3), 1),
            "mem_used_percent_mean": round(self._mem, 2),
            "mem_used_percent_max": round(min(100.0, self._mem + 1), 2),
            "swap_in_bytes": 0,
            "rss_bytes": MODEL_BYTES + rng.randrange(10**7),
            "rss_file_bytes": MODEL_BYTES,
            "pss_bytes": MODEL_BYTES + rng.randrange(10**7),
            "agent_cpu_percent": agent,
            "agent_rss_bytes": 30 * 2**20,
            "samples": max(1, int(duration_s / SAMPLE_S)),
        }


def hardware(device: str) -> Hardware:
    """Return a machine that nobody can take for a real one."""
    return Hardware(
        arch="simulated",
        os="simulated",
        kernel="simulated",
        hostname=device,
        cpu_model="simulated: all figures are made up",
        board="simulated",
        cores_physical=CORES,
        cores_logical=CORES,
        mem_total_bytes=MEM_TOTAL_BYTES,
    )


def backend_infos(known: list[str], offered: tuple[str, ...]) -> tuple[BackendInfo, ...]:
    """Return what a device says of its engines: none is real.

    Args:
        known: names of all backends.
        offered: those that answer jobs.
    """
    takes = tuple(sorted(Options.model_fields))
    return tuple(
        BackendInfo(name=name, available=True, version=SIMULATED_VERSION, takes=takes)
        if name in offered
        else BackendInfo(name=name, available=False, reason=NO_ENGINE)
        for name in sorted({*known, *offered})
    )


def sensor_infos() -> tuple[SensorInfo, ...]:
    """Return the one sensor there is."""
    fields = tuple(name for name in TelemetryRecord.model_fields if name.endswith(_SENSED))
    return (SensorInfo(name="simulated", available=True, source="made up", fields=fields),)


_SENSED = ("_percent", "_c", "_hz", "_bytes", "_per_s", "_1m", "_5m")


def _walk(
    rng: random.Random, value: float, towards: float, step: float, low: float, high: float
) -> float:
    """Return the next value of a random walk that is drawn to a level."""
    moved = value + 0.1 * (towards - value) + rng.uniform(-step, step)
    return min(high, max(low, moved))
