"""Expands a campaign into jobs for the devices there are; pure, and the same for the same seed."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from fleetmark_collector.campaigns.file import Campaign
from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_protocol.codec import describe, encode
from fleetmark_protocol.errors import ConfigError, ContractError
from fleetmark_protocol.messages import Assignment, Inventory, JobSpec, ModelSpec, Options, Workload
from fleetmark_protocol.records import Scalar
from fleetmark_protocol.settings import suggestion


@dataclass(frozen=True)
class Cell:
    """One combination of the matrix."""

    backend: str
    model: ModelSpec
    labels: dict[str, Scalar]
    workloads: tuple[Workload, ...] = ()

    @property
    def trials(self) -> int:
        """Trials that a job makes of it, warm-ups included."""
        return count_trials(self.workloads)

    def __str__(self) -> str:
        options = " ".join(f"{name}={value}" for name, value in self.labels.items())
        parts = (self.backend, self.model.name, self.model.quantization, options)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class PlannedJob:
    """One cell on one device.

    Attributes:
        refusal: why the device will refuse it, going by its inventory; None if it should not.
    """

    fleet: str
    device: str
    spec: JobSpec
    trials: int
    refusal: str | None = None

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


def count_trials(workloads: Sequence[Workload]) -> int:
    """Return how many trials a job with these workloads makes, warm-ups included.

    A warm-up asks the first prompt only, a repetition all of them.
    """
    return sum(one.warmup + one.repetitions * len(one.prompts) for one in workloads)


def make_cells(campaign: Campaign) -> list[Cell]:
    """Return the combinations of the matrix in the order that the file lists them."""
    return [
        Cell(
            choice.backend,
            spec,
            dict(zip(choice.options, values, strict=True)),
            choice.workloads,
        )
        for choice in campaign.choices
        for model, quantization in itertools.product(choice.models, choice.quantizations)
        if (spec := model.spec(quantization)) is not None
        for values in itertools.product(*choice.options.values())
    ]


def make_plan(campaign: Campaign, campaign_id: str, devices: Sequence[KnownDevice]) -> Plan:
    """Return the jobs; what stands against running them is told in `problems`.

    Args:
        campaign: what to run.
        campaign_id: a name that no other campaign has.
        devices: all that the collector knows, in any order.
    """
    known = sorted(devices, key=lambda one: (one.fleet, one.device))
    chosen = [device for device in known if _is_target(campaign, device)]
    problems = list(_target_problems(campaign, known))
    notes = list(_notes(campaign, chosen))
    jobs: list[PlannedJob] = []
    left_out: list[LeftOut] = []
    numbers: Counter[str] = Counter()  # by id: two fleets may have devices of the same id
    for device in chosen:
        for cell in _ordered(campaign, device):
            missing = _cannot_run(cell, device.inventory)
            if missing is not None and campaign.unavailable == "skip":
                left_out.append(LeftOut(device.fleet, device.device, cell, missing))
                continue
            numbers[device.device] += 1
            job_id = f"{campaign_id}.{device.device}.{numbers[device.device]:03d}"
            try:
                spec = _spec(campaign, campaign_id, job_id, cell)
            except (ValidationError, ContractError) as error:
                text = describe(error) if isinstance(error, ValidationError) else str(error)
                problems.append(f"{campaign.file}: {cell} for {device.device}: {text}")
                continue
            refusal = missing or _refused_source(cell.model, device.inventory)
            jobs.append(PlannedJob(device.fleet, device.device, spec, cell.trials, refusal))
    if chosen and not jobs and not problems:
        reasons = "; ".join(sorted({f"{one.device}: {one.reason}" for one in left_out}))
        problems.append(f"{campaign.file}: nothing left to run: {reasons}")
    return Plan(campaign_id, tuple(jobs), tuple(left_out), tuple(notes), tuple(problems))


def _is_target(campaign: Campaign, device: KnownDevice) -> bool:
    targets = campaign.targets
    return (
        targets.all
        or device.device in targets.devices
        or device.fleet in targets.fleets
        or not _tags(device).isdisjoint(targets.tags)
    )


def _tags(device: KnownDevice) -> set[str]:
    return set(device.inventory.tags) if device.inventory else set()


def _target_problems(campaign: Campaign, known: Sequence[KnownDevice]) -> Iterator[str]:
    """Find targets that are not there: a typing mistake must not make a campaign smaller."""
    if not known:
        yield (
            f"{campaign.file}: targets: the collector knows no devices yet (start `fleetmark "
            "collect` and the agents; `fleetmark devices` lists those that have reported)"
        )
        return
    targets = campaign.targets
    there = {
        "devices": ("device", targets.devices, {one.device for one in known}),
        "tags": ("tag", targets.tags, {tag for one in known for tag in _tags(one)}),
        "fleets": ("fleet", targets.fleets, {one.fleet for one in known}),
    }
    for key, (what, wanted, names) in there.items():
        for name in wanted:
            if name not in names:
                hint = suggestion(name, sorted(names)) or f" (no device has any {what})"
                yield f"{campaign.file}: targets.{key}: no {what} {name!r}{hint}"


def _notes(campaign: Campaign, chosen: Sequence[KnownDevice]) -> Iterator[str]:
    for device in chosen:
        if not device.online:
            yield f"{device.device} is offline: its jobs wait until it is back"
        if device.inventory is None:
            yield f"{device.device} has not said what it has: whether it can run this is unknown"
    bare = (cell.model.ref for cell in make_cells(campaign) if cell.model.sha256 is None)
    for ref in dict.fromkeys(bare):
        if not ref.startswith("path:"):
            yield (
                f"{ref} has no sha256: devices may refuse to download it (their owner "
                "decides), and nothing proves that all measure the same file"
            )


def _ordered(campaign: Campaign, device: KnownDevice) -> list[Cell]:
    """Return the combinations in the order that this device runs them."""
    cells = make_cells(campaign)
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


def _cannot_run(cell: Cell, inventory: Inventory | None) -> str | None:
    """Return why the device cannot run a cell's engine so, or None if it can or nobody knows."""
    if inventory is None:
        return None
    inner = cell.labels.get("inner_backend")
    for name in (cell.backend, inner):
        missing = _missing_backend(name, inventory) if isinstance(name, str) else None
        if missing is not None:
            return missing
    return _option_not_taken(cell, inventory)


