"""What a campaign waits for and how far it has been let go, in words and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from fleetmark_collector.campaigns.roles import DeviceKey, KnownDevice
from fleetmark_collector.campaigns.tables import NS, CampaignRow, JobRow
from fleetmark_collector.campaigns.turns import Reason, Turns, Wait, is_out, waits
from fleetmark_collector.campaigns.windows import read_zone, zone_notes
from fleetmark_protocol.jobs import JobState


@dataclass(frozen=True)
class Situation:
    """How a campaign is held back at one moment.

    Attributes:
        now_ns: the moment.
        waits: job id -> what it waits for, of jobs that are not sent yet.
        devices_at_work: devices that have a job of it now.
        jobs_per_minute: what the roll-out lets through by now; None without a limit.
        retried: jobs that were run again.
        notes: what the operator should know of its devices.
    """

    now_ns: int = 0
    waits: Mapping[str, Wait] = field(default_factory=dict)
    devices_at_work: int = 0
    jobs_per_minute: float | None = None
    retried: int = 0
    notes: tuple[str, ...] = ()


def look(
    campaign: CampaignRow, jobs: Sequence[JobRow], devices: Sequence[KnownDevice], now_ns: int
) -> Situation:
    """Return how a campaign is held back now; it goes by the same rules as the dispatcher."""
    retried = sum(job.superseded_by is not None for job in jobs)
    if campaign.state.terminal or campaign.stop_reason is not None:
        return Situation(now_ns, retried=retried)
    there = {(one.fleet, one.device): one for one in devices}
    successes = sum(job.state is JobState.SUCCEEDED for job in jobs)
    rollout = campaign.policy.rollout
    return Situation(
        now_ns,
        waits(Turns(campaign, jobs, there, now_ns), jobs),
        len({(job.fleet, job.device) for job in jobs if is_out(job)}),
        rollout.rate(successes) if rollout is not None else None,
        retried,
        tuple(_notes(campaign, jobs, there)),
    )


def _notes(
    campaign: CampaignRow, jobs: Sequence[JobRow], devices: Mapping[DeviceKey, KnownDevice]
) -> list[str]:
    keys = sorted({(job.fleet, job.device) for job in jobs})
    inventories = [(key[1], devices[key].inventory if key in devices else None) for key in keys]
    return zone_notes(campaign.policy.windows, inventories)


def headlines(campaign: CampaignRow, now_ns: int) -> dict[str, str]:
    """Return what holds for the campaign as a whole: kind -> line."""
    lines = {}
    if campaign.failure is not None:
        lines["aborted"] = f"aborted: {campaign.failure.message}"
    if campaign.state.terminal:
        return lines
    if campaign.paused_ns is not None:
        lines["paused"] = f"paused since {clock(campaign.paused_ns, now_ns)}: no job is sent"
    if campaign.joinable:
        until = clock(campaign.deadline_ns(now_ns), now_ns)
        lines["joinable"] = f"devices that join take part, until {until}"
    return lines


def rollout_line(campaign: CampaignRow, situation: Situation) -> str | None:
    """Return how far the roll-out is; None without one, or when it is over."""
    rollout = campaign.policy.rollout
    if rollout is None or campaign.state.terminal or campaign.stop_reason is not None:
        return None
    parts = []
    at_work = situation.devices_at_work
    if rollout.devices_at_once is not None:
        parts.append(f"{at_work} of at most {rollout.devices_at_once} devices at work")
    else:
        parts.append(f"{at_work} devices at work")
    if situation.jobs_per_minute is not None:
        parts.append(f"{situation.jobs_per_minute:g} jobs per minute")
    return f"roll-out: {', '.join(parts)}"


_WAITING: dict[Reason, str] = {
    "backoff": "{jobs} to be run again{next}",
    "window": "{jobs} for a window to open{next}",
    "too_long": "{jobs} for a window long enough{next}",
    "offline": "{jobs} for their devices to be online",
    "rollout": "{jobs} for the roll-out",
}


def waiting_lines(situation: Situation) -> dict[Reason, str]:
    """Return what jobs wait for, and until when at the earliest, a line for each reason."""
    lines: dict[Reason, str] = {}
    for reason, text in _WAITING.items():
        mine = [wait for wait in situation.waits.values() if wait.reason == reason]
        if not mine:
            continue
        times = [(wait.until_ns, wait.zone) for wait in mine if wait.until_ns is not None]
        first = min(times, key=lambda one: one[0], default=None)
        after = f", the next at {clock(first[0], situation.now_ns, first[1])}" if first else ""
        jobs = f"{len(mine)} job{'s' * (len(mine) != 1)} wait{'s' * (len(mine) == 1)}"
        lines[reason] = text.format(jobs=jobs, next=after)
    return lines


def clock(time_ns: int, now_ns: int, zone: str | None = None) -> str:
    """Return a time as people read it: with its date unless that is today's.

    Args:
        time_ns: which.
        now_ns: says which day is today.
        zone: whose clock to show and to name; None is this machine's own.
    """
    info: ZoneInfo | None = read_zone(zone) if zone is not None else None
    try:
        moment = datetime.fromtimestamp(time_ns / NS, tz=info).astimezone(info)
    except (ValueError, OverflowError, OSError):  # what that is depends on the platform
        return "a time beyond the calendar"
    today = datetime.fromtimestamp(now_ns / NS, tz=info).astimezone(info).date()
    text = f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{text} ({zone})" if zone is not None else text


def situation_json(campaign: CampaignRow, situation: Situation) -> dict[str, object]:
    """Return all of it for programs."""
    policy = campaign.policy
    paused = campaign.paused_ns is not None and not campaign.state.terminal
    return {
        "selection": campaign.selection,
        "paused": paused,
        "paused_ns": campaign.paused_ns,
        # While it is paused the time stands still, and the deadline moves on.
        "deadline_ns": None if paused else campaign.deadline_ns(situation.now_ns),
        "failure": campaign.failure.model_dump() if campaign.failure else None,
        "policy": policy.model_dump(mode="json", exclude_none=True),
        "jobs_per_minute": situation.jobs_per_minute,
        "devices_at_work": situation.devices_at_work,
        "retried": situation.retried,
        "notes": list(situation.notes),
    }


def wait_json(wait: Wait | None) -> dict[str, object] | None:
    """Return what a job waits for, for programs."""
    if wait is None:
        return None
    return {"reason": wait.reason, "until_ns": wait.until_ns, "time_zone": wait.zone}
