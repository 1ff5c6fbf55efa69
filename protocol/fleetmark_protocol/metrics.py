"""Every metric as data: name, unit, how to show it, its formula. Feeds store, reports and docs."""

from fleetmark_protocol.metric import Better, Metric


def _ms(name: str, title: str, description: str, formula: str | None = None) -> Metric:
    return Metric(name, "s", title, "lower", description, formula, "ms", 1e3, 1)


def _mib(name: str, title: str, description: str, better: Better = "lower") -> Metric:
    return Metric(name, "bytes", title, better, description, None, "MiB", 1 / 2**20, 1)


def _percent(name: str, title: str, description: str, better: Better = "neither") -> Metric:
    return Metric(name, "%", title, better, description, digits=1)


_LATENCY = (
    _ms(
        "ttft_s",
        "TTFT",
        "Time to first token: from handing the prompt to the backend until the first generated "
        "token is out. Absent when no token came.",
    ),
    _ms(
        "tpot_s",
        "TPOT",
        "Time per output token after the first. Absent for fewer than two tokens.",
        "(t_last - t_first) / (output_tokens - 1)",
    ),
    Metric(
        "prefill_tps",
        "tokens/s",
        "Prefill",
        "higher",
        "Prompt tokens evaluated per second until the first token.",
        "prompt_tokens_evaluated / ttft_s",
        digits=1,
    ),
    Metric(
        "decode_tps",
        "tokens/s",
        "Decode",
        "higher",
        "Generated tokens per second after the first. Absent for fewer than two tokens.",
        "1 / tpot_s",
        digits=1,
    ),
    _ms("itl_p50_s", "ITL p50", "Median inter-token latency of one trial."),
    _ms("itl_p95_s", "ITL p95", "95th percentile of the inter-token latencies of one trial."),
    _ms("itl_p99_s", "ITL p99", "99th percentile of the inter-token latencies of one trial."),
    Metric(
        "latency_s",
        "s",
        "Latency",
        "lower",
        "The whole request: from handing over the prompt until generation ended.",
        digits=3,
    ),
    Metric("load_s", "s", "Load", "lower", "Model load until ready to take a prompt.", digits=3),
    Metric(
        "latency_cold_s",
        "s",
        "Cold latency",
        "lower",
        "What somebody waits who starts the engine for one question.",
        "load_s + latency_s of the first request after the load",
        digits=3,
    ),
    Metric(
        "session_latency_s",
        "s",
        "Session latency",
        "lower",
        "All prompts of a multi-prompt session, one after another.",
        "sum of latency_s over the prompts of one repetition",
        digits=3,
    ),
    Metric(
        "throughput_tps",
        "tokens/s",
        "Throughput",
        "higher",
        "Of all clients that asked at the same time together; every trial of a round has the same. "
        "Absent where one asks at a time.",
        "sum of output_tokens over the round / (end of its last request - start of its first)",
        digits=1,
    ),
    Metric(
        "latency_p95_s",
        "s",
        "Latency p95",
        "lower",
        "95th percentile of the latencies of all clients that asked at the same time, over all "
        "rounds.",
        digits=3,
    ),
    Metric(
        "burst_tps",
        "tokens/s",
        "Burst",
        "higher",
        "What a soak generates at first: median of `decode_tps` of the requests that began in its "
        "first minute (of a soak of less than a minute and a half, in its first two thirds).",
        digits=1,
    ),
    Metric(
        "sustained_tps",
        "tokens/s",
        "Sustained",
        "higher",
        "What a soak can keep up: median of `decode_tps` of the requests that began in its last "
        "third.",
        digits=1,
    ),
    Metric(
        "time_to_throttle_s",
        "s",
        "Time to throttle",
        "higher",
        "When the first request of a soak began that was slowed down by heat: throttled, or its "
        "frequency dropped. Absent where none was.",
        digits=0,
    ),
    _ms("engine_load_s", "Engine load", "Model load by the engine's own clock."),
    _ms("engine_prefill_s", "Engine prefill", "Prefill time by the engine's own clock."),
    _ms("engine_decode_s", "Engine decode", "Decode time by the engine's own clock."),
)

_CPU = (
    _percent("cpu_percent", "CPU", "Of the whole machine, 0 to 100."),
    _percent("cpu_percent_mean", "CPU mean", "Whole machine, mean over the trial's window."),
    _percent("cpu_percent_p95", "CPU p95", "Whole machine, 95th percentile of the samples."),
    _percent("cpu_percent_max", "CPU max", "Whole machine, highest sample."),
    _percent("cpu_percent_before", "CPU before", "Whole machine, just before the trial."),
    _percent("backend_cpu_percent", "Backend CPU", "Process tree of the backend; 100 = one core."),
    _percent("backend_cpu_percent_mean", "Backend CPU mean", "Mean over the trial's window."),
    _percent("backend_cpu_percent_p95", "Backend CPU p95", "95th percentile of the samples."),
    _percent("backend_cpu_percent_max", "Backend CPU max", "Highest sample of the window."),
    _percent(
        "cpu_steal_percent", "CPU steal", "Share of machine time the hypervisor took.", "lower"
    ),
    _percent("cpu_steal_percent_mean", "CPU steal mean", "Over the trial's window.", "lower"),
    _percent("agent_cpu_percent", "Agent CPU", "fleetmark's own process; 100 = one core.", "lower"),
    Metric("load_1m", "1", "Load 1 min", "neither", "Load average over one minute."),
    Metric("load_5m", "1", "Load 5 min", "neither", "Load average over five minutes."),
    Metric(
        "cpu_freq_hz", "Hz", "Frequency", "neither", "Mean over the cores.", None, "MHz", 1e-6, 0
    ),
    Metric(
        "cpu_freq_hz_min",
        "Hz",
        "Lowest frequency",
        "higher",
        "Lowest sample of the trial's window.",
        None,
        "MHz",
        1e-6,
        0,
    ),
)