def _missing_backend(backend: str, inventory: Inventory) -> str | None:
    info = next((one for one in inventory.backends if one.name == backend), None)
    if info is None:
        have = [one.name for one in inventory.backends]
        return f"backend {backend!r} is not known there{suggestion(backend, have)}"
    if not info.available:
        hint = f" ({info.hint})" if info.hint else ""
        reason = info.reason or "no reason given"
        return f"backend {backend!r} is not available there: {reason}{hint}"
    allowed = inventory.allowed_backends
    if allowed and "*" not in allowed and backend not in allowed:
        return f"backend {backend!r} is not allowed by the device's owner"
    return None


def _option_not_taken(cell: Cell, inventory: Inventory) -> str | None:
    """Say which options the engine would not honour; agents that do not tell are not judged."""
    takes = next((one.takes for one in inventory.backends if one.name == cell.backend), ())
    default = Options().model_dump()
    refused = [
        name
        for name, value in cell.labels.items()
        if name not in takes and value is not None and value != default.get(name)
    ]
    if not takes or not refused:
        return None
    return f"backend {cell.backend!r} does not take {', '.join(refused)} there"


def _refused_source(model: ModelSpec, inventory: Inventory | None) -> str | None:
    if inventory is None or model.ref.startswith(tuple(inventory.allowed_sources)):
        return None
    allowed = ", ".join(inventory.allowed_sources) or "none"
    return f"source not allowed by the device's owner: {model.ref} (allowed: {allowed})"
