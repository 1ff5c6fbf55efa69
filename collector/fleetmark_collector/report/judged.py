"""Which trials may enter a figure, and why others may not."""

from collections import Counter
from collections.abc import Iterable, Sequence

from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.records import TrialRecord, Verdict

Trial = Stored[TrialRecord]

OF_HEAT = frozenset({"throttled", "frequency_drop"})
"""Reasons that speak of a machine that was slowed down: what a soak looks for."""


def usable(trial: TrialRecord) -> bool:
    """Whether a trial may enter a figure: it has an answer and its verdict is not INVALID."""
    return trial.failure is None and trial.verdict is not Verdict.INVALID


def verdict_of(trial: TrialRecord) -> Verdict:
    """Return the verdict that counts: a trial without an answer is INVALID, whatever it says."""
    return Verdict.INVALID if trial.failure is not None else trial.verdict


def load_included(trial: TrialRecord) -> bool:
    """Whether the engine loaded its model within the request, so that the two cannot be told
    apart."""
    return trial.latency_s is None and trial.latency_cold_s is not None


def all_cold(trials: Sequence[Trial]) -> bool:
    """Whether an engine was started for each trial alone, by the agent or by its own nature.

    An engine that happened to load its model again within one request (a server that had let go
    of it) does not make the other trials cold.
    """
    return any(trial.record.cold for trial in trials) or (
        bool(trials) and all(load_included(trial.record) for trial in trials)
    )


def energy_sources(trials: Iterable[Trial]) -> tuple[str, ...]:
    """Return the classes of source that the trials' energies come from."""
    found = {t.record.energy_source or "unknown" for t in trials if t.record.energy_j is not None}
    return tuple(sorted(found))


def reasons_of(trials: Iterable[Trial], verdict: Verdict) -> dict[str, int]:
    """Count the reasons of all trials of one verdict, the most frequent first."""
    found: Counter[str] = Counter()
    for trial in trials:
        record = trial.record
        if verdict_of(record) is verdict:
            codes = set(record.verdict_reasons)
            if record.failure is not None:
                codes.add(record.failure.code)
            found.update(codes or {"no reason given"})
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
