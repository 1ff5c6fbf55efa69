"""How Grafana shows our units: what `metrics.py` says, in the words that Grafana knows."""

from typing import Final

from fleetmark_protocol.metric import Metric, Unit
from fleetmark_protocol.metrics import METRICS

UNITS: Final[dict[Unit, str]] = {
    "s": "s",
    "bytes": "bytes",
    "bytes/s": "binBps",
    "%": "percent",
    "tokens/s": "suffix: tokens/s",
    "tokens": "suffix: tokens",
    "Hz": "hertz",
    "°C": "celsius",
    "W": "watt",
    "J": "joule",
    "g": "massg",
    "USD": "currencyUSD",
    "1/(USD·s)": "suffix: 1/(USD·s)",
    "tokens²/(USD·s)": "suffix: tokens²/(USD·s)",
    "1": "short",
}
"""Unit of a metric -> Grafana's id of a unit. Grafana itself takes milli, kilo, mebi as fits."""

COUNT: Final = "short"
SECONDS: Final = "s"
PERCENT: Final = "percent"
PER_SECOND: Final = "cps"
TEXT: Final = "string"


def unit_of(metric: Metric) -> str:
    """Return how Grafana shall show a metric."""
    return UNITS[metric.unit]


def metric(name: str) -> Metric:
    """Return a metric of the protocol by the name of its field."""
    return METRICS[name]
