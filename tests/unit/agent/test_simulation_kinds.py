"""Every kind of workload on a simulated device: as a real one would tell of it."""

from itertools import pairwise

import pytest

from fleetmark_agent.simulation.measuring import SOAK_REQUESTS
from simulated import Device, assignment


@pytest.fixture
def ran(tmp_path):
    """Run a job of some workloads to its end; returns the device."""
    devices = []

    def run(*workloads, seconds=600, **job):
        device = Device(tmp_path / f"{len(devices)}.db")
        devices.append(device)
        every = [
            {"kind": "single", "prompts": ["some words"], "output_tokens": 16, "warmup": 0, **one}
            for one in workloads
        ]
        device.runner.assign(assignment(workloads=every, **job))
        device.run_for(seconds)
        return device

    yield run
    for device in devices:
        device.close()


def events(device):
    return [(one["code"], one["data"]) for one in device.records("event")]


def test_a_start_is_cold_and_tells_how_much_of_the_weights_was_in_memory(ran):
    start = {"kind": "coldstart", "repetitions": 2}
    device = ran(
        {**start, "name": "kept"},
        {**start, "name": "dropped", "page_cache": "drop"},
        {"name": "warm", "repetitions": 2},
    )
    trials = device.records("trial")
    assert [trial["cold"] for trial in trials] == [True] * 4 + [False] * 2
    # One for each start, and one that both warm trials share.
    assert len(device.records("load")) == 5
    for trial in trials[:4]:
        assert trial["latency_cold_s"] == trial["load_s"] + trial["latency_s"]
        assert (trial["model_cached_percent"] > 50) == (trial["workload"] == "kept")
    assert [trial.get("model_cached_percent") for trial in trials[4:]] == [None, None]


def test_a_soak_tells_of_all_its_time_in_a_minute(ran):
    soak = {"name": "heat", "kind": "soak", "duration_s": 3600, "repetitions": 1, "warmup": 1}
    device = ran(soak, seconds=90)
    assert device.states() == ["IN_PROGRESS", "SUCCEEDED"]
    warmup, *trials = device.records("trial")
    assert warmup.get("soak_s") is None
    assert 30 < len(trials) <= SOAK_REQUESTS + 1
    for earlier, later in pairwise(trials):
        assert later["soak_s"] == pytest.approx(earlier["soak_s"] + earlier["latency_s"])
    last = trials[-1]
    assert trials[0]["soak_s"] == 0
    assert last["soak_s"] < 3600 <= last["soak_s"] + last["latency_s"]
    # Heat slows it down in the second half.
    slow = ["frequency_drop" in trial["verdict_reasons"] for trial in trials]
    assert slow == sorted(slow)
    assert 0.2 < sum(slow) / len(slow) < 0.6
    assert trials[0]["decode_tps"] > last["decode_tps"]
    ((code, data),) = events(device)
    assert (code, data["requests"], data["attempt"]) == ("soak_ended", len(trials), 1)
    final = device.records("job")[-1]
    assert final["trials_recorded"] == final["trials_planned"] == len(trials) + 1


def test_an_interrupted_soak_begins_anew_and_none_of_its_trials_is_lost(ran, tmp_path):
    soak = {"name": "heat", "kind": "soak", "duration_s": 30, "repetitions": 1}
    device = ran(soak, seconds=10)
    before = device.records("trial")
    assert 0 < len(before) < 30
    device.database.close()
    again = Device(tmp_path / "0.db")
    again.runner.start()
    again.run_for(60)
    trials = again.records("trial")
    second = [trial for trial in trials if trial["attempt"] == 2]
    assert trials[: len(before)] == before
    assert second[0]["soak_s"] == 0
    assert second[-1]["soak_s"] + second[-1]["latency_s"] >= 30
    assert len({trial["trial_id"] for trial in trials}) == len(trials)
    final = again.records("job")[-1]
    assert (final["state"], final["trials_recorded"]) == ("SUCCEEDED", len(trials))
    again.close()


def test_adaptive_repetitions_stop_and_the_job_has_all_that_it_was_to_have(ran):
    rules = {"half_width_percent": 10}
    device = ran({"name": "w", "repetitions": 50, "adaptive": rules})
    trials = device.records("trial")
    assert 6 <= len(trials) < 20
    begun, final = device.records("job")
    assert begun["trials_planned"] == 50
    assert final["trials_planned"] == final["trials_recorded"] == len(trials)
    ((code, data),) = events(device)
    assert code == "repetitions_ended"
    assert (data["reason"], data["repetitions"]) == ("target", len(trials))
    assert 0 < data["half_width_percent"] <= 10


def test_clients_ask_at_the_same_time_and_share_their_machine(ran):
    crowd = {"kind": "concurrency", "repetitions": 1, "prompts": ["a", "b"]}
    device = ran({**crowd, "name": "one", "clients": 1}, {**crowd, "name": "four", "clients": 4})
    one, *four = device.records("trial")
    assert [trial["client"] for trial in four] == [0, 1, 2, 3]
    assert {trial["clients"] for trial in four} == {4}
    assert [trial["prompt_index"] for trial in four] == [0, 1, 0, 1]
    assert len({trial["throughput_tps"] for trial in four}) == 1
    assert len({trial["time_ns"] // 10**9 for trial in four}) == 1
    assert min(trial["latency_s"] for trial in four) > one["latency_s"]
    assert four[0]["throughput_tps"] > one["throughput_tps"]


def test_trials_have_a_price_where_the_machine_has_one(ran):
    crowd = {"name": "crowd", "kind": "concurrency", "clients": 2, "repetitions": 1}
    device = ran({"name": "w", "repetitions": 1}, crowd, usd_per_hour=3.6)
    single, *both = device.records("trial")
    assert single["cost_usd"] == pytest.approx(single["latency_s"] / 1000)
    assert single["eq"] == pytest.approx(1 / (single["cost_usd"] * single["latency_s"]))
    longest_s = max(trial["latency_s"] for trial in both)
    assert [trial["cost_usd"] for trial in both] == [pytest.approx(longest_s / 2000)] * 2
    assert {trial["usd_per_hour"] for trial in (single, *both)} == {3.6}
    assert "cost_usd" not in ran({"name": "w", "repetitions": 1}).records("trial")[0]


def test_a_device_that_is_to_cool_down_first_takes_its_time(ran):
    w = {"name": "w", "repetitions": 5}
    rule = {"temperature_c": 50, "timeout_s": 100}

    trials = ran(w, cool_down={**rule, "before": "repetition"}).records("trial")
    assert [trial["verdict"] for trial in trials] == ["VALID"] * 5
    early = ran(w, seconds=5, cool_down={**rule, "before": "repetition"})
    assert len(early.records("trial")) < len(ran(w, seconds=5).records("trial"))


def test_an_attempt_has_a_number_that_nobody_had_before(tmp_path):
    device = Device(tmp_path / "o.db")
    device.runner.assign(assignment().model_copy(update={"attempts_begun": 3}))
    device.run_for(10)
    assert {job["attempt"] for job in device.records("job")} == {4}
    assert {trial["attempt"] for trial in device.records("trial")} == {4}
    device.close()
