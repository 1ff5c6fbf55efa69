"""Whether the collector does its work, for load balancers and container health checks. Pure."""

from dataclasses import dataclass
from typing import Any

from fleetmark_collector.tally import Stats
from fleetmark_protocol.errors import FleetmarkError
from fleetmark_protocol.version import __version__


@dataclass(frozen=True)
class Condition:
    """What decides about health, as it is at one moment; nothing that has to be asked for.

    Attributes:
        connected: whether the broker has us.
        trouble: why not, as far as is known.
        failure: why the writer gave up; None while it works.
        stats: what ingest has counted.
    """

    connected: bool
    trouble: str
    failure: FleetmarkError | None
    stats: Stats


def reasons(now: Condition) -> dict[str, str]:
    """Return what is wrong, by the part that it is wrong with; nothing when all is well."""
    found = {}
    if not now.connected:
        found["broker"] = now.trouble or "not connected yet"
    if now.failure is not None:
        found["writer"] = now.failure.message
    if not now.stats.store_available:
        found["store"] = "does not take records; they wait on their devices"
    return found


def body(now: Condition) -> dict[str, Any]:
    """Return what `/healthz` says, as JSON has it."""
    wrong = reasons(now)
    return {
        "status": "unavailable" if wrong else "ok",
        "reasons": [f"{part}: {why}" for part, why in wrong.items()],
        "broker_connected": "broker" not in wrong,
        "writer_alive": "writer" not in wrong,
        "store_available": "store" not in wrong,
        "queue_messages": now.stats.queue_messages,
        "lag_s": now.stats.lag_s,
        "version": __version__,
    }
