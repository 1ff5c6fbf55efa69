"""What the collector knows, as points for dashboards to draw. Pure: asks nobody, writes nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.campaigns.view import View
from fleetmark_collector.devices import Device
from fleetmark_collector.sinks.base import Point
from fleetmark_collector.tally import Stats
from fleetmark_protocol.jobs import JobState

NS = 10**9

Fields = dict[str, int | float | bool | str]

FAILED = (JobState.FAILED, JobState.TIMED_OUT, JobState.REJECTED)
"""How a job ends that something is wrong with; one that was canceled did what it was told."""


@dataclass(frozen=True)
class Snapshot:
    """What takes a look into a file, so that it is not looked up for every scrape.

    Attributes:
        devices_known: devices that have ever been heard of, and were not forgotten.
        devices_online: those whose last status says so.
        campaigns: by state, all of them.
        jobs: by state, of the campaigns that run.
    """

    devices_known: int = 0
    devices_online: int = 0
    campaigns: Mapping[CampaignState, int] = field(default_factory=dict)
    jobs: Mapping[JobState, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How the collector stood at one moment.

    Attributes:
        stats: what ingest has counted.
        mono_s: when, on the monotonic clock.
        connected: whether the broker has us.
        write_s_max: the longest write since the reading before; 0 where there was none.
    """

    stats: Stats
    mono_s: float
    connected: bool
    write_s_max: float = 0.0


def device_points(devices: Iterable[Device], now_ns: int) -> list[Point]:
    """Return a point for each device: whether it is there, since when not, and what it is."""
    return [
        Point(
            "device",
            {"fleet": one.fleet, "device": one.device},
            _device_fields(one, now_ns),
            now_ns,
        )
        for one in devices
    ]


def _device_fields(device: Device, now_ns: int) -> Fields:
    fields: Fields = {"online": int(device.online)}
    if device.last_seen_ns is not None:
        # A clock that was set back must not make a device be heard in the future.
        fields["silent_s"] = max(0.0, (now_ns - device.last_seen_ns) / NS)
    inventory = device.inventory
    if device.status is not None:
        fields["agent_version"] = device.status.agent_version
    elif inventory is not None:
        fields["agent_version"] = inventory.agent_version
    if inventory is None:
        return fields
    hardware = inventory.hardware
    backends = sorted(one.name for one in inventory.backends if one.available)
    known = {
        "arch": hardware.arch,
        "board": hardware.board,
        "cpu_model": hardware.cpu_model,
        "os": hardware.os,
        "kernel": hardware.kernel,
        "cores_physical": hardware.cores_physical,
        "cores_logical": hardware.cores_logical,
        "mem_total_bytes": hardware.mem_total_bytes,
        "tags": " ".join(inventory.tags),
        "backends": " ".join(backends),
    }
    return fields | {name: value for name, value in known.items() if value not in (None, "")}


def collector_point(
    host: str, now: Reading, before: Reading | None, devices: Iterable[Device], now_ns: int
) -> Point:
    """Return how the collector does; rates and write times are over the time since `before`.

    Args:
        host: of the collector.
        now: its newest reading.
        before: the reading before; None for none, and then there are no rates.
        devices: all that are known.
        now_ns: the time of the point.
    """
    stats = now.stats
    known = list(devices)
    fields: Fields = {
        "messages": stats.messages,
        "messages_dropped": stats.messages_dropped,
        "messages_dead": stats.messages_dead,
        "messages_refused": stats.messages_refused,
        "records_written": stats.records_written,
        "records_dead": stats.records_dead,
        "records_deferred": stats.records_deferred,
        "queue_messages": stats.queue_messages,
        "lag_s": float(stats.lag_s),
        "store_available": int(stats.store_available),
        "broker_connected": int(now.connected),
        "devices_known": len(known),
        "devices_online": sum(one.online for one in known),
    }
    if before is not None and now.mono_s > before.mono_s:
        written = stats.records_written - before.stats.records_written
        fields["records_per_s"] = written / (now.mono_s - before.mono_s)
        writes = stats.writes - before.stats.writes
        if writes > 0:
            took_s = stats.write_s_total - before.stats.write_s_total
            fields["write_s_mean"] = took_s / writes
            fields["write_s_max"] = float(now.write_s_max)
    return Point("collector", {"collector": host}, fields, now_ns)


def campaign_point(view: View, now_ns: int) -> Point:
    """Return how far a campaign is; one that has ended says so at the time of its end."""
    campaign, by_state = view.campaign, view.by_state
    ended = sum(number for state, number in by_state.items() if state.terminal)
    failed = sum(by_state[state] for state in FAILED)
    planned = view.trials_planned
    fields: Fields = {
        "name": campaign.name,
        "state": campaign.state.value,
        "jobs": len(view.jobs),
        **{f"jobs_{state.value.lower()}": by_state[state] for state in JobState},
        "trials": view.trials_stored,
        "trials_planned": planned,
        "progress_percent": 100.0 * view.trials_settled / planned if planned else 100.0,
    }
    if ended:
        fields["failed_percent"] = 100.0 * failed / ended
    time_ns = campaign.finished_ns if campaign.finished_ns is not None else now_ns
    return Point("campaign", {"campaign_id": campaign.campaign_id}, fields, time_ns)
