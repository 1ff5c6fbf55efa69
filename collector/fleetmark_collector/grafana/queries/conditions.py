"""Who is meant, and which trials count: the parts that queries share."""

from collections.abc import Sequence

from fleetmark_collector.grafana.influxql import chosen, literal, name

DEVICE = ("fleet", "device")
"""What tells devices apart."""

CELL = (*DEVICE, "campaign_id", "backend", "model", "quantization", "workload", "options")
"""What tells cells apart. Every comparison keeps all of them apart, so that no figure ever mixes
two cells; the variables above a dashboard only narrow down."""

CELL_LABEL = ("device", "backend", "model", "quantization", "workload", "options")
"""What a cell is called where its campaign is known."""

THESE_DEVICES = (chosen("fleet"), chosen("device"))
THIS_CAMPAIGN = (chosen("campaign_id", "campaign"),)
THESE_CELLS = (
    *THIS_CAMPAIGN,
    *THESE_DEVICES,
    chosen("backend"),
    chosen("model"),
    chosen("quantization"),
)
THIS_COLLECTOR = (chosen("collector"),)

NOT_INVALID = f"{name('verdict')} != {literal('INVALID')}"
NOT_WARMUP = f"{name('warmup')} = false"
COUNTED = (NOT_INVALID, NOT_WARMUP)
"""Which trials figures are made of, as in the report."""


def tag_values(tag: str, *measurements: str, where: Sequence[str] = ()) -> str:
    """Return what lists the values of a tag, for a template variable."""
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    sources = ", ".join(map(name, measurements))
    return f"SHOW TAG VALUES FROM {sources} WITH KEY = {name(tag)}{condition}"
