"""How long a plan takes and what it costs, how sure that is, and what it is founded on; pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from fleetmark_collector.campaigns.duration import JobTime, Span, job_time, soaks_s
from fleetmark_collector.campaigns.elapsed import Busy, beyond_windows, from_start_to_end
from fleetmark_collector.campaigns.file import Campaign
from fleetmark_collector.campaigns.guess import guessed_pace, kind_of
from fleetmark_collector.campaigns.history import History
from fleetmark_collector.campaigns.overrun import Unknown, beyond_limits, unsure_limits
from fleetmark_collector.campaigns.pace import Pace
from fleetmark_collector.campaigns.plan import Plan, PlannedJob
from fleetmark_collector.campaigns.prices import DeviceKey, find_prices
from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.sizes import weights_of
from fleetmark_collector.campaigns.windows import zone_notes


class Basis(StrEnum):
    """What an estimate is founded on; the first that there is counts."""

    SAME_DEVICE = "same device"
    SAME_KIND = "same kind of device"
    MODEL_SIZE = "model size"
    UNKNOWN = "unknown"
    REFUSED = "refused"


WIDTH = {Basis.SAME_DEVICE: 1.25, Basis.SAME_KIND: 1.6, Basis.MODEL_SIZE: 4.0}
"""An estimate may be off by this factor, either way; more where earlier trials varied more."""


@dataclass(frozen=True)
class JobEstimate:
    """How long a job takes.

    Attributes:
        seconds: None where nothing tells.
        because: what the estimate is founded on, or why there is none.
    """

    job: PlannedJob
    basis: Basis
    seconds: Span | None
    because: str

    @property
    def known(self) -> Span:
        """What is known of it: without an estimate, that its soaks last as long as they say."""
        if self.seconds is not None:
            return self.seconds
        least_s = soaks_s(self.job.spec)
        return Span(least_s, least_s, least_s)


@dataclass(frozen=True)
class DeviceEstimate:
    """How long a device is busy.

    Attributes:
        jobs: its jobs, those that would be refused included.
        seconds: of what is known of them: no more than the least where some have no estimate.
        unknown: how many have none.
        usd_per_hour: None where no price is known.
    """

    fleet: str
    device: str
    jobs: tuple[JobEstimate, ...]
    seconds: Span
    unknown: int
    usd_per_hour: float | None

    @property
    def usd(self) -> Span | None:
        """What its own jobs cost."""
        return None if self.usd_per_hour is None else self.seconds.times(self.usd_per_hour / 3600)

    @property
    def bases(self) -> Counter[Basis]:
        """How many jobs have which basis."""
        return Counter(job.basis for job in self.jobs)


@dataclass(frozen=True)
class Estimate:
    """How long a campaign takes, if all its devices are there from the start.

    Attributes:
        seconds: from start to end: devices work side by side, but agents on one machine in turn.
        usd: of all devices; None where no price is known.
        over: what goes beyond the campaign's limits, a line each.
        unsure: limits that are kept as far as is known, but some jobs have no estimate.
    """

    devices: tuple[DeviceEstimate, ...]
    seconds: Span
    usd: Span | None
    over: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def unknown(self) -> int:
        """How many jobs have no estimate: with any, `seconds` is no more than the least."""
        return sum(one.unknown for one in self.devices)

    @property
    def unknown_cost(self) -> int:
        """How many of them cost something: with any, `usd` is no more than the least."""
        return sum(one.unknown for one in self.devices if one.usd_per_hour)


def estimate_plan(
    campaign: Campaign,
    plan: Plan,
    known: Sequence[KnownDevice],
    history: History,
    now_ns: int = 0,
) -> Estimate:
    """Return how long a plan takes.

    Args:
        campaign: what is planned.
        plan: its jobs.
        known: all devices there are.
        history: what earlier campaigns tell.
        now_ns: when it would begin; counts where the campaign has windows.
    """
    there = {(one.fleet, one.device): one for one in known}
    jobs: defaultdict[DeviceKey, list[JobEstimate]] = defaultdict(list)
    for job in plan.jobs:
        jobs[job.fleet, job.device].append(_job(job, there, known, history))
    prices = find_prices(campaign.cost, [there[key] for key in jobs], known)
    devices = tuple(_device(key, mine, prices.of.get(key)) for key, mine in jobs.items())
    busy = [_busy(one, there[one.fleet, one.device]) for one in devices]
    seconds = from_start_to_end(campaign, busy, now_ns)
    costs = [one.usd for one in devices if one.usd is not None]
    usd = sum(costs, Span()) if costs else None
    unknown = list(_unknown(devices))
    over = [
        *beyond_limits(campaign.limits, seconds, usd, unknown),
        *beyond_windows(campaign, busy, seconds, now_ns),
    ]
    unsure = unsure_limits(campaign.limits, seconds, usd, unknown)
    return Estimate(
        devices,
        seconds,
        usd,
        tuple(campaign.source.lines(over)),
        tuple(campaign.source.lines(list(unsure))),
        (*prices.notes, *_zones(campaign, busy), *_notes(campaign, devices, seconds)),
    )


def _device(key: DeviceKey, jobs: Sequence[JobEstimate], price: float | None) -> DeviceEstimate:
    seconds = sum((one.known for one in jobs), Span())
    return DeviceEstimate(
        *key, tuple(jobs), seconds, sum(one.seconds is None for one in jobs), price
    )


def _busy(one: DeviceEstimate, device: KnownDevice) -> Busy:
    sent = [job for job in one.jobs if job.basis is not Basis.REFUSED]
    return Busy(device, tuple((str(job.job.cell), job.known) for job in sent))


# --- one job -----------------------------------------------------------------------------------


def _job(
    job: PlannedJob,
    there: Mapping[DeviceKey, KnownDevice],
    known: Sequence[KnownDevice],
    history: History,
) -> JobEstimate:
    if job.refusal is not None:
        return JobEstimate(job, Basis.REFUSED, Span(), "it is refused before it starts")
    cell, inventory = str(job.cell), there[job.fleet, job.device].inventory
    own = history.paces.get((job.fleet, job.device, cell))
    if own is not None:
        return _measured(job, Basis.SAME_DEVICE, [own], [job.device], history)
    if inventory is None:
        return JobEstimate(job, Basis.UNKNOWN, None, "the device has not said what it is")
    alike = {
        one.device: pace
        for one in known
        if one.inventory is not None
        and kind_of(one.inventory.hardware) == kind_of(inventory.hardware)
        and (pace := history.paces.get((one.fleet, one.device, cell))) is not None
    }
    if alike:
        return _measured(job, Basis.SAME_KIND, list(alike.values()), list(alike), history)
    weights = weights_of(job.cell, known)
    if weights is None:
        because = f"nothing tells how large {job.spec.model.name} is"
        return JobEstimate(job, Basis.UNKNOWN, None, because)
    pace = guessed_pace(inventory.hardware, weights, job.spec.options.threads)
    told = "as a device has it" if weights.known else "going by its name"
    because = f"{weights.bytes / 1e6:.0f} MB of weights, {told}"
    time = job_time(job.spec, pace, history.prompt_tokens)
    span = _span(Basis.MODEL_SIZE, [(time, 1.0, 1.0)])
    return JobEstimate(job, Basis.MODEL_SIZE, span, because)


def _measured(
    job: PlannedJob,
    basis: Basis,
    paces: Sequence[Pace],
    devices: Sequence[str],
    history: History,
) -> JobEstimate:
    jobs, trials = sum(one.jobs for one in paces), sum(one.trials for one in paces)
    because = f"{trials} trials of {jobs} job{'s' * (jobs != 1)} on {', '.join(sorted(devices))}"
    tokens = history.prompt_tokens
    seen = [(job_time(job.spec, one, tokens), one.low, one.high) for one in paces]
    return JobEstimate(job, basis, _span(basis, seen), because)


def _span(basis: Basis, seen: Sequence[tuple[JobTime, float, float]]) -> Span:
    """Return an estimate as wide as its basis is known to be, or as what was seen if wider."""
    width = WIDTH[basis]
    low = min(
        median(time.paced.low for time, _, _ in seen) / width,
        *(time.paced.low * low for time, low, _ in seen),
    )
    high = max(
        median(time.paced.high for time, _, _ in seen) * width,
        *(time.paced.high * high for time, _, high in seen),
    )
    likely = median(time.paced.likely for time, _, _ in seen)
    fixed_s = seen[0][0].fixed_s
    return Span(low + fixed_s, likely + fixed_s, high + fixed_s)


# --- what to say about it ----------------------------------------------------------------------


def _unknown(devices: Iterable[DeviceEstimate]) -> Iterator[Unknown]:
    for one in devices:
        for job in one.jobs:
            if job.seconds is None:
                words = f"{job.job.cell} on {one.device}"
                yield Unknown(words, job.because, priced=bool(one.usd_per_hour))


def _zones(campaign: Campaign, busy: Iterable[Busy]) -> list[str]:
    devices = [(one.device.device, one.device.inventory) for one in busy]
    return zone_notes(campaign.policy.windows, devices)


def _notes(campaign: Campaign, devices: Iterable[DeviceEstimate], seconds: Span) -> Iterator[str]:
    jobs = [job for one in devices for job in one.jobs]
    unknown: defaultdict[str, list[JobEstimate]] = defaultdict(list)
    for job in jobs:
        if job.seconds is None:
            unknown[job.because].append(job)
    for because, some in unknown.items():
        soaks = any(job.known.likely for job in some)
        what = "all but their soaks comes" if soaks else "they come"
        yield (
            f"no estimate for {len(some)} job(s), {because}: {what} on top, "
            f"{campaign.timeouts.job_s:g} s each at most"
        )
    if campaign.cool_down is not None:
        yield (
            f"waiting for {campaign.cool_down.temperature_c:g} °C before each "
            f"{campaign.cool_down.before} comes on top, {campaign.cool_down.timeout_s:g} s each "
            "time at most"
        )
    limit_s = campaign.timeouts.job_s
    late = [job for job in jobs if job.known.likely > limit_s]
    if late:
        first = late[0].job
        yield (
            f"{len(late)} job(s) would take longer than timeouts.job_s ({limit_s:g} s) and be "
            f"TIMED_OUT, such as {first.cell} on {first.device}"
        )
    if seconds.likely > campaign.campaign_s and campaign.policy.windows is None:
        yield (
            f"would take about {seconds.likely:.0f} s, longer than timeouts.campaign_s "
            f"({campaign.campaign_s:g} s): what is not done by then is given up"
        )
