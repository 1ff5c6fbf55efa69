"""Expands a campaign into jobs for the devices there are; pure, and the same for the same seed."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from fleetmark_collector.campaigns.cells import Cell
from fleetmark_collector.campaigns.file import Campaign
from fleetmark_collector.campaigns.refusals import cannot_run, would_refuse
from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.targets import choose
from fleetmark_collector.campaigns.yaml_source import Problem
from fleetmark_protocol.codec import describe, encode
from fleetmark_protocol.errors import ConfigError, ContractError
from fleetmark_protocol.messages import Assignment, JobSpec, Options


@dataclass(frozen=True)
class PlannedJob:
    """One cell on one device.

    Attributes:
        refusal: why the device will refuse it, going by its inventory; None if it should not.
        retry_of: the job of an earlier campaign that this one runs again, if it is one.
    """

    fleet: str
    device: str
    spec: JobSpec
    trials: int
    refusal: str | None = None
    retry_of: str | None = None

    @property
    def cell(self) -> Cell:
        """What the job measures."""
        spec = self.spec
        return Cell(spec.backend, spec.model, dict(spec.labels), spec.workloads)


@dataclass(frozen=True)
class LeftOut:
    """A cell that is not planned for a device, because the campaign says `unavailable: skip`."""

    fleet: str
    device: str
    cell: Cell
    reason: str


@dataclass(frozen=True)
class Plan:
    """The jobs of a campaign in the order each device runs them.

    Attributes:
        problems: why it cannot be run; empty if it can.
        notes: what the operator should know.
    """

    campaign_id: str
    jobs: tuple[PlannedJob, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def trials(self) -> int:
        """Trials of all jobs, warm-ups included."""
        return sum(job.trials for job in self.jobs)

    def check(self) -> None:
        """Let it pass only if it can be run.

        Raises:
            ConfigError: all problems, a line each.
        """
        if self.problems:
            raise ConfigError("\n".join(self.problems))


def new_campaign_id(name: str, time_ns: int) -> str:
    """Return the id of a campaign started now: its name and the time in UTC."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, tz=UTC)
    return f"{name}-{moment:%Y%m%d-%H%M%S}"


def make_plan(campaign: Campaign, campaign_id: str, devices: Sequence[KnownDevice]) -> Plan:
    """Return the jobs; what stands against running them is told in `problems`.

    Args:
        campaign: what to run.
        campaign_id: a name that no other campaign has.
        devices: all that the collector knows, in any order.
    """
    chosen = choose(campaign.targets, campaign.seed, devices, campaign.source)
    problems = list(chosen.problems)
    jobs: list[PlannedJob] = []
    left_out: list[LeftOut] = []
    numbers: Counter[str] = Counter()  # by id: two fleets may have devices of the same id
    for device in chosen.devices:
        for cell in _ordered(campaign, device):
            missing = cannot_run(cell, device.inventory)
            if missing is not None and campaign.unavailable == "skip":
                left_out.append(LeftOut(device.fleet, device.device, cell, missing))
                continue
            numbers[device.device] += 1
            job_id = f"{campaign_id}.{device.device}.{numbers[device.device]:03d}"
            try:
                spec = _spec(campaign, campaign_id, job_id, cell)
            except (ValidationError, ContractError) as error:
                text = describe(error) if isinstance(error, ValidationError) else str(error)
                problems.append(Problem(("matrix",), f"{cell} for {device.device}: {text}"))
                continue
            refusal = missing or would_refuse(cell, device.inventory, devices)
            jobs.append(PlannedJob(device.fleet, device.device, spec, cell.trials, refusal))
    if chosen.devices and not jobs and not problems:
        reasons = "; ".join(sorted({f"{one.device}: {one.reason}" for one in left_out}))
        problems.append(Problem(("unavailable",), f"nothing left to run: {reasons}"))
    return Plan(
        campaign_id,
        tuple(jobs),
        tuple(left_out),
        tuple(_notes(campaign, chosen.devices)),
        tuple(campaign.source.lines(problems)),
    )


def _notes(campaign: Campaign, chosen: Sequence[KnownDevice]) -> Iterator[str]:
    for device in chosen:
        if not device.online:
            yield f"{device.device} is offline: its jobs wait until it is back"
        if device.inventory is None:
            yield f"{device.device} has not said what it has: whether it can run this is unknown"
    bare = (cell.model.ref for cell in campaign.cells if cell.model.sha256 is None)
    for ref in dict.fromkeys(bare):
        if not ref.startswith("path:"):
            yield (
                f"{ref} has no sha256: devices may refuse to download it (their owner "
                "decides), and nothing proves that all measure the same file"
            )


def _ordered(campaign: Campaign, device: KnownDevice) -> list[Cell]:
    """Return the combinations in the order that this device runs them."""
    cells = list(campaign.cells)
    if campaign.order == "shuffled":
        # A text as seed is hashed the same way by every Python; an order of its own per device
        # keeps what all devices share (the time of day, the network) from favouring one cell.
        seed = f"{campaign.seed}/{device.fleet}/{device.device}"
        random.Random(seed).shuffle(cells)  # noqa: S311 - an order, not a secret
    return cells


def _spec(campaign: Campaign, campaign_id: str, job_id: str, cell: Cell) -> JobSpec:
    spec = JobSpec(
        job_id=job_id,
        campaign_id=campaign_id,
        backend=cell.backend,
        model=cell.model,
        options=Options.model_validate(cell.labels),
        labels=cell.labels,
        workloads=cell.workloads,
        timeouts=campaign.timeouts,
        quiet_gate=campaign.quiet_gate,
        resume=campaign.resume,
    )
    encode(Assignment(desired="cancel", job=spec))  # raises if no message can hold it
    return spec
