"""Kinds of workloads on a real engine: cold starts, soaks, adaptive ends, prices, cooling."""

import shutil
import time
from itertools import pairwise

import pytest

from agentdevice import Device, assignment
from engines import backends_here
from fakes.fake_sysfs import raspberry_pi
from fleetmark_agent.pagecache import cached_percent, drop
from fleetmark_agent.recorder import Recorder
from servers import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def make_device(tmp_path):
    made = []

    def make(name="state", **settings):
        made.append(Device(tmp_path / name, **settings))
        return made[-1]

    yield make
    for device in made:
        if not device.stopping:
            device.stop()


def job(*workloads, **more):
    every = [
        {
            "kind": "single",
            "prompts": ["The sun"],
            "output_tokens": 4,
            "warmup": 0,
            "repetitions": 2,
            **one,
        }
        for one in workloads
    ]
    return assignment(workloads=every, **more)


def run(device, what):
    device.runner.start()
    device.runner.assign(what)
    return device.wait_for_end(what.job.job_id)


@pytest.fixture
def own_weights(tmp_path, model_file):
    """A model store that nobody else has mapped a file of."""
    store = tmp_path / "models"
    store.mkdir()
    return shutil.copy(model_file, store / "m.gguf").parent


def droppable(file):
    """Whether the kernel lets go of a file's pages; not so where the file system is in memory."""
    drop([file])
    return cached_percent([file]) < 1


@pytest.mark.parametrize("backend", backends_here())
def test_each_start_is_cold_and_finds_the_weights_on_the_disk_where_that_is_wanted(
    make_device, own_weights, backend, new_children
):
    on_disk = droppable(own_weights / "m.gguf")
    device = make_device(models_dir=own_weights)
    start = {"kind": "coldstart", "repetitions": 2}
    last = run(
        device,
        job(
            {"name": "warm", "warmup": 1},
            {**start, "name": "dropped", "page_cache": "drop"},
            {**start, "name": "kept"},
            backend=backend,
            model={"name": "m", "ref": "path:m.gguf"},
            options={"threads": 1, "context_tokens": 256},
        ),
    )
    assert (last["state"], last["trials_recorded"]) == ("SUCCEEDED", 7)
    trials, loads = device.records("trial"), device.records("load")
    cold, warm = trials[:4], trials[4:]
    assert [(trial["workload"], trial["cold"]) for trial in cold] == [
        ("dropped", True),
        ("kept", True),
    ] * 2
    assert len(loads) == 5, "one for each start, one for all that is warm"
    for trial, load in zip(cold, loads, strict=False):
        assert trial["load_s"] == load["load_s"] > 0
        assert trial["latency_cold_s"] == trial["load_s"] + trial["latency_s"]
        # The engine has read the file the moment before, unless that was undone.
        dropped = trial["workload"] == "dropped" and on_disk
        assert (trial["model_cached_percent"] < 1) == dropped
    assert [trial["cold"] for trial in warm] == [False] * 3
    assert [trial.get("model_cached_percent") for trial in warm] == [None] * 3
    assert [trial.get("load_s") for trial in warm] == [None] * 3
    assert new_children() == []


SOAK = {"name": "heat", "kind": "soak", "duration_s": 3, "repetitions": 1, "prompts": ["a b", "c"]}


def assert_whole(soak, duration_s):
    """Requests one after another until the time had passed, and not beyond."""
    assert soak[0]["soak_s"] == 0
    assert all(later["soak_s"] >= one["soak_s"] + one["latency_s"] for one, later in pairwise(soak))
    assert soak[-1]["soak_s"] < duration_s <= soak[-1]["soak_s"] + soak[-1]["latency_s"] + 0.7


