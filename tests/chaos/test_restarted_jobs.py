"""A job that is to begin anew after an interruption: what it had measured no longer counts."""

import csv

import pytest

from behaviour import Records, jobs, wait_for_job
from servers import wait_for

pytestmark = pytest.mark.chaos

REPETITIONS = 12
PLANNED = REPETITIONS + 1


@pytest.fixture
def cut_short(fleet):
    """A job that may restart, killed after some trials whose records have arrived."""
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    fleet.campaign_id = fleet.submit(
        fleet.write_campaign(repetitions=REPETITIONS, resume="restart")
    )
    wait_for(lambda: fleet.stored_trials(fleet.campaign_id) >= 3, 60, "three trials in the store")
    fleet.kill("pi-sim")
    return fleet


def rows(fleet):
    """Return what the report says of each trial."""
    file = fleet.directory / "trials.csv"
    done = fleet.cli("report", fleet.campaign_id, "--csv", str(file))
    assert done.returncode == 0, done.stderr
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_every_trial_is_measured_again_and_counts_once(cut_short):
    fleet = cut_short
    before = Records(fleet, fleet.campaign_id).counted()
    fleet.start_agent("pi-sim")
    assert fleet.wait_for_end(fleet.campaign_id) == "SUCCEEDED"
    records = Records(fleet, fleet.campaign_id)
    second = [trial for trial in records.trials if trial.attempt == 2]
    assert len({trial.trial_id for trial in second}) == len(second) == PLANNED
    assert len(records.trials) >= PLANNED + len(before)
    (end,) = [one for one in records.jobs if one.state.terminal]
    assert (end.attempt, end.since_attempt, end.trials_recorded) == (2, 2, PLANNED)
    (job,) = jobs(fleet, fleet.campaign_id)
    assert (job.attempt, job.trials_recorded) == (2, PLANNED)
    shown = rows(fleet)
    assert {row["attempt"] for row in shown if row["superseded"] == "true"} == {"1"}
    assert [row["attempt"] for row in shown if row["superseded"] == "false"] == ["2"] * PLANNED


def test_a_restarted_job_ends_only_with_the_trials_of_its_new_attempt(cut_short):
    """Those of the attempt before are as many, and are not taken for them."""
    fleet = cut_short
    fleet.start_agent("pi-sim")
    wait_for(
        lambda: any(trial.attempt == 2 for trial in Records(fleet, fleet.campaign_id).trials),
        60,
        "a trial of the second attempt",
    )
    fleet.kill("pi-sim")
    fleet.start_agent("pi-sim")
    last = wait_for_job(fleet, fleet.campaign_id, "SUCCEEDED", "FAILED", timeout_s=90)
    assert (str(last.state), last.attempt, last.trials_recorded) == ("SUCCEEDED", 3, PLANNED)
    third = [one for one in Records(fleet, fleet.campaign_id).trials if one.attempt == 3]
    assert len({trial.trial_id for trial in third}) == PLANNED
