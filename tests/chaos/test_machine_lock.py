"""One measurement at a time on a machine: agents take turns, and a dead one holds nobody up."""

import psutil
import pytest

from behaviour import Records, jobs, overlapping
from servers import wait_for

pytestmark = pytest.mark.chaos

DEVICES = ("one", "two")


@pytest.fixture
def two_agents(fleet):
    fleet.start_collector()
    for device in DEVICES:
        fleet.start_agent(device)
    fleet.wait_for_devices(*DEVICES)
    return fleet


def test_an_agent_killed_while_it_holds_the_machine_leaves_it_to_the_other(two_agents):
    fleet = two_agents
    campaign_id = fleet.submit(fleet.write_campaign(repetitions=20))
    wait_for(lambda: fleet.stored_trials(campaign_id) >= 2, 60, "two trials in the store")
    holder = fleet.trials(campaign_id)[0].device
    (other,) = set(DEVICES) - {holder}
    wait_for(lambda: "waiting_for_machine" in fleet.log(other), 30, "the other one waits")
    assert {item.device for item in fleet.trials(campaign_id)} == {holder}
    workers = psutil.Process(fleet.pid(holder)).children(recursive=True)
    fleet.kill(holder)
    psutil.wait_procs(workers, timeout=10)

    def other_has_ended():
        return [str(job.state) for job in jobs(fleet, campaign_id) if job.device == other] == [
            "SUCCEEDED"
        ]

    wait_for(other_has_ended, 90, "the end of the other one's job")
    cut_short = [job for job in jobs(fleet, campaign_id) if job.device == holder]
    assert [str(job.state) for job in cut_short] == ["IN_PROGRESS"]
    fleet.start_agent(holder)
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    fleet.assert_each_trial_once(campaign_id, 2 * 21)
    assert overlapping(Records(fleet, campaign_id).trials) == []


def test_jobs_of_several_campaigns_and_agents_run_one_after_another(two_agents):
    fleet = two_agents
    names = ("first", "second")
    ids = [fleet.submit(fleet.write_campaign(repetitions=4, name=name)) for name in names]
    assert [fleet.wait_for_end(campaign_id) for campaign_id in ids] == ["SUCCEEDED"] * 2
    trials = [trial for one in ids for trial in Records(fleet, one).trials]
    assert len(trials) == len(ids) * len(DEVICES) * 5
    assert overlapping(trials) == []
    # Not trial by trial in turns: a job is done before the next one begins.
    order = [trial.job_id for trial in sorted(trials, key=lambda one: one.time_ns)]
    assert [job for job, after in zip(order, [*order[1:], ""], strict=True) if job != after] == (
        list(dict.fromkeys(order))
    )
