"""Jobs on a simulated device: the real books, made-up results, and no waiting."""

import pytest

from fleetmark_agent.joblog import MAX_ATTEMPTS
from fleetmark_protocol.errors import OutboxFull
from simulated import Device, assignment


@pytest.fixture
def make(tmp_path):
    made = []

    def device(**more):
        made.append(Device(tmp_path / "outbox.db", **more))
        return made[-1]

    yield device
    for one in made:
        one.close()


def test_a_job_comes_to_what_a_real_one_does_marked_as_simulated(make):
    device = make()
    device.runner.assign(assignment())
    device.run_for(10)
    assert device.states() == ["IN_PROGRESS", "SUCCEEDED"]
    assert device.records("job")[-1]["trials_recorded"] == 3
    (load,), trials = device.records("load"), device.records("trial")
    assert {one["backend_version"] for one in (load, *trials)} == {"simulated"}
    assert [trial["warmup"] for trial in trials] == [True, False, False]
    for trial in trials:
        assert trial["verdict"] == "VALID"
        assert trial["output_tokens"] == trial["output_tokens_requested"] == 16
        assert trial["prompt_tokens_evaluated"] == trial["prompt_tokens"]
        assert 0 < trial["ttft_s"] < trial["latency_s"]
        assert trial["decode_tps"] == pytest.approx(1 / trial["tpot_s"])
        assert trial["options"] == {"threads": 2}
        assert "energy_j" not in trial
        assert "simulated" in trial["output_text"]
    assert [("latency_cold_s" in trial) for trial in trials] == [True, False, False]
    assert device.counted == ["job", "load", "trial", "trial", "trial", "end"]


def test_a_cold_job_loads_for_every_trial(make):
    device = make()
    device.runner.assign(assignment(options={"start": "cold"}))
    device.run_for(20)
    assert len(device.records("load")) == 3
    assert all(trial["cold"] and trial["latency_cold_s"] for trial in device.records("trial"))


def test_the_same_seed_and_device_make_the_same_results(make, tmp_path):
    def results(file):
        device = Device(file)
        device.runner.assign(assignment())
        device.run_for(10)
        latencies = [trial["latency_s"] for trial in device.records("trial")]
        device.close()
        return latencies

    assert results(tmp_path / "1.db") == results(tmp_path / "2.db")


def test_an_assignment_that_comes_again_is_not_run_again_but_answered(make):
    device = make()
    device.runner.assign(assignment())
    device.runner.assign(assignment())
    device.run_for(10)
    device.runner.assign(assignment())
    device.run_for(10)
    assert device.states() == ["IN_PROGRESS", "SUCCEEDED", "SUCCEEDED"]
    assert len(device.records("trial")) == 3


def test_jobs_run_one_after_another(make):
    device = make()
    for number in range(3):
        device.runner.assign(assignment(number))
    device.run_for(40)
    assert [job["job_id"] for job in device.records("job")] == [
        f"c.d.{number:03d}" for number in (0, 0, 1, 1, 2, 2)
    ]


def test_a_job_is_canceled_at_once_whether_it_runs_or_waits(make):
    device = make()
    device.runner.assign(assignment(0, repetitions=1000))
    device.runner.assign(assignment(1))
    device.run_for(5)
    before = len(device.records("trial"))
    device.runner.assign(assignment(1, desired="cancel"))
    device.runner.withdraw("c.d.000")
    device.loop.round(0)
    device.loop.round(0)
    assert device.states() == ["IN_PROGRESS", "CANCELED", "CANCELED"]
    assert len(device.records("trial")) == before
    device.run_for(5)
    assert device.runner.now is None


def test_a_backend_that_is_not_offered_is_rejected(make):
    device = make(backends=("ollama",))
    device.runner.assign(assignment())
    device.run_for(1)
    assert device.states() == ["REJECTED"]
    assert device.records("job")[0]["failure"]["code"] == "BACKEND_UNAVAILABLE"


def test_a_job_past_its_deadline_is_timed_out(make):
    device = make()
    device.runner.assign(assignment(repetitions=100, timeouts={"job_s": 5}))
    device.run_for(20)
    assert device.states() == ["IN_PROGRESS", "TIMED_OUT"]
    assert 0 < len(device.records("trial")) < 10


def test_a_simulation_that_goes_on_resumes_at_the_first_trial_not_recorded(make):
    device = make()
    device.runner.assign(assignment(repetitions=6))
    device.run_for(4)
    done = len(device.records("trial"))
    assert 0 < done < 7
    device.database.close()
    again = make()
    again.runner.start()
    again.run_for(20)
    assert again.states() == ["IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED"]
    assert len({trial["trial_id"] for trial in again.records("trial")}) == 7
    assert len(again.records("trial")) == 7
    assert [event["code"] for event in again.records("event")] == ["job_interrupted"]


def test_a_simulation_that_ends_leaves_its_job_where_it_is(make):
    device = make()
    device.runner.assign(assignment(repetitions=1000))
    device.run_for(5)
    device.runner.stop()
    before = len(device.records("trial"))
    device.runner.assign(assignment(1))
    device.run_for(10)
    assert len(device.records("trial")) == before
    assert device.states() == ["IN_PROGRESS"]
    assert device.runner.now is None


def test_a_job_that_may_not_resume_fails_and_so_does_one_cut_short_too_often(make):
    device = make()
    device.runner.assign(assignment(0, repetitions=1000, resume=False))
    device.run_for(4)
    device.database.close()
    device = make()
    device.runner.start()
    device.run_for(1)
    assert device.states()[-1] == "FAILED"
    device.runner.assign(assignment(1, repetitions=1000))
    for _ in range(MAX_ATTEMPTS):
        device.run_for(4)
        device.database.close()
        device = make()
        device.runner.start()
    device.run_for(1)
    last = device.records("job")[-1]
    assert (last["job_id"], last["state"]) == ("c.d.001", "FAILED")
    assert last["failure"]["code"] == "INTERRUPTED"


def test_a_result_that_the_disk_does_not_take_waits_without_holding_up_the_loop(make, monkeypatch):
    device = make()
    append = device.outbox.append
    room = [False]

    def full(record):
        if not room[0] and record.kind == "trial":
            raise OutboxFull("no room")
        return append(record)

    monkeypatch.setattr(device.outbox, "append", full)
    device.runner.assign(assignment())
    device.run_for(30)
    assert device.records("trial") == []
    assert device.states() == ["IN_PROGRESS"]
    room[0] = True
    device.run_for(10)
    assert device.states() == ["IN_PROGRESS", "SUCCEEDED"]
    assert len(device.records("trial")) == 3
