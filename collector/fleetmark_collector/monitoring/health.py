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
        leader_pid: of the collector that leads, while this one waits; None when it is this one.
    """

    connected: bool
    trouble: str
    failure: FleetmarkError | None
    stats: Stats
    leader_pid: int | None = None


def reasons(now: Condition) -> dict[str, str]:
    """Return what is wrong, by the part that it is wrong with; nothing when all is well.

    With one that waits as standby all is well: it needs neither broker nor store yet.
    """
    found: dict[str, str] = {}
    if now.leader_pid is not None:
        return found
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
    standby = now.leader_pid is not None
    return {
        "status": "unavailable" if wrong else "standby" if standby else "ok",
        **({"leader_pid": now.leader_pid} if standby else {}),
        "reasons": [f"{part}: {why}" for part, why in wrong.items()],
        "broker_connected": now.connected,
        "writer_alive": "writer" not in wrong,
        "store_available": "store" not in wrong,
        "queue_messages": now.stats.queue_messages,
        "lag_s": now.stats.lag_s,
        "version": __version__,
    }
