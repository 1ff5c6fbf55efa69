"""Tells the loads of an engine that was started for one request alone from those of one that stays.

A job may ask both kinds: workloads of cold starts beside others. Loads of weights that were dropped
from memory first say nothing of an engine that is loaded once.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.records import LoadRecord, TrialRecord

Place = tuple[str, str, str, int]
"""Fleet, device, epoch and seq: name a record for ever."""


def place_of(load: Stored[LoadRecord]) -> Place:
    """Return what names a load for ever."""
    return (load.fleet, load.device, load.epoch, load.seq)


def of_cold_trials(
    loads: Iterable[Stored[LoadRecord]], trials: Iterable[Stored[TrialRecord]]
) -> frozenset[Place]:
    """Return the places of the loads that were made for a cold trial.

    A device puts a load in its outbox before what is asked after it, so a load belongs to the next
    trial of its job. One that no trial follows (interrupted, or not here yet) belongs to none; in
    a job that has cold trials it is counted among theirs.

    Args:
        loads: of any jobs.
        trials: all of these jobs, failed ones included.
    """
    asked: defaultdict[tuple[str, str, str, str], list[tuple[int, bool]]] = defaultdict(list)
    for trial in trials:
        job = (trial.fleet, trial.device, trial.epoch, trial.record.job_id)
        asked[job].append((trial.seq, trial.record.cold))
    for some in asked.values():
        some.sort()
    found = set()
    for load in loads:
        mine = asked.get((load.fleet, load.device, load.epoch, load.record.job_id), [])
        after = bisect_right(mine, (load.seq, True))
        cold = mine[after][1] if after < len(mine) else any(cold for _, cold in mine)
        if cold:
            found.add(place_of(load))
    return frozenset(found)