def test_a_soak_asks_without_a_pause_until_its_time_has_passed(make_device, monkeypatch):
    recorded = Recorder.trials

    def slowly(recorder, records, outcomes=()):
        if records[0].workload_kind == "soak" and not records[0].warmup:
            time.sleep(0.3)
        recorded(recorder, records, outcomes)

    monkeypatch.setattr(Recorder, "trials", slowly)
    device = make_device()
    last = run(device, job({**SOAK, "warmup": 1, "output_tokens": 32}, {"name": "w"}))
    trials = device.records("trial")
    soak = [trial for trial in trials if trial.get("soak_s") is not None]
    assert last["state"] == "SUCCEEDED"
    assert len(trials) == len(soak) + 3 == last["trials_recorded"] == last["trials_planned"]
    assert trials[-len(soak) :] == soak, "heat would fall on what came after"
    assert_whole(soak, 3)
    assert [trial["prompt_index"] for trial in soak[:3]] == [0, 1, 0]
    assert [bool(trial.get("output_ids")) for trial in soak[:3]] == [True, True, False]
    gaps_s = [later["soak_s"] - one["soak_s"] - one["latency_s"] for one, later in pairwise(soak)]
    # The disk takes 0.3 s for each result, and no request waits for it.
    assert sorted(gaps_s)[len(gaps_s) // 2] < 0.2
    (event,) = device.records("event")
    assert event["code"] == "soak_ended"
    assert event["data"]["requests"] == len(soak)
    assert event["data"]["soak_s"] >= event["data"]["duration_s"] == 3


def test_a_soak_that_was_interrupted_begins_anew_and_no_trial_is_lost(make_device):
    device = make_device()
    device.runner.start()
    device.runner.assign(job({**SOAK, "repetitions": 2}))
    second = ".heat.1.a1."
    wait_for(lambda: [one for one in device.records("trial") if second in one["trial_id"]], 60)
    device.stop()
    again = make_device()
    before = again.records("trial")
    again.runner.start()
    last = again.wait_for_end("c.d.000")
    trials = again.records("trial")
    assert last["state"] == "SUCCEEDED"
    assert len({trial["trial_id"] for trial in trials}) == len(trials) == last["trials_recorded"]
    assert trials[: len(before)] == before
    for repetition in (0, 1):
        whole = [
            trial
            for trial in trials
            if (trial["repetition"], trial["attempt"]) == (repetition, repetition + 1)
        ]
        assert_whole(whole, 3)
    events = [one for one in again.records("event") if one["code"] == "soak_ended"]
    assert [(one["data"]["repetition"], one["data"]["attempt"]) for one in events] == [
        (0, 1),
        (1, 2),
    ]


def test_a_soak_ends_with_the_jobs_own_deadline(make_device, new_children):
    device = make_device()
    last = run(device, job({**SOAK, "duration_s": 600}, timeouts={"job_s": 8}))
    assert (last["state"], last["failure"]["code"]) == ("TIMED_OUT", "JOB_TIMED_OUT")
    assert last["trials_recorded"] == len(device.records("trial")) > 0
    assert new_children() == []


def test_repetitions_stop_when_the_median_is_known_or_their_time_is_spent(make_device):
    device = make_device()
    loose = {"half_width_percent": 100, "min": 2}
    tight = {"half_width_percent": 0.001, "min": 2, "budget_s": 0.001}
    last = run(
        device,
        job(
            {"name": "known", "repetitions": 50, "warmup": 1, "adaptive": loose},
            {"name": "spent", "repetitions": 50, "adaptive": tight},
            {"name": "most", "repetitions": 3, "adaptive": {"half_width_percent": 0.001}},
            usd_per_hour=0.5,
        ),
    )
    trials = device.records("trial")
    made = [trial["workload"] for trial in trials if not trial["warmup"]]
    assert {name: made.count(name) for name in set(made)} == {"known": 6, "spent": 2, "most": 3}
    assert last["trials_recorded"] == last["trials_planned"] == 12
    ended = {one["data"]["workload"]: one["data"] for one in device.records("event")}
    reasons = {name: (data["reason"], data["repetitions"]) for name, data in ended.items()}
    assert reasons == {"known": ("target", 6), "spent": ("budget", 2), "most": ("most", 3)}
    assert 0 < ended["known"]["half_width_percent"] < 100
    assert "half_width_percent" not in ended["spent"]
    for trial in trials:
        assert trial["usd_per_hour"] == 0.5
        assert trial["cost_usd"] == pytest.approx(0.5 * trial["latency_s"] / 3600)
        assert trial["eq"] == pytest.approx(1 / (trial["cost_usd"] * trial["latency_s"]))
        assert trial["eq_per_token"] == pytest.approx(trial["eq"] * 4**2)


def test_adaptive_repetitions_go_on_after_an_interruption_with_what_was_known(make_device):
    device = make_device()
    device.runner.start()
    rules = {"half_width_percent": 100, "min": 30}
    asked = job({"name": "w", "repetitions": 50, "adaptive": rules})
    device.runner.assign(asked)
    wait_for(lambda: len(device.records("trial")) >= 4, 60)
    device.stop()
    again = make_device()
    again.runner.start()
    last = again.wait_for_end("c.d.000")
    assert (last["state"], last["trials_recorded"], last["attempt"]) == ("SUCCEEDED", 30, 2)
    (ended,) = [one for one in again.records("event") if one["code"] == "repetitions_ended"]
    assert (ended["data"]["reason"], ended["data"]["repetitions"]) == ("target", 30)


def verdicts(device):
    return [
        (trial["warmup"], "not_cooled" in trial["verdict_reasons"])
        for trial in device.records("trial")
    ]


def test_a_machine_that_stays_hot_is_measured_in_the_end_and_its_trials_are_suspect(
    make_device, tmp_path
):
    pi = raspberry_pi(tmp_path / "root")
    pi.zone(0, "cpu-thermal", 80000)
    device = make_device(sensor_root=pi.root)
    rule = {"temperature_c": 60, "timeout_s": 0.2}
    w = {"name": "w", "warmup": 1}
    device.runner.start()
    for number, before in enumerate(("repetition", "job")):
        device.runner.assign(job(w, cool_down={**rule, "before": before}, number=number))
        device.wait_for_end(f"c.d.{number:03d}")
    assert verdicts(device) == [(True, False), (False, True), (False, True)] + [
        (True, True),
        (False, True),
        (False, True),
    ]
    suspect = [
        one["verdict"] for one in device.records("trial") if "not_cooled" in one["verdict_reasons"]
    ]
    assert "VALID" not in suspect
    pi.zone(0, "cpu-thermal", 50000)
    device.runner.assign(job(w, cool_down={**rule, "before": "repetition"}, number=2))
    device.wait_for_end("c.d.002")
    assert verdicts(device)[6:] == [(True, False), (False, False), (False, False)]


def test_a_machine_is_waited_for_until_it_is_cool_and_a_cancel_ends_the_wait(
    make_device, tmp_path, new_children
):
    pi = raspberry_pi(tmp_path / "root")
    pi.zone(0, "cpu-thermal", 80000)
    device = make_device(sensor_root=pi.root)
    device.runner.start()
    waits = {"temperature_c": 60, "timeout_s": 600, "before": "repetition"}
    what = job({"name": "w", "warmup": 1}, cool_down=waits)
    device.runner.assign(what)
    wait_for(lambda: device.records("trial"), 60, "the warm-up")
    time.sleep(1)
    assert len(device.records("trial")) == 1
    pi.zone(0, "cpu-thermal", 59000)
    assert device.wait_for_end("c.d.000")["state"] == "SUCCEEDED"
    assert verdicts(device) == [(True, False), (False, False), (False, False)]
    pi.zone(0, "cpu-thermal", 80000)
    wait_for(lambda: device.sampler.latest().values["temperature_c"] == 80, 10)
    for number, before in ((1, "job"), (2, "repetition")):
        what = job({"name": "w"}, cool_down={**waits, "before": before}, number=number)
        device.runner.assign(what)
        wait_for(lambda job_id=what.job.job_id: "IN_PROGRESS" in device.states(job_id), 30)
        device.runner.assign(what.model_copy(update={"desired": "cancel"}))
        assert device.wait_for_end(what.job.job_id)["state"] == "CANCELED"
    assert len(device.records("trial")) == 3
    assert new_children() == []


def test_a_machine_without_a_temperature_does_not_wait_and_says_so_once(make_device, tmp_path):
    (tmp_path / "none").mkdir()
    device = make_device(sensor_root=tmp_path / "none")
    waits = {"temperature_c": 1, "timeout_s": 600, "before": "repetition"}
    last = run(device, job({"name": "w", "repetitions": 3}, cool_down=waits))
    assert last["state"] == "SUCCEEDED"
    assert [event["code"] for event in device.records("event")] == ["no_temperature"]
    assert verdicts(device) == [(False, False)] * 3


def test_a_device_that_has_forgotten_a_job_never_repeats_the_number_of_an_attempt(make_device):
    device = make_device()
    last = run(device, job({"name": "w"}).model_copy(update={"attempts_begun": 2}))
    assert (last["attempt"], last["since_attempt"]) == (3, 3)
    assert {trial["attempt"] for trial in device.records("trial")} == {3}
