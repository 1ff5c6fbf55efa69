"""A device that is away when its job is sent: runs it when it is back, unless time ran out."""

import signal

import pytest

from behaviour import SHORT_PATIENCE, Records, jobs, stays, wait_for_job
from fleetmark_protocol.jobs import JobState
from servers import wait_for

pytestmark = pytest.mark.chaos


@pytest.fixture
def away(fleet):
    """A fleet whose only device is known and gone."""
    fleet.settings(SHORT_PATIENCE)
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    fleet.kill("pi-sim", signal.SIGTERM)
    wait_for(lambda: '"online": true' not in fleet.cli("devices", "--json").stdout, 20, "offline")
    return fleet


def test_a_job_sent_to_a_device_that_is_away_runs_when_it_returns(away):
    campaign_id = away.submit(away.write_campaign())
    wait_for(lambda: jobs(away, campaign_id)[0].assigned_ns is not None, 20, "the job is sent")
    stays(away, campaign_id, JobState.QUEUED, 3)
    # Nor does it matter who else was restarted meanwhile, or that nothing was kept.
    away.kill("collector")
    away.broker.kill()
    away.broker.start()
    away.start_collector()
    away.start_agent("pi-sim")
    assert away.wait_for_end(campaign_id) == "SUCCEEDED"
    away.assert_each_trial_once(campaign_id, 4)
    assert Records(away, campaign_id).begun() == [(jobs(away, campaign_id)[0].job_id, 1)]


def test_a_job_whose_time_ran_out_is_given_up_and_never_runs(away):
    late = away.submit(away.write_campaign(timeouts={"campaign_s": 3}))
    last = wait_for_job(away, late, "TIMED_OUT", timeout_s=30)
    assert last.failure.code == "CAMPAIGN_TIMED_OUT"
    away.start_agent("pi-sim")
    in_time = away.submit(away.write_campaign(name="in-time"))
    assert away.wait_for_end(in_time) == "SUCCEEDED"
    assert away.stored_trials(late) == 0
    assert Records(away, late).jobs == []
    assert away.status(late)["state"] == "TIMED_OUT"
