"""How long a campaign takes from start to end: side by side, held back, in windows; pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleetmark_collector.campaigns.duration import Span
from fleetmark_collector.campaigns.file import Campaign
from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.rollout import MINUTE_S, Rollout
from fleetmark_collector.campaigns.windows import WEEK_NS, Windows
from fleetmark_collector.campaigns.yaml_source import Problem

NS = 1_000_000_000
MAX_WEEKS = 520
"""What would take more than ten years of windows takes too long, whatever it is."""
LOOK_NS = 8 * WEEK_NS
"""Windows are looked up for so long at once."""


@dataclass(frozen=True)
class Busy:
    """What a device has to do: its jobs in order, each in words and how long it takes."""

    device: KnownDevice
    jobs: tuple[tuple[str, Span], ...]

    @property
    def seconds(self) -> Span:
        """Of all its jobs."""
        return sum((seconds for _, seconds in self.jobs), Span())

    @property
    def longest(self) -> tuple[str, Span]:
        """The job that likely takes longest."""
        return max(self.jobs, key=lambda job: job[1].likely, default=("", Span()))


def from_start_to_end(campaign: Campaign, busy: Sequence[Busy], now_ns: int) -> Span:
    """Return how long the campaign takes: devices work side by side, agents on one machine in turn.

    Args:
        campaign: whose roll-out and windows count.
        busy: its devices.
        now_ns: when it would begin.
    """
    machines: defaultdict[object, list[Busy]] = defaultdict(list)
    for one in busy:
        inventory = one.device.inventory
        machine = inventory.hardware.machine_id if inventory is not None else None
        machines[machine or (one.device.fleet, one.device.device)].append(one)
    windows, rollout = campaign.policy.windows, campaign.policy.rollout
    spans = [_machine_seconds(windows, some, now_ns) for some in machines.values()]
    spans.append(_held_back(rollout, busy))
    return Span(
        max(span.low for span in spans),
        max(span.likely for span in spans),
        max(span.high for span in spans),
    )


def _machine_seconds(windows: Windows | None, agents: Sequence[Busy], now_ns: int) -> Span:
    """Return how long a machine takes, with the hours in which its windows are closed."""
    if windows is None:
        return sum((one.seconds for one in agents), Span())
    jobs = [seconds for one in agents for _, seconds in one.jobs]
    device = agents[0].device
    return Span(
        _until_done(windows, device, [one.low for one in jobs], now_ns),
        _until_done(windows, device, [one.likely for one in jobs], now_ns),
        _until_done(windows, device, [one.high for one in jobs], now_ns),
    )


def _until_done(
    windows: Windows, device: KnownDevice, jobs_s: Sequence[float], now_ns: int
) -> float:
    """Return how long it takes if a job waits for the next window that does not fit into this one.

    One that fits into none is begun all the same.
    """
    longest_s = windows.longest_s(windows.zone_of(device.inventory).info, now_ns)
    openings = _all_openings(windows, device, now_ns)
    at_ns, closes_ns = now_ns, now_ns
    for job_s in jobs_s:
        while at_ns >= closes_ns or job_s * NS > closes_ns - at_ns:
            if at_ns < closes_ns and job_s > longest_s:
                break
            opening = next(openings, None)
            if opening is None:
                return MAX_WEEKS * WEEK_NS / NS
            at_ns, closes_ns = max(opening[0], at_ns), opening[1]
        at_ns += int(job_s * NS)
    return (at_ns - now_ns) / NS


def _all_openings(windows: Windows, device: KnownDevice, now_ns: int) -> Iterator[tuple[int, int]]:
    zone = windows.zone_of(device.inventory).info
    for start_ns in range(now_ns, now_ns + MAX_WEEKS * WEEK_NS, LOOK_NS):
        yield from windows.openings(zone, start_ns, start_ns + LOOK_NS)


def _held_back(rollout: Rollout | None, busy: Sequence[Busy]) -> Span:
    """Return how long it takes at least by what the roll-out allows."""
    if rollout is None or not busy:
        return Span()
    seconds = Span()
    if rollout.devices_at_once is not None:
        together = min(rollout.devices_at_once, len(busy))
        seconds = sum((one.seconds for one in busy), Span()).times(1 / together)
    sent_s = 0.0
    rate = rollout.jobs_per_minute
    if rate is not None:
        # With a rate that grows it is the largest that counts: it takes no less than that.
        top = rollout.growth.jobs_per_minute_max if rollout.growth is not None else rate
        sent_s = (sum(len(one.jobs) for one in busy) - 1) * MINUTE_S / top
    return Span(max(seconds.low, sent_s), max(seconds.likely, sent_s), max(seconds.high, sent_s))


def beyond_windows(
    campaign: Campaign, busy: Sequence[Busy], seconds: Span, now_ns: int
) -> Iterator[Problem]:
    """Find what does not fit into the windows of a campaign."""
    windows = campaign.policy.windows
    if windows is None:
        return
    late: list[tuple[Busy, float]] = []
    for one in busy:
        open_s = windows.longest_s(windows.zone_of(one.device.inventory).info, now_ns)
        if one.longest[1].likely > open_s:
            late.append((one, open_s))
    if late:
        one, open_s = max(late, key=lambda item: item[0].longest[1].likely)
        words, job = one.longest
        outcome = "never end" if windows.at_end == "cancel" else "go on past its window"
        text = (
            f"{words} on {one.device.device} would take about {job.likely:.0f} s ({job.low:.0f} to "
            f"{job.high:.0f} s) and {outcome}: no window is longer than {open_s:.0f} s"
        )
        yield Problem(("windows", "times"), text)
    if seconds.likely > campaign.campaign_s:
        text = (
            f"within its windows the campaign would take about {seconds.likely:.0f} s "
            f"({seconds.low:.0f} to {seconds.high:.0f} s) from start to end, more than "
            f"timeouts.campaign_s ({campaign.campaign_s:g} s)"
        )
        yield Problem(("windows",), text)
