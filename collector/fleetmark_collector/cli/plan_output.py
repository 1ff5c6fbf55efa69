"""What `fleetmark campaign plan` prints: jobs, what would be refused, and how long all takes."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fleetmark_collector.cli.campaign_output import print_remarks, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fleetmark_collector.campaigns.duration import Span
    from fleetmark_collector.campaigns.estimate import DeviceEstimate, Estimate, JobEstimate
    from fleetmark_collector.campaigns.plan import PlannedJob
    from fleetmark_collector.campaigns.schema import Cost
    from fleetmark_collector.campaigns.submit import Outlook
    from fleetmark_protocol.workloads import Workload


def print_outlook(outlook: "Outlook", cost: "Cost | None", out: "Console") -> None:
    """Print which device runs what, how long it is busy, and what the operator should know."""
    plan, estimate = outlook.plan, outlook.estimate
    if plan.jobs:
        reasons = _reasons(plan.jobs)
        out.print(_job_table(outlook, reasons))
        for reason, number in reasons.items():
            say(out, f"({number}) refused: {reason}")
        asked = [one for job in plan.jobs for one in job.spec.workloads]
        if _all_ask_the_same(plan.jobs):
            say(out, f"Each job asks: {_asked(plan.jobs[0].spec.workloads)}.")
        say(out, f"{len(plan.jobs)} jobs, {trials_text(asked)} trials.")
        say(out, "")
        out.print(_device_table(estimate))
        for line in _totals(estimate, cost):
            say(out, line)
    print_remarks(plan, out, refusals=False)
    for note in estimate.notes:
        say(out, f"note: {note}")


def _reasons(jobs: "Sequence[PlannedJob]") -> dict[str, int]:
    """Number the reasons why devices will refuse jobs: many share one."""
    given = (job.refusal for job in jobs if job.refusal is not None)
    return {reason: number for number, reason in enumerate(dict.fromkeys(given), 1)}


def _all_ask_the_same(jobs: "Sequence[PlannedJob]") -> bool:
    return len({_asked(job.spec.workloads) for job in jobs}) == 1


def _job_table(outlook: "Outlook", reasons: "Mapping[str, int]") -> "Table":
    from rich.table import Table

    jobs = outlook.plan.jobs
    blocks, differ = any(job.block is not None for job in jobs), not _all_ask_the_same(jobs)
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("device", overflow="fold")
    table.add_column("job", no_wrap=True)
    if blocks:
        table.add_column("block", no_wrap=True)
    table.add_column("cell", overflow="fold")
    if differ:
        table.add_column("workloads", overflow="fold")
    table.add_column("trials", justify="right", no_wrap=True)
    table.add_column("expected", no_wrap=True)
    by_id = {job.job.spec.job_id: job for one in outlook.estimate.devices for job in one.jobs}
    for job in jobs:
        table.add_row(
            job.device,
            job.spec.job_id.rsplit(".", 1)[-1],
            *([_block(job)] if blocks else []),
            str(job.cell),
            *([_asked(job.spec.workloads)] if differ else []),
            trials_text(job.spec.workloads),
            _expected(by_id[job.spec.job_id])
            if job.refusal is None
            else f"[red]refused ({reasons[job.refusal]})[/]",
        )
    return table


def _block(job: "PlannedJob") -> str:
    return "-" if job.block is None else "{} of {}".format(*job.block)


def _asked(workloads: "Sequence[Workload]") -> str:
    """Return the names of workloads; kinds that do more than ask prompts in turn after them."""
    groups = itertools.groupby(workloads, _kind_text)
    return ", ".join(
        " ".join(one.name for one in some) + (f" ({kind})" if kind else "") for kind, some in groups
    )


def _kind_text(workload: "Workload") -> str:
    if workload.kind == "soak":
        from fleetmark_collector.campaigns.wording import duration_text

        return f"soak of {duration_text(workload.duration_s or 0.0)}"
    kind = workload.kind if workload.kind in ("concurrency", "coldstart") else ""
    often = "adaptive" if workload.adaptive is not None else ""
    return ", ".join(part for part in (kind, often) if part)


def trials_text(workloads: "Sequence[Workload]") -> str:
    """Return how many trials workloads make: what is adaptive has a range, a soak makes more."""
    from fleetmark_collector.campaigns.cells import count_trials, fewest_trials

    low, high = fewest_trials(workloads), count_trials(workloads)
    more = "+" if any(one.kind == "soak" for one in workloads) else ""
    return f"{high}{more}" if low == high else f"{low} to {high}{more}"


def _expected(job: "JobEstimate") -> str:
    from fleetmark_collector.campaigns.wording import duration_text

    if job.seconds is None:
        least_s = job.known.low
        return f"runs, at least {duration_text(least_s)}" if least_s else "runs, ?"
    return f"runs, about {duration_text(job.seconds.likely)}"


def _device_table(estimate: "Estimate") -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("device", no_wrap=True)
    for title in ("jobs", "busy for about", "at least", "at most"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("going by", overflow="fold")
    if estimate.usd is not None:
        table.add_column("USD", justify="right", no_wrap=True)
    for one in estimate.devices:
        durations = _durations(one.seconds, open_ended=one.unknown > 0)
        cells = [one.device, str(len(one.jobs)), *durations, _bases(one)]
        if estimate.usd is not None:
            cells.append(_device_usd(one))
        table.add_row(*cells)
    return table


def _durations(span: "Span", *, open_ended: bool) -> Iterator[str]:
    from fleetmark_collector.campaigns.wording import duration_text

    if open_ended:
        yield from ("?", duration_text(span.low or None), "?")
    else:
        yield from (duration_text(value) for value in (span.likely, span.low, span.high))


def _device_usd(one: "DeviceEstimate") -> str:
    if one.usd is None:
        return "-"
    if one.unknown and one.usd_per_hour:
        return f"{_usd_text(one.usd.low)} or more" if one.usd.low else "?"
    return _usd_text(one.usd.likely)


def _bases(one: "DeviceEstimate") -> str:
    """Return what a device's estimate is founded on, with the number of jobs where it differs."""
    parts = sorted(one.bases.items())
    if len(parts) == 1:
        return str(parts[0][0])
    return ", ".join(f"{basis} ({count})" for basis, count in parts)


