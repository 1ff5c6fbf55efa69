"""A device that does not answer cannot hold a campaign up, nor change what has ended without it."""

import signal

import pytest

from behaviour import Records, jobs, late_reports, started_by, stays
from fleetmark_protocol.jobs import JobState
from servers import wait_for

pytestmark = pytest.mark.chaos


@pytest.fixture
def silent(fleet):
    """A campaign in the middle of its only job, whose agent is stopped: it hears and says nothing.

    The centre takes it for online, and would wait ten minutes for its answer.
    """
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    fleet.campaign_id = fleet.submit(fleet.write_campaign(repetitions=3000))
    wait_for(lambda: fleet.stored_trials(fleet.campaign_id) >= 3, 60, "three trials in the store")
    fleet.signal("pi-sim", signal.SIGSTOP)
    return fleet


def test_a_cancellation_is_forced_where_nobody_answers(silent):
    """Nobody has asked the device before: all it can hear is that its job is gone."""
    campaign_id = silent.campaign_id
    forced = silent.cli("campaign", "cancel", campaign_id, "--force")
    assert forced.returncode == 0, forced.stderr
    (ended,) = jobs(silent, campaign_id)
    assert (str(ended.state), ended.failure.code) == ("CANCELED", "CANCELED")
    assert silent.status(campaign_id)["state"] == "CANCELED"
    assert len(started_by(silent)) == 1, "the worker waits for its agent"

    silent.signal("pi-sim", signal.SIGCONT)
    wait_for(lambda: Records(silent, campaign_id).ends() != [], 30, "the device's last word")
    wait_for(lambda: started_by(silent) == {}, 10, "the end of its worker")
    wait_for(lambda: late_reports(silent, campaign_id) != [], 10, "the late report")
    assert [str(one.record.state) for one in late_reports(silent, campaign_id)] == ["CANCELED"]
    stays(silent, campaign_id, JobState.CANCELED, 2)
    assert jobs(silent, campaign_id) == [ended_but_cleared(silent, ended)]

    again = silent.submit(silent.write_campaign(repetitions=2, name="again"))
    assert silent.wait_for_end(again) == "SUCCEEDED", "the device takes other jobs"


def ended_but_cleared(fleet, ended):
    """Return the row as it was, but for the time at which its assignment left the broker."""
    (now,) = jobs(fleet, ended.campaign_id)
    return type(ended)(**{**vars(ended), "cleared_ns": now.cleared_ns})


def test_a_success_that_comes_after_a_forced_end_is_kept_as_late(fleet):
    """The device had done all of it; only nobody had heard."""
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    campaign_id = fleet.submit(fleet.write_campaign(repetitions=8))
    wait_for(lambda: fleet.stored_trials(campaign_id) >= 1, 60, "a trial in the store")
    # Agent and engine go on, and cannot be heard.
    fleet.broker.kill()
    wait_for(lambda: ended(fleet), 60, "the end of the job on its device")
    assert fleet.cli("campaign", "cancel", campaign_id, "--force").returncode == 0
    assert str(jobs(fleet, campaign_id)[0].state) == "CANCELED"
    fleet.broker.start()
    wait_for(lambda: late_reports(fleet, campaign_id) != [], 30, "the late report")
    assert [str(one.record.state) for one in late_reports(fleet, campaign_id)] == ["SUCCEEDED"]
    stays(fleet, campaign_id, JobState.CANCELED, 2)
    # What was measured is kept nevertheless, each trial once.
    wait_for(lambda: fleet.stored_trials(campaign_id) == 9, 20, "its trials")
    fleet.assert_each_trial_once(campaign_id, 9)


def ended(fleet):
    return "\n".join(line for line in fleet.log("pi-sim").splitlines() if "job_ended" in line)
