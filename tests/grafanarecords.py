"""Records and observations of what no machine of the tests has: meters, prices, a busy centre.

They go into the database through the real sink and the real observer. Their numbers are uneven, so
that a mean is no median, the first not the last, and the highest of a window not its lowest.
"""

import time
from typing import Any

from collected import EPOCH, event, job, load, stored, telemetry, trial
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.sinks.base import Point
from fleetmark_collector.sinks.influxdb.observing import InfluxObserver
from fleetmark_collector.sinks.influxdb.writing import InfluxSink
from grafanakinds import of_all_kinds

ENERGY_SOURCES = ("meter", "pmic", "rapl", "nvml", "model")
OTHER_CENTRE = "centre-2"
S = 10**9

ANSWERS = (
    # verdict, warm-up, latency
    ("VALID", True, 97.0),
    ("VALID", False, 1.0),
    ("VALID", False, 1.1),
    ("VALID", False, 1.9),
    ("SUSPECT", True, 89.0),
    ("SUSPECT", False, 2.0),
    ("SUSPECT", False, 2.1),
    ("SUSPECT", False, 3.9),
    ("INVALID", False, 50.0),
    ("INVALID", True, 60.0),
)


def write_what_is_not_here(
    settings: CollectorSettings, fleet: str, device: str, campaign_id: str
) -> None:
    """Write it; the collector must be one that tells of the campaign anew afterwards."""
    now_s = time.time()
    records = [
        *_life(now_s, campaign_id, device),
        *_trials(now_s, campaign_id, device),
        *of_all_kinds(now_s, campaign_id, device),
    ]
    sink = InfluxSink(settings.store.influxdb())
    sink.connect()
    try:
        sink.write(
            [stored(one, seq, device, EPOCH, fleet) for seq, one in enumerate(records, start=1)]
        )
    finally:
        sink.close()
    observer = InfluxObserver(settings.store.influxdb())
    observer.observe(list(_centre(int(now_s * S))))
    observer.observe(list(_campaign(int(now_s * S), campaign_id)))
    observer.observe(list(_known(int(now_s * S), fleet, device)))
    observer.close()


def _life(now_s: float, campaign_id: str, device: str) -> list[Any]:
    """What a device with a meter says of itself."""
    job_id = f"{campaign_id}.{device}.1"
    samples = [
        telemetry(
            now_s - 24 + number,
            power_w=4.0 + (number % 7) ** 2,
            swap_used_bytes=2**20 * (1 + number % 5),
            swap_in_bytes=4096 * (number % 3),
            cpu_freq_hz=1.8e9 - 1e8 * (number % 4),
            temperature_c=50.0 + 11 * (number % 3),
            throttled=int(number % 9 == 5),
            outbox_records=number % 6,
            outbox_used_percent=1.5 * (number % 6),
        )
        for number in range(24)
    ]
    return [
        event(now_s, severity="warning", code="TELEMETRY_THINNED", message="dropped 12 samples"),
        event(now_s + 0.001, severity="info", code="STARTED", message="nothing to see"),
        event(now_s + 0.002, severity="error", code="OUTBOX_DAMAGED", message="put aside"),
        job(now_s, "IN_PROGRESS", campaign_id=campaign_id, job_id=job_id),
        job(now_s + 1, "SUCCEEDED", campaign_id=campaign_id, job_id=job_id, trials_recorded=9),
        *samples,
    ]


def _trials(now_s: float, campaign_id: str, device: str) -> list[Any]:
    run: dict[str, Any] = {
        "campaign_id": campaign_id,
        "model": "smollm2 (135M) 1/2",
        "quantization": "Q4_1",
        "options": {"threads": 4, "note": "a.b*c"},
        "output_tokens": 6,
    }
    found: list[Any] = []
    for place, source in enumerate(ENERGY_SOURCES):
        job_id = f"{campaign_id}.{device}.{place + 1}"
        for number, (verdict, warmup, latency_s) in enumerate(ANSWERS):
            found.append(
                trial(
                    now_s + (10 * place + number) / 1000,
                    f"{job_id}.{number}",
                    **run,
                    job_id=job_id,
                    backend=f"engine-{source}",
                    workload="single",
                    trial_index=number,
                    repetition=number,
                    warmup=warmup,
                    verdict=verdict,
                    verdict_reasons=() if verdict == "VALID" else ("swap_in", "cpu_steal"),
                    energy_source=source,
                    **_figures(latency_s + place),
                )
            )
    return [*found, *_blameless(now_s, run, f"{campaign_id}.{device}.9")]


