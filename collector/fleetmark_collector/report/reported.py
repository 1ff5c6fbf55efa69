"""The metrics that a cell of a report has figures of."""

from fleetmark_collector.report.soaking import SOAK_METRICS

TRIAL_METRICS = (
    "latency_s",
    "ttft_s",
    "tpot_s",
    "prefill_tps",
    "decode_tps",
    "cpu_percent_mean",
    "backend_cpu_percent_mean",
    "rss_bytes",
    "pss_bytes",
    "mem_used_percent_mean",
    "energy_j",
    "co2_g",
    "cost_usd",
    "eq",
    "eq_per_token",
    "model_cached_percent",
)
"""Metrics that every usable trial of a cell has its own value of."""

OF_ENERGY = ("energy_j", "co2_g")
"""Metrics that have no common figure where their energy comes from sources of several classes."""

REPORTED = (
    *("throughput_tps", *SOAK_METRICS),
    *("session_latency_s", *TRIAL_METRICS, "load_s", "latency_cold_s"),
)
"""All metrics of a cell."""
