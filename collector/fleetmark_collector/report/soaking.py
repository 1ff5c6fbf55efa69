"""A soak's figures: how fast it began, how fast it went on when hot, and when heat set in."""

from collections.abc import Collection, Mapping, Sequence

from fleetmark_collector.report.judged import OF_HEAT, Trial, usable
from fleetmark_collector.report.statistics import Pair, Values

BURST_S = 60.0
"""A burst is what a soak does in its first minute."""

SUSTAINED_SHARE = 2 / 3
"""From here on a soak is what it can keep up: its last third."""

SOAK_METRICS = ("burst_tps", "sustained_tps", "time_to_throttle_s")

Soaks = Mapping[tuple[int, int], Sequence[Trial]]
"""Job and repetition -> the trials of this soak, in order of time."""


def soak_values(
    metric: str, soaks: Soaks, duration_s: float | None, throttled: Collection[str] = ()
) -> Values:
    """Return the values of one of `SOAK_METRICS`; soaks stand where processes stand elsewhere.

    Args:
        metric: which.
        soaks: those that are complete.
        duration_s: how long each was to go on; None where it is not known.
        throttled: ids of trials during which telemetry says that the machine was throttled.
    """
    found: dict[Pair, float] = {}
    for number, trials in enumerate(soaks.values()):
        if metric == "time_to_throttle_s":
            at = throttled_at(trials, throttled)
            if at is not None:
                found[Pair((number, 0), 0)] = at
            continue
        end_s = duration_s if duration_s is not None else lasted_s(trials)
        for index, trial in enumerate(trials):
            record = trial.record
            began_s, speed = record.soak_s, record.decode_tps
            if began_s is None or speed is None or not usable(record):
                continue
            early = began_s < min(BURST_S, end_s * SUSTAINED_SHARE)
            if early if metric == "burst_tps" else began_s >= end_s * SUSTAINED_SHARE:
                found[Pair((number, index), 0)] = speed
    return found


def throttled_at(trials: Sequence[Trial], throttled: Collection[str] = ()) -> float | None:
    """Return when the first trial began that heat slowed down; None where none did."""
    return next(
        (
            trial.record.soak_s
            for trial in trials
            if trial.record.soak_s is not None
            and (
                OF_HEAT.intersection(trial.record.verdict_reasons)
                or trial.record.trial_id in throttled
            )
        ),
        None,
    )


def lasted_s(trials: Sequence[Trial]) -> float:
    """Return how long a soak went on, as far as its trials tell."""
    return max(
        (
            trial.record.soak_s + (trial.record.latency_s or 0.0)
            for trial in trials
            if trial.record.soak_s is not None
        ),
        default=0.0,
    )