def _blameless(now_s: float, run: dict[str, Any], job_id: str) -> list[Any]:
    """A cell that nobody suspects of anything, in sessions of two prompts."""
    run = {**run, "job_id": job_id, "backend": "engine-blameless"}
    sessions = [
        trial(
            now_s + 0.5 + number / 1000,
            f"{job_id}.{number}",
            **run,
            workload="session",
            workload_kind="multi",
            trial_index=number,
            repetition=number // 2,
            prompt_index=number % 2,
            latency_cold_s=7.5 if number == 0 else None,
            **_figures(1.0 + number**2),
        )
        for number in range(6)
    ]
    return [load(now_s + 0.4, **{**run, "output_tokens": None}), *sessions]


def _figures(latency_s: float) -> dict[str, float]:
    return {
        "latency_s": latency_s,
        "ttft_s": latency_s / 4,
        "tpot_s": latency_s / 10,
        "decode_tps": 10 / latency_s,
        "prefill_tps": 40 / latency_s,
        "energy_j": 3.0 * latency_s,
        "co2_g": 0.001 * latency_s,
        "cost_usd": 1e-6 * latency_s,
        "eq": 1e6 / latency_s**2,
        "eq_per_token": 36e6 / latency_s**2,
        "cpu_percent_mean": 100 / (1 + latency_s),
        "backend_cpu_percent_mean": 400 / (1 + latency_s),
        "mem_used_percent_mean": 30 + 10 / latency_s,
        "rss_bytes": int(2**27 + 1000 * latency_s),
    }


def _centre(now_ns: int) -> list[Point]:
    """A collector under load that was started again in the middle."""
    return [
        Point(
            "collector",
            {"collector": OTHER_CENTRE},
            {
                "messages": 7 * number**2 % 40,
                "messages_dropped": 3 * number % 11,
                "messages_dead": number % 8,
                "records_dead": 2 * number % 13,
                "records_deferred": 4 * number % 15,
                "broker_connected": int(number % 5 != 2),
                "queue_messages": 5 * number % 9,
                "lag_s": 0.25 * (5 * number % 7),
                "store_available": int(number % 4 != 1),
                "records_per_s": 100.0 * (3 * number % 5),
                "write_s_mean": 0.01 * (1 + 5 * number % 7),
                "write_s_max": 0.02 * (1 + 3 * number % 8),
                "devices_known": 3 + number % 3,
                "devices_online": 1 + number % 2,
            },
            now_ns - (60 - 3 * number) * S,
        )
        for number in range(19)
    ]


def _known(now_ns: int, fleet: str, device: str) -> list[Point]:
    """Two devices that were away and were brought up to date."""
    return [
        Point(
            "device",
            {"fleet": fleet, "device": name},
            {
                "online": online,
                "silent_s": silent_s,
                "agent_version": version,
                "board": f"Bench {version}",
                "cores_logical": 8,
                "mem_total_bytes": 2**33,
            },
            now_ns - back_s * S,
        )
        for name in (device, f"{device}-spare")
        for back_s, online, silent_s, version in (
            (40, 0, 4.0, "0.0.8"),
            (37, 0, 7.0, "0.0.8"),
            (34, 1, 2.0, "0.0.9"),
            (20, 1, 1.5, "0.0.9"),
        )
    ]


def _campaign(now_ns: int, campaign_id: str) -> list[Point]:
    """How the campaign may have stood before it ended."""
    return [
        Point(
            "campaign",
            {"campaign_id": campaign_id},
            {
                "name": "an earlier name",
                "progress_percent": 10.0 * number,
                "failed_percent": 25.0 / (1 + number),
                "trials": number,
                "trials_planned": 90,
                **{f"jobs_{state}": place + number for place, state in enumerate(_STATES)},
            },
            now_ns - (300 - 3 * number) * S,
        )
        for number in range(5)
    ]


_STATES = ("succeeded", "in_progress", "queued", "failed", "timed_out", "canceled", "rejected")