_MEMORY = (
    _mib("rss_bytes", "RSS", "Backend's process tree, children included; in a trial, the peak."),
    _mib(
        "rss_file_bytes",
        "RSS file-backed",
        "The part of RSS that is memory-mapped files (mmapped weights).",
        "neither",
    ),
    _mib("pss_bytes", "PSS", "RSS with shared pages divided by their users; in a trial, the peak."),
    _mib("agent_rss_bytes", "Agent RSS", "fleetmark's own process."),
    _mib("mem_total_bytes", "RAM", "Installed memory.", "neither"),
    _mib("mem_available_bytes", "RAM available", "What could be had without swapping.", "higher"),
    _percent(
        "model_cached_percent",
        "Weights cached",
        "Share of the model file that was in the page cache just before the engine was started; "
        "in a cold start only.",
    ),
    _percent("mem_used_percent", "RAM used", "1 - available / total, of the machine.", "lower"),
    _percent("mem_used_percent_mean", "RAM used", "Mean over the trial's window.", "lower"),
    _percent("mem_used_percent_max", "RAM used max", "Highest sample of the window.", "lower"),
    _mib("swap_used_bytes", "Swap used", "Of the machine."),
    _mib("swap_in_bytes", "Swapped in", "Since the sample before; in a trial, over its window."),
)

_WORLD = (
    Metric("temperature_c", "°C", "Temperature", "lower", "Hottest CPU or SoC sensor.", digits=1),
    Metric(
        "temperature_c_max", "°C", "Temperature max", "lower", "Over the trial's window.", digits=1
    ),
    _mib("disk_free_bytes", "Disk free", "Where the agent keeps its state.", "higher"),
    Metric("disk_read_bytes_per_s", "bytes/s", "Disk read", "neither", "All disks."),
    Metric("disk_write_bytes_per_s", "bytes/s", "Disk write", "neither", "All disks."),
    Metric("net_rx_bytes_per_s", "bytes/s", "Net in", "neither", "All interfaces but loopback."),
    Metric("net_tx_bytes_per_s", "bytes/s", "Net out", "neither", "All interfaces but loopback."),
    Metric("power_w", "W", "Power", "lower", "Of the board or package; see the sensor's source."),
    Metric("energy_j", "J", "Energy", "lower", "Over the trial's window; see `energy_source`."),
    Metric(
        "throttled",
        "1",
        "Throttled",
        "lower",
        "1 while the processor is slowed down by its firmware or by heat, its frequency is capped, "
        "or its supply voltage is too low; 0 while none of these. On x86, whether any core's "
        "count of thermal throttling has grown since the sample before. Absent where the machine "
        "does not say.",
        digits=0,
    ),
    Metric(
        "throttled_bits",
        "1",
        "Throttling bits",
        "neither",
        "Raspberry Pi alone, as the firmware gives them (`vcgencmd get_throttled`): bits 0 to 3 "
        "are under-voltage, frequency capped, throttled and soft temperature limit now, bits 16 "
        "to 19 the same at any time since boot.",
        digits=0,
    ),
)

_DELIVERY = (
    Metric(
        "outbox_records",
        "1",
        "Outbox",
        "lower",
        "Records on the device that the collector has not acknowledged yet.",
        digits=0,
    ),
    _percent(
        "outbox_used_percent",
        "Outbox used",
        "Share of the outbox's cap (`outbox.max_bytes`) that these records take. From 90 % on old "
        "telemetry is thinned. Results go in beyond the cap; that still reads as 100.",
        "lower",
    ),
)

_WORTH = (
    Metric(
        "co2_g",
        "g",
        "CO₂",
        "lower",
        "Carbon dioxide (equivalent) of the trial's energy, by the intensity of its electricity "
        "grid. Absent unless energy and intensity are known.",
        "energy_j / 3.6e6 x grid intensity in g/kWh",
        digits=4,
    ),
    Metric(
        "cost_usd",
        "USD",
        "Cost",
        "lower",
        "What the trial cost. Of clients that ask at the same time each has its share of the "
        "round. Absent unless a price is known for the machine.",
        "price per hour x latency_s / 3600",
        digits=6,
    ),
    Metric(
        "eq",
        "1/(USD·s)",
        "EQ",
        "higher",
        "Cheap and fast in one number, as published: it doubles with half the cost, and with half "
        "the latency. A shorter answer is cheaper and faster, so compare it only where the trials "
        "generated the same number of tokens. Absent without `cost_usd` or `latency_s`.",
        "1 / (cost_usd x latency_s)",
        digits=1,
    ),
    Metric(
        "eq_per_token",
        "tokens²/(USD·s)",
        "EQ per token",
        "higher",
        "The same of one token's cost and one token's time, so that a short answer earns nothing. "
        "Absent where `eq` is, and for no tokens.",
        "1 / ((cost_usd / output_tokens) x (latency_s / output_tokens))",
        digits=1,
    ),
)

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*_LATENCY, *_CPU, *_MEMORY, *_WORLD, *_WORTH, *_DELIVERY)
}
"""Every metric by name."""
