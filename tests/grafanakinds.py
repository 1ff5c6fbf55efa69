"""Records of sweeps, clients, soaks and cold starts for the dashboards; see `grafanarecords`."""

from typing import Any

from collected import job, trial

PRICE = 0.5


def of_all_kinds(now_s: float, campaign_id: str, device: str) -> list[Any]:
    """One cell of each kind on a device with prices and a thermometer, uneven enough to tell."""
    job_id = f"{campaign_id}.{device}.20"
    run: dict[str, Any] = {
        "campaign_id": campaign_id,
        "job_id": job_id,
        "backend": "engine-kinds",
        "model": "smollm2 (135M) 1/2",
        "quantization": "Q4_1",
        "options": {"threads": 4, "note": "a.b*c"},
        "output_tokens": 6,
        "usd_per_hour": PRICE,
    }
    trials = [
        *_sweep(now_s, run),
        *_crowd(now_s, run),
        *_soak(now_s, run),
        *_cold(now_s, run),
    ]
    return [
        *trials,
        job(now_s + 2, "SUCCEEDED", campaign_id=campaign_id, job_id=job_id),
    ]


def _trial(at_s: float, run: dict[str, Any], name: str, kind: str, place: str, **more: Any) -> Any:
    latency_s = more.get("latency_s", 1.0)
    cost = PRICE * latency_s / 3600
    return trial(
        at_s,
        f"{run['job_id']}.{name}.{place}",
        **{
            **run,
            "workload": name,
            "workload_kind": kind,
            "cost_usd": cost,
            "eq": 1 / (cost * latency_s),
            "eq_per_token": 36 / (cost * latency_s),
            "rss_bytes": int(1e8 + 1e6 * latency_s),
            **more,
        },
    )


def _sweep(now_s: float, run: dict[str, Any]) -> list[Any]:
    return [
        _trial(
            now_s + 0.6 + length / 1e4 + number / 1e6,
            run,
            f"sweep-{length}",
            "context_sweep",
            f"{number}.0",
            repetition=number,
            verdict="SUSPECT" if number == 2 else "VALID",
            prompt_tokens=length + 1 + number // 4,
            ttft_s=length / 100 + number**2 / 100,
            prefill_tps=100 - number**2,
            decode_tps=10 - number**2 / 10,
            latency_s=length / 50 + number**2,
        )
        for length in (64, 256)
        for number in range(6)
    ]


def _crowd(now_s: float, run: dict[str, Any]) -> list[Any]:
    return [
        _trial(
            now_s + 0.7 + clients / 100 + number / 1e4 + client / 1e6,
            run,
            f"crowd-{clients}",
            "concurrency",
            f"{number}.{client}",
            repetition=number,
            clients=clients,
            client=client,
            verdict="SUSPECT" if (number, client) == (3, 0) else "VALID",
            throughput_tps=10.0 * clients - number**2 / 10,
            ttft_s=0.1 + 0.05 * client + number**2 / 100,
            latency_s=1.0 + 0.3 * client + number**2 / 10,
        )
        for clients in (1, 3)
        for number in range(6)
        for client in range(clients)
    ]


def _soak(now_s: float, run: dict[str, Any]) -> list[Any]:
    return [
        _trial(
            now_s - 130 + 5 * number,
            run,
            "heat",
            "soak",
            f"0.a1.{number}",
            trial_index=number,
            soak_s=5.0 * number,
            decode_tps=20.0 - number**1.5 / 10,
            latency_s=5.0,
            temperature_c_max=50.0 + 2 * (number % 7) + number,
            verdict="SUSPECT" if number >= 11 else "INVALID" if number == 4 else "VALID",
            verdict_reasons=("throttled",) if number >= 11 else (),
        )
        for number in range(24)
    ]


def _cold(now_s: float, run: dict[str, Any]) -> list[Any]:
    return [
        _trial(
            now_s + 0.9 + number / 1000,
            run,
            "start",
            "coldstart",
            f"{number}.0",
            repetition=number,
            cold=True,
            verdict="SUSPECT" if number == 1 else "VALID",
            load_s=2.0 + number**2 / 10,
            latency_s=0.5,
            latency_cold_s=2.5 + number**2 / 10,
            model_cached_percent=float(number**2 % 11),
        )
        for number in range(7)
    ]
