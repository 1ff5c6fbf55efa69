"""What tests of campaigns on real processes look at: rows of jobs, their records, process trees."""

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import psutil

from fleet import Fleet
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import JobRow, LateReport
from fleetmark_collector.config import load_settings
from fleetmark_collector.sinks.stores import open_reader
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import JobRecord, LoadRecord, TrialRecord
from servers import wait_for

SHORT_PATIENCE = "[patience]\ncancel_offline_s = 1\ncancel_online_s = 3\njob_s = 1\ntrials_s = 5\n"
"""So that what the centre does after a minute or ten is seen in seconds."""


def jobs(fleet: Fleet, campaign_id: str) -> list[JobRow]:
    """Return the jobs of a campaign as the centre has them, in the order of the plan."""
    store = CampaignStore(fleet.data_dir / "state.db")
    try:
        return store.jobs(campaign_id)
    finally:
        store.close()


def late_reports(fleet: Fleet, campaign_id: str) -> list[LateReport]:
    """Return what devices said when it could change nothing any more."""
    store = CampaignStore(fleet.data_dir / "state.db")
    try:
        return store.late_reports(campaign_id)
    finally:
        store.close()


def wait_for_job(fleet: Fleet, campaign_id: str, *states: str, timeout_s: float = 60) -> JobRow:
    """Wait until the only job of a campaign is in one of these states; return it."""

    def there() -> bool:
        (only,) = jobs(fleet, campaign_id)
        return str(only.state) in states

    wait_for(there, timeout_s, f"{campaign_id} in {states}, now {jobs(fleet, campaign_id)}")
    (only,) = jobs(fleet, campaign_id)
    return only


def stays(fleet: Fleet, campaign_id: str, state: JobState, for_s: float) -> None:
    """Look for a while that the only job of a campaign keeps its state."""
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        (only,) = jobs(fleet, campaign_id)
        assert only.state is state, only
        time.sleep(0.2)


class Records:
    """What the store holds of a campaign."""

    def __init__(self, fleet: Fleet, campaign_id: str) -> None:
        settings = load_settings(fleet.config_file, {"data_dir": fleet.data_dir})
        reader = open_reader(settings)
        try:
            self.trials: list[TrialRecord] = [one.record for one in reader.trials(campaign_id)]
            self.loads: list[LoadRecord] = [one.record for one in reader.loads(campaign_id)]
            self.jobs: list[JobRecord] = [one.record for one in reader.job_records(campaign_id)]
        finally:
            reader.close()

    def counted(self) -> Counter[str]:
        """Return how often each trial was measured."""
        return Counter(trial.trial_id for trial in self.trials)

    def begun(self) -> list[tuple[str, int]]:
        """Return (job, attempt) of every attempt that a device began."""
        return [(one.job_id, one.attempt) for one in self.jobs if one.state == "IN_PROGRESS"]

    def ends(self) -> list[tuple[str, str]]:
        """Return (job, state) of every end that a device told."""
        return [(one.job_id, str(one.state)) for one in self.jobs if one.state.terminal]


def overlapping(trials: Iterable[TrialRecord]) -> list[tuple[str, str]]:
    """Return neighbours in time of which one began before the other had ended."""
    spans = sorted(
        (one.time_ns, one.time_ns + int((one.latency_s or 0) * 1e9), one.trial_id) for one in trials
    )
    return [(a[2], b[2]) for a, b in itertools.pairwise(spans) if b[0] < a[1]]


def started_by(fleet: Fleet) -> dict[int, str]:
    """Return pid -> command line of every process that the fleet's agents have left or started.

    They are known by an environment that only this fleet has: children whose parents died and
    that belong to nobody any more are found too. Collector and agents themselves are left out.
    """
    mark = f"FLEETMARK_RUNNER__LOCK_FILE={fleet.directory / 'bench.lock'}".encode()
    parts = {fleet.pid(name) for name in fleet.names()}
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in {*parts, os.getpid()}:
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if psutil.Process(int(entry.name)).status() != psutil.STATUS_ZOMBIE:
                    found[int(entry.name)] = b" ".join(words).decode("utf-8", "replace").strip()
        except (OSError, psutil.NoSuchProcess):
            continue
    return found
