"""What the panels about sweeps, clients, soaks, cold starts and money promise."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from fleetmark_collector.report.figures import counts_of, figures_of
from grafanameaning import (
    CELL,
    Answer,
    Choice,
    Promise,
    cell_key,
    counted,
    figure,
    over_time,
)
from grafanaworld import World


def of_kind(kind: str | None, *fields: str) -> Promise:
    """A row of figures for each cell of a kind that has the first of them."""

    def promise(world: World, choice: Choice) -> Answer:
        found = {}
        for cell in world.cells:
            if kind is not None and cell.workload_kind != kind:
                continue
            known: dict[str, Any] = dict(_places(cell))
            for name, made in figures_of(cell).items():
                known[name] = made.median
                if made.low is not None:
                    known |= {f"{name}_low": made.low, f"{name}_high": made.high}
            if known.get(fields[0]) is not None:
                columns = {name: known[name] for name in fields if known.get(name) is not None}
                found[cell_key(world, cell)] = columns
        return found

    return promise


def _places(cell: Any) -> dict[str, Any]:
    """What is no figure, from the trials themselves."""
    records = [one.record for one in cell.trials if not one.record.warmup]
    used = [one.record for one in cell.measured]
    lengths = [one.prompt_tokens for one in records if one.prompt_tokens is not None]
    latency = figures_of(cell).get(
        "latency_cold_s"
        if cell.cold
        else "session_latency_s"
        if cell.workload_kind == "multi"
        else "latency_s"
    )
    target = cell.asked.adaptive.half_width_percent if cell.asked and cell.asked.adaptive else None
    prices = [one.usd_per_hour for one in records if one.usd_per_hour is not None]
    half = latency.relative_half_width if latency and target is not None else None
    return {
        "prompt_tokens": median(lengths) if lengths else None,
        "clients": records[0].clients if records else None,
        "repetitions": len({(one.job_id, one.repetition) for one in used}),
        "processes": len({one.job_id for one in used}),
        "usd_per_hour": prices[-1] if prices else None,
        "target_percent": target,
        "half_width_percent": None if half is None else 100 * half,
    }


def soaking(field: str, made: Any) -> Promise:
    """A field of the requests of each soak within windows of ten seconds."""

    def wanted(fields: Mapping[str, Any]) -> bool:
        return counted(fields) and fields["workload_kind"] == "soak"

    return over_time("trial", field, made=made, by=CELL, where=wanted)


def bars_of(kind: str, field: str) -> list[Promise]:
    """The cells of a kind, and again those that SUSPECT trials are part of."""

    def doubted_ones(world: World, choice: Choice) -> Answer:
        some = {cell_key(world, one) for one in world.cells if counts_of(one).suspect}
        everything = of_kind(kind, field)(world, choice)
        return {tags: columns for tags, columns in everything.items() if tags in some}

    return [of_kind(kind, field), doubted_ones]


MEANING_OF_KINDS: dict[tuple[str, str], list[Promise]] = {
    ("Campaign", "Throughput, with intervals"): [figure("throughput_tps", interval=True)],
    ("Campaign", "EQ, with intervals"): [figure("eq", interval=True)],
    ("Campaign", "Repetitions"): [
        of_kind(None, "repetitions", "processes", "half_width_percent", "target_percent")
    ],
    ("Campaign", "Speed during soaks"): [soaking("decode_tps", median)],
    ("Campaign", "Temperature during soaks"): [soaking("temperature_c_max", max)],
    ("Compare", "Prompt lengths"): [
        of_kind(
            "context_sweep",
            *("prompt_tokens", "ttft_s_low", "ttft_s", "ttft_s_high", "prefill_tps"),
            *("decode_tps", "rss_bytes"),
        )
    ],
    ("Compare", "TTFT by prompt length"): bars_of("context_sweep", "ttft_s"),
    ("Compare", "Prefill by prompt length"): bars_of("context_sweep", "prefill_tps"),
    ("Compare", "Clients"): [
        of_kind(
            "concurrency",
            *("clients", "throughput_tps_low", "throughput_tps", "throughput_tps_high"),
            *("latency_s", "latency_p95_s", "ttft_s"),
        )
    ],
    ("Compare", "Throughput by clients"): bars_of("concurrency", "throughput_tps"),
    ("Compare", "Latency (95th percentile) by clients"): bars_of("concurrency", "latency_p95_s"),
    ("Compare", "Soaks"): [
        of_kind(
            "soak",
            *("sustained_tps", "sustained_tps_low", "sustained_tps_high", "burst_tps"),
            "time_to_throttle_s",
        )
    ],
    ("Compare", "Cold starts"): [
        of_kind(
            "coldstart",
            *("latency_cold_s", "latency_cold_s_low", "latency_cold_s_high", "load_s"),
            "model_cached_percent",
        )
    ],
    ("Compare", "Cost and value"): [
        of_kind(None, "cost_usd", "usd_per_hour", "eq_low", "eq", "eq_high", "eq_per_token")
    ],
}