def _totals(estimate: "Estimate", cost: "Cost | None") -> Iterator[str]:
    unknown = estimate.unknown
    likely, low, high = _durations(estimate.seconds, open_ended=unknown > 0)
    time = f"about {likely} ({low} to {high})"
    if unknown:
        time = f"{_least(low, estimate.seconds)} ({unknown} job(s) have no estimate)"
    yield (
        f"From start to end {time}, if all devices are there; fetching "
        "and converting models comes on top."
    )
    if estimate.usd is not None and cost is not None:
        usd, unpriced = estimate.usd, estimate.unknown_cost
        money = f"about {_usd_text(usd.likely)} USD ({_usd_text(usd.low)} to "
        money += f"{_usd_text(usd.high)} USD)"
        if unpriced:
            money = (
                f"{_least(f'{_usd_text(usd.low)} USD', usd)} ({unpriced} job(s) have no estimate)"
            )
        note = f" ({cost.note})" if cost.note else ""
        yield f"Cost {money} while devices are busy with it, at the file's prices{note}."


def _least(text: str, span: "Span") -> str:
    return f"at least {text}" if span.low else "unknown"


def _usd_text(usd: float) -> str:
    from fleetmark_collector.campaigns.overrun import usd_text

    return usd_text(usd)


# --- for programs ------------------------------------------------------------------------------


def outlook_json(outlook: "Outlook", cost: "Cost | None") -> dict[str, object]:
    """Return plan and estimate for programs."""
    plan, estimate = outlook.plan, outlook.estimate
    by_id = {job.job.spec.job_id: job for one in estimate.devices for job in one.jobs}
    return {
        "jobs": [_job_json(job, by_id[job.spec.job_id]) for job in plan.jobs],
        "left_out": [
            {"fleet": one.fleet, "device": one.device, "cell": str(one.cell), "reason": one.reason}
            for one in plan.left_out
        ],
        "estimate": {
            "seconds": _span_json(estimate.seconds, open_ended=estimate.unknown > 0),
            "usd": _span_json(estimate.usd, open_ended=estimate.unknown_cost > 0),
            "jobs_unknown": estimate.unknown,
            "price_note": cost.note if cost is not None else None,
            "over_limits": estimate.over,
            "unsure_limits": estimate.unsure,
            "devices": [
                {
                    "fleet": one.fleet,
                    "device": one.device,
                    "seconds": _span_json(one.seconds, open_ended=one.unknown > 0),
                    "jobs_unknown": one.unknown,
                    "basis": {str(basis): count for basis, count in sorted(one.bases.items())},
                    "usd_per_hour": one.usd_per_hour,
                    "usd": _span_json(
                        one.usd, open_ended=one.unknown > 0 and bool(one.usd_per_hour)
                    ),
                }
                for one in estimate.devices
            ],
        },
        "notes": [*plan.notes, *estimate.notes],
        "problems": list(plan.problems),
    }


def _job_json(job: "PlannedJob", estimate: "JobEstimate") -> dict[str, object]:
    from fleetmark_collector.campaigns.cells import fewest_trials

    return {
        "fleet": job.fleet,
        "device": job.device,
        "backend": job.spec.backend,
        "model": job.spec.model.model_dump(),
        "options": dict(job.spec.labels),
        "workloads": [one.name for one in job.spec.workloads],
        "block": None if job.block is None else {"number": job.block[0], "of": job.block[1]},
        "trials": job.trials,
        "trials_at_least": fewest_trials(job.spec.workloads),
        "refusal": job.refusal,
        "seconds": _job_seconds_json(estimate),
        "basis": estimate.basis,
        "because": estimate.because,
    }


def _job_seconds_json(job: "JobEstimate") -> dict[str, float | None] | None:
    if job.seconds is not None:
        return _span_json(job.seconds)
    return _span_json(job.known, open_ended=True) if job.known.low else None


def _span_json(span: "Span | None", *, open_ended: bool = False) -> dict[str, float | None] | None:
    """Return a span; of one that has no known end only the least is told."""
    if span is None:
        return None
    if open_ended:
        return {"low": span.low, "likely": None, "high": None}
    return {"low": span.low, "likely": span.likely, "high": span.high}
