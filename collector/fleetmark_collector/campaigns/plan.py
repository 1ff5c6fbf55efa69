"""Expands a campaign into jobs for the devices there are; pure, and the same for the same seed."""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from fleetmark_collector.campaigns.blocks import split
from fleetmark_collector.campaigns.cells import Cell
from fleetmark_collector.campaigns.file import Campaign
from fleetmark_collector.campaigns.prices import find_prices
from fleetmark_collector.campaigns.refusals import cannot_run, too_much, would_refuse
from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.skew import mismatch
from fleetmark_collector.campaigns.targets import choose
from fleetmark_collector.campaigns.windows import zone_notes
from fleetmark_collector.campaigns.yaml_source import Problem
from fleetmark_protocol.codec import describe, encode
from fleetmark_protocol.errors import ConfigError, ContractError
from fleetmark_protocol.messages import Assignment, JobSpec, Options

_AT_COMMIT = re.compile(r"hf://.+@[0-9a-f]{40}")
"""A hub's file that cannot change, whose digest the hub tells each device."""


@dataclass(frozen=True)
class PlannedJob:
    """One cell on one device.

    Attributes:
        trials: that it makes at most; soaks make more.
        refusal: why the device will refuse it, going by its inventory; None if it should not.
        retry_of: the job of an earlier campaign that this one runs again, if it is one.
        block: which part of its cell it is, from 1, and of how many; None for all of it.
        estimate_s: how long it likely takes; None where nothing tells, or nobody asked.
    """

    fleet: str
    device: str
    spec: JobSpec
    trials: int
    refusal: str | None = None
    retry_of: str | None = None
    block: tuple[int, int] | None = None
    estimate_s: float | None = None

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
        """Trials of all jobs at most, warm-ups included."""
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
    prices = find_prices(campaign.cost, chosen.devices, devices)
    problems = [*chosen.problems, *prices.problems]
    jobs: list[PlannedJob] = []
    left_out: list[LeftOut] = []
    numbers: Counter[str] = Counter()  # by id: two fleets may have devices of the same id
    for device in chosen.devices:
        fleet, name = device.fleet, device.device
        lacking = {}
        if campaign.unavailable == "skip":
            lacking = {
                at: LeftOut(fleet, name, one, why)
                for at, one in enumerate(campaign.cells)
                if (why := mismatch(device) or cannot_run(one, device.inventory)) is not None
            }
            left_out += lacking.values()
        for position, cell, block in _in_order(campaign, device):
            if position in lacking:
                continue
            numbers[name] += 1
            job_id = f"{campaign_id}.{name}.{numbers[name]:03d}"
            try:
                spec = _spec(campaign, campaign_id, job_id, cell, prices.of.get((fleet, name)))
            except (ValidationError, ContractError) as error:
                text = describe(error) if isinstance(error, ValidationError) else str(error)
                problems.append(Problem(("matrix",), f"{cell} for {name}: {text}"))
                continue
            refusal = mismatch(device) or cannot_run(cell, device.inventory)
            refusal = refusal or too_much(spec, device.inventory)
            refusal = refusal or would_refuse(cell, device.inventory, devices)
            jobs.append(PlannedJob(fleet, name, spec, cell.trials, refusal, block=block))
    if chosen.devices and not jobs and not problems:
        reasons = "; ".join(sorted({f"{one.device}: {one.reason}" for one in left_out}))
        problems.append(Problem(("unavailable",), f"nothing left to run: {reasons}"))
    return Plan(
        campaign_id,
        tuple(jobs),
        tuple(left_out),
        (*chosen.notes, *_notes(campaign, chosen.devices)),
        tuple(campaign.source.lines(problems)),
    )


def _notes(campaign: Campaign, chosen: Sequence[KnownDevice]) -> Iterator[str]:
    for device in chosen:
        if not device.online:
            yield f"{device.device} is offline: its jobs wait until it is back"
        if device.inventory is None:
            yield f"{device.device} has not said what it has: whether it can run this is unknown"
    inventories = [(device.device, device.inventory) for device in chosen]
    yield from zone_notes(campaign.policy.windows, inventories)
    bare = (cell.model.ref for cell in campaign.cells if cell.model.sha256 is None)
    for ref in dict.fromkeys(bare):
        if not (ref.startswith("path:") or _AT_COMMIT.fullmatch(ref)):
            yield (
                f"{ref} has no sha256: devices may refuse to download it (their owner "
                "decides), and nothing proves that all measure the same file"
            )


def jobs_of(campaign: Campaign) -> list[Cell]:
    """Return what each job of a device measures, as long as nothing is left out for it."""
    if campaign.order != "interleaved":
        return list(campaign.cells)
    return [part for cell in campaign.cells for part in split(cell, campaign.blocks)]


def _in_order(
    campaign: Campaign, device: KnownDevice
) -> Iterator[tuple[int, Cell, tuple[int, int] | None]]:
    """Yield what this device measures, job by job: the cell's position, it or its part, and which.

    An order of its own for each device, and for each round of blocks, keeps what all devices share
    (the time of day, the network) from favouring one cell.
    """
    if campaign.order != "interleaved":
        cells = list(enumerate(campaign.cells))
        if campaign.order == "blocked":
            _shuffle(cells, f"{campaign.seed}/{device.fleet}/{device.device}")
        for position, cell in cells:
            yield position, cell, None
        return
    parted = [split(cell, campaign.blocks) for cell in campaign.cells]
    for number in range(max(map(len, parted))):
        together = [
            (position, parts[number], (number + 1, len(parts)))
            for position, parts in enumerate(parted)
            if number < len(parts)
        ]
        _shuffle(together, f"{campaign.seed}/{device.fleet}/{device.device}/{number}")
        yield from together


def _shuffle(items: list[Any], seed: str) -> None:
    # A text as seed is hashed the same way by every Python.
    random.Random(seed).shuffle(items)  # noqa: S311 - an order, not a secret


def _spec(
    campaign: Campaign, campaign_id: str, job_id: str, cell: Cell, usd_per_hour: float | None
) -> JobSpec:
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
        cool_down=campaign.cool_down,
        usd_per_hour=usd_per_hour,
        resume=campaign.resume,
    )
    encode(Assignment(desired="cancel", job=spec))  # raises if no message can hold it
    return spec
