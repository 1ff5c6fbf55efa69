"""The collector killed at any moment: every job runs once, in one attempt, and nothing is lost."""

import random
import time

import pytest

from behaviour import Records, jobs, overlapping
from engines import MODEL_REF, MODEL_SHA256

pytestmark = pytest.mark.chaos

KILLS = 7
REPETITIONS = 6


def test_a_collector_killed_at_random_moments_loses_and_repeats_no_job(fleet):
    drawn = random.Random(11)
    devices = ("pi-sim", "ec2-sim")
    fleet.start_collector()
    for device in devices:
        fleet.start_agent(device)
    fleet.wait_for_devices(*devices)
    matrix = {
        "backend": ["xllamacpp"],
        "model": [{"name": "smollm2-135m", "ref": MODEL_REF, "sha256": MODEL_SHA256}],
        "options": {"threads": 1, "context_tokens": [128, 256]},
    }
    file = fleet.write_campaign(repetitions=REPETITIONS, matrix=matrix)
    campaign_id = fleet.submit(file)
    ends = []
    for _ in range(KILLS):
        # From the middle of its start to well into its work.
        time.sleep(drawn.choice((0.1, 0.4, 0.9)) + drawn.uniform(0, 1.5))
        fleet.kill("collector")
        ends.append(sum(job.state.terminal for job in jobs(fleet, campaign_id)))
        time.sleep(drawn.uniform(0, 0.5))
        fleet.start_collector()
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    assert ends[0] < 4, "it was killed while there was work to do"
    names = sorted(job.job_id for job in jobs(fleet, campaign_id))
    records = Records(fleet, campaign_id)
    assert len(names) == 4
    assert sorted(records.begun()) == [(name, 1) for name in names]
    assert sorted(load.job_id for load in records.loads) == names
    assert sorted(set(records.ends())) == [(name, "SUCCEEDED") for name in names]
    fleet.assert_each_trial_once(campaign_id, 4 * (1 + REPETITIONS))
    assert overlapping(records.trials) == []


def test_a_collector_killed_as_soon_as_a_campaign_was_submitted_has_kept_it(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    file = fleet.write_campaign(repetitions=2)
    done = fleet.cli("campaign", "run", str(file), "--detach")
    fleet.kill("collector")
    assert done.returncode == 0, done.stderr
    campaign_id = str(fleet.status()["campaign_id"])
    fleet.start_collector()
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    assert len(Records(fleet, campaign_id).loads) == 1
    fleet.assert_each_trial_once(campaign_id, 3)
