"""What a report tells of a soak: burst against sustained, when heat set in, and how hot it got."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.judged import Trial
from fleetmark_collector.report.soaking import lasted_s, soak_values
from fleetmark_collector.report.statistics import Ratio, ratio
from fleetmark_collector.sinks.base import Reader

NS = 10**9
CHUNK_S = 3600
MAX_POINTS = 2000
"""Samples kept of one soak, for its plot."""


@dataclass(frozen=True)
class Sample:
    """One sample of the device during a soak."""

    soak_s: float
    temperature_c: float


@dataclass(frozen=True)
class Soak:
    """A cell's soaks.

    Attributes:
        complete: soaks that went on as long as they were to; only these are in the figures.
        cut_short_s: how long each of the others went on.
        asked_s: how long each was to go on; None where the plan is not known.
        kept: sustained over burst; None where one of them is missing.
        time_to_throttle_s: of the first soak in which heat slowed a request down; None for none.
        told: whether anything could have told of throttling.
        temperature_start_c: of the first soak; None where the device has no sensor.
        temperature_max_c: of all complete soaks.
        samples: of the first soak, thinned.
    """

    cell: CellReport
    complete: int
    cut_short_s: tuple[float, ...]
    asked_s: float | None
    kept: Ratio | None
    time_to_throttle_s: float | None
    told: bool
    temperature_start_c: float | None
    temperature_max_c: float | None
    samples: tuple[Sample, ...]


@dataclass
class _Seen:
    """What telemetry tells of one soak."""

    samples: list[Sample]
    throttled: set[str]
    told: bool = False


def soaks_of(
    cells: Sequence[CellReport], reader: Reader, *, confidence: float, seed: int
) -> Iterator[Soak]:
    """Yield what there is to tell of each cell that was soaked.

    Raises:
        StoreError: the store cannot be read.
    """
    for cell in cells:
        if cell.cell.workload_kind == "soak":
            yield _soak(cell, reader, confidence=confidence, seed=seed)


def _soak(report: CellReport, reader: Reader, *, confidence: float, seed: int) -> Soak:
    cell = report.cell
    asked_s = cell.asked.duration_s if cell.asked else None
    complete = cell.soaks()
    seen = [_look(reader, trials) for trials in complete.values()]
    records = [trial.record for trials in complete.values() for trial in trials]
    throttled = set().union(*(one.throttled for one in seen))
    onset = soak_values("time_to_throttle_s", complete, asked_s, throttled)
    hottest = [one.temperature_c for part in seen for one in part.samples]
    hottest += [r.temperature_c_max for r in records if r.temperature_c_max is not None]
    first = seen[0].samples if seen else []
    return Soak(
        cell=report,
        complete=len(complete),
        cut_short_s=tuple(map(lasted_s, cell.soaks(complete=False).values())),
        asked_s=asked_s,
        kept=ratio(
            cell.values("sustained_tps"),
            cell.values("burst_tps"),
            confidence=confidence,
            seed=seed,
            same_processes=True,
        ),
        time_to_throttle_s=next(iter(onset.values()), None),
        told=any(one.told for one in seen)
        or any(record.cpu_freq_hz_min is not None for record in records),
        temperature_start_c=first[0].temperature_c if first else None,
        temperature_max_c=max(hottest, default=None),
        samples=tuple(first[:: 1 + len(first) // MAX_POINTS]),
    )


def _look(reader: Reader, trials: Sequence[Trial]) -> _Seen:
    """Read the telemetry of one soak, an hour at a time."""
    found = _Seen([], set())
    timed = [trial for trial in trials if trial.record.soak_s is not None]
    if not timed:
        return found
    begins_ns = [trial.record.time_ns for trial in timed]
    zero_ns = begins_ns[0] - round((timed[0].record.soak_s or 0.0) * NS)
    end_ns = zero_ns + round(lasted_s(timed) * NS)
    where = (timed[0].fleet, timed[0].device)
    for start_ns in range(zero_ns, end_ns, CHUNK_S * NS):
        stop_ns = min(end_ns, start_ns + CHUNK_S * NS)
        for sample in reader.telemetry(*where, start_ns, stop_ns):
            if sample.temperature_c is not None:
                at_s = (sample.time_ns - zero_ns) / NS
                found.samples.append(Sample(at_s, sample.temperature_c))
            if sample.throttled is not None:
                found.told = True
            if sample.throttled:
                under_way = max(0, bisect_right(begins_ns, sample.time_ns) - 1)
                found.throttled.add(timed[under_way].record.trial_id)
    return found
