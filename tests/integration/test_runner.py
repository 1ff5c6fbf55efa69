"""The runner with its real parts: outbox, job log, sampler, model store, xllamacpp."""

import random
import threading
from contextlib import contextmanager

import pytest

from agentdevice import Device, assignment
from engines import MODEL_REF
from fakes.fake_sysfs import raspberry_pi
from fleetmark_agent import results
from fleetmark_agent.joblog import MAX_ATTEMPTS
from fleetmark_protocol.jobs import JobState
from ollamas import fake_ollama, running
from servers import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def make_device(tmp_path):
    made = []

    def make(name="state", **runner_settings):
        made.append(Device(tmp_path / name, **runner_settings))
        return made[-1]

    yield make
    for device in made:
        if not device.stopping:
            device.stop()


def test_a_job_runs_once_however_often_it_is_assigned_and_its_end_is_said_again(make_device):
    device = make_device()
    device.runner.start()
    for _ in range(3):
        device.runner.assign(assignment())
    assert device.wait_for_end("c.d.000")["state"] == "SUCCEEDED"
    assert len(device.records("trial")) == 3
    device.runner.assign(assignment())
    assert device.states("c.d.000") == ["IN_PROGRESS", "SUCCEEDED", "SUCCEEDED"]
    assert len(device.records("trial")) == 3
    assert device.records("job")[-1]["trials_recorded"] == 3


def test_a_job_is_canceled_before_it_begins_while_it_runs_and_when_it_is_unknown(
    make_device, new_children
):
    device = make_device()
    device.runner.start()
    device.runner.assign(assignment(0, repetitions=5000))
    device.runner.assign(assignment(1))
    wait_for(lambda: len(device.records("trial")) > 1, 60)
    device.runner.assign(assignment(1, desired="cancel"))
    device.runner.assign(assignment(0, desired="cancel", repetitions=5000))
    device.runner.assign(assignment(2, desired="cancel"))
    for number, begun in ((0, True), (1, False), (2, False)):
        last = device.wait_for_end(f"c.d.{number:03d}")
        assert last["state"] == "CANCELED"
        assert ("IN_PROGRESS" in device.states(last["job_id"])) == begun
    assert new_children() == []


@contextmanager
def throttled_again_and_again(pi):
    """Every 20 ms others of the firmware's bits are set, as no real firmware would set them."""
    ended = threading.Event()
    drawn = random.Random(1)

    def flicker() -> None:
        while not ended.wait(0.02):
            pi.firmware_bits(drawn.getrandbits(60))

    thread = threading.Thread(target=flicker)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_trial_during_which_the_machine_began_to_be_throttled_is_invalid(make_device, tmp_path):
    pi = raspberry_pi(tmp_path / "root")
    device = make_device(sensor_root=pi.root)
    device.runner.start()
    with throttled_again_and_again(pi):
        device.runner.assign(assignment(0))
        device.wait_for_end("c.d.000")
    for trial in device.records("trial"):
        assert trial["verdict"] == "INVALID"
        assert "throttled" in trial["verdict_reasons"]
    pi.firmware_bits(0x80008)
    device.runner.assign(assignment(1))
    device.wait_for_end("c.d.001")
    hot = [trial for trial in device.records("trial") if trial["job_id"] == "c.d.001"]
    assert ["throttled" in trial["verdict_reasons"] for trial in hot] == [True] * 3
    pi.firmware_bits(0x80000)
    device.runner.assign(assignment(2))
    device.wait_for_end("c.d.002")
    cool = [trial for trial in device.records("trial") if trial["job_id"] == "c.d.002"]
    assert ["throttled" in trial["verdict_reasons"] for trial in cool] == [False] * 3


def test_a_withdrawn_job_is_stopped(make_device):
    device = make_device()
    device.runner.start()
    device.runner.assign(assignment(repetitions=5000))
    wait_for(lambda: device.records("trial"), 60)
    device.runner.withdraw("c.d.000")
    device.runner.withdraw("c.d.999")
    assert device.wait_for_end("c.d.000")["state"] == "CANCELED"


def test_an_agent_that_is_stopped_parks_its_job_and_goes_on_after_a_restart(make_device):
    device = make_device()
    device.runner.start()
    device.runner.assign(assignment(repetitions=20))
    wait_for(lambda: len(device.records("trial")) >= 3, 60)
    device.stop()
    again = make_device()
    assert again.joblog.get("c.d.000").state is JobState.IN_PROGRESS
    before = len(again.records("trial"))
    again.runner.start()
    assert again.wait_for_end("c.d.000")["state"] == "SUCCEEDED"
    trials = again.records("trial")
    assert len(trials) == len({trial["trial_id"] for trial in trials}) == 21
    assert [trial["attempt"] for trial in trials].count(1) == before
    assert [event["code"] for event in again.records("event")] == ["job_interrupted"]


def test_a_job_that_takes_the_agent_down_each_time_is_given_up(make_device):
    device = make_device()
    device.joblog.accept(assignment().job)
    for _ in range(MAX_ATTEMPTS):
        device.joblog.begin("c.d.000")
    device.runner.start()
    last = device.wait_for_end("c.d.000")
    assert (last["state"], last["failure"]["code"]) == ("FAILED", "INTERRUPTED")


def test_a_mistake_of_the_agent_fails_one_job_and_the_next_one_runs(make_device, monkeypatch):
    device = make_device()

    def broken(*_, **__):
        raise ValueError("token times go backwards")

    with monkeypatch.context() as patch:
        patch.setattr(results, "measured_fields", broken)
        device.runner.start()
        device.runner.assign(assignment(0))
        last = device.wait_for_end("c.d.000")
    assert last["state"] == "FAILED"
    assert "token times go backwards" in last["failure"]["message"]
    device.runner.assign(assignment(1))
    assert device.wait_for_end("c.d.001")["state"] == "SUCCEEDED"


def test_a_job_past_its_own_deadline_is_timed_out(make_device, new_children):
    device = make_device()
    device.runner.start()
    device.runner.assign(assignment(repetitions=5000, timeouts={"job_s": 2}))
    last = device.wait_for_end("c.d.000")
    assert (last["state"], last["failure"]["code"]) == ("TIMED_OUT", "JOB_TIMED_OUT")
    assert new_children() == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"backend": "no_such_backend"}, "BACKEND_UNAVAILABLE"),
        ({"model": {"name": "m", "ref": "path:../../etc/passwd"}}, "CONFIG"),
        ({"model": {"name": "m", "ref": "path:none.gguf"}}, "MODEL_NOT_FOUND"),
        ({"model": {"name": "m", "ref": "https://example.invalid/m.gguf"}}, "CONFIG"),
        (
            {"model": {"name": "m", "ref": MODEL_REF, "sha256": "0" * 64}},
            "MODEL_REJECTED",
        ),
    ],
)
def test_what_cannot_run_here_is_rejected_before_it_begins(make_device, change, code):
    device = make_device()
    device.runner.start()
    device.runner.assign(assignment(**change))
    last = device.wait_for_end("c.d.000")
    assert (last["state"], last["failure"]["code"]) == ("REJECTED", code), last
    assert device.states("c.d.000") == ["REJECTED"]


def test_a_model_larger_than_memory_is_rejected_with_what_it_needs(make_device):
    device = make_device(ram_bytes=100 * 2**20)
    device.runner.start()
    device.runner.assign(assignment())
    last = device.wait_for_end("c.d.000")
    assert (last["state"], last["failure"]["code"]) == ("REJECTED", "MODEL_TOO_LARGE")
    assert "does not fit in memory: needs" in last["failure"]["message"]
    assert "104.9 MB free" in last["failure"]["message"]


def test_what_the_owner_does_not_allow_is_rejected(make_device):
    device = make_device(allow_backends=("llama_cpp",))
    device.runner.start()
    device.runner.assign(assignment())
    last = device.wait_for_end("c.d.000")
    assert (last["state"], last["failure"]["code"]) == ("REJECTED", "SOURCE_NOT_ALLOWED")


def test_two_agents_of_one_machine_never_measure_at_once(make_device):
    first, second = make_device("one"), make_device("two")
    for device in (first, second):
        device.runner.start()
        device.runner.assign(assignment(repetitions=15))
    for device in (first, second):
        assert device.wait_for_end("c.d.000")["state"] == "SUCCEEDED"
    spans = []
    for device in (first, second):
        times = [trial["time_ns"] for trial in device.records("trial")]
        spans.append((min(times), max(times)))
    (a, b), (c, d) = sorted(spans)
    assert a < b < c < d
    events = [event["code"] for device in (first, second) for event in device.records("event")]
    assert events == ["waiting_for_machine"]


def test_a_cold_job_starts_an_engine_and_loads_the_model_for_every_trial(make_device, new_children):
    device = make_device()
    device.runner.start()
    cold = {"threads": 1, "context_tokens": 256, "start": "cold"}
    device.runner.assign(assignment(options=cold, repetitions=3))
    assert device.wait_for_end("c.d.000")["state"] == "SUCCEEDED"
    trials, loads = device.records("trial"), device.records("load")
    assert len(trials) == len(loads) == 4
    for trial, load in zip(trials, loads, strict=True):
        assert trial["cold"]
        assert trial["load_s"] == load["load_s"] > 0
        assert trial["latency_cold_s"] == trial["load_s"] + trial["latency_s"]
    assert new_children() == []


def test_a_warm_job_loads_once_and_only_its_first_request_is_a_cold_one(make_device):
    device = make_device()
    device.runner.start()
    device.runner.assign(assignment())
    device.wait_for_end("c.d.000")
    trials = device.records("trial")
    assert len(device.records("load")) == 1
    assert trials[0]["latency_cold_s"] > trials[0]["latency_s"]
    assert [trial.get("latency_cold_s") for trial in trials[1:]] == [None, None]
    assert not any(trial["cold"] for trial in trials)
    assert device.records("load")[0]["engine"]["context_tokens"] == 256


def test_token_ids_are_recorded_once_a_prompt_and_their_digests_every_time(make_device):
    device = make_device()
    device.runner.start()
    device.runner.assign(assignment())
    device.wait_for_end("c.d.000")
    warmup, first, second = device.records("trial")
    assert len(first["output_ids"]) == 8
    assert first["prompt_ids"]
    assert second.get("output_ids") is None
    assert warmup["output_ids_sha256"] == first["output_ids_sha256"] == second["output_ids_sha256"]


def test_an_option_that_the_backend_would_not_honour_rejects_the_job(make_device):
    device = make_device()
    device.runner.start()
    asked = {"threads": 1, "context_tokens": 256, "dtype": "bf16", "inner_backend": "llama_cpp"}
    device.runner.assign(assignment(options=asked))
    last = device.wait_for_end("c.d.000")
    assert (last["state"], last["failure"]["code"]) == ("REJECTED", "OPTION_NOT_TAKEN")
    assert "inner_backend, dtype" in last["failure"]["message"]
    assert device.records("load") == []


def test_telemetry_follows_somebody_elses_server_that_does_the_work(make_device, tmp_path):
    with running(fake_ollama(tmp_path / "bin"), tmp_path / "serve") as url:
        device = make_device(engines={"ollama": {"url": url, "serve": "never"}})
        device.runner.start()
        device.runner.assign(assignment(backend="ollama"))
        assert device.wait_for_end("c.d.000")["state"] == "SUCCEEDED"
    (load,) = device.records("load")
    assert load.get("rss_bytes") is None, "nobody was followed yet while it loaded"
    for trial in device.records("trial"):
        # The weights are in the server's runner, and nothing of them in the worker.
        assert trial["rss_bytes"] > 98 * 10**6
        assert trial["prompt_tokens_evaluated"] == trial["prompt_tokens"] > 0


def test_a_model_of_an_engines_own_server_needs_the_owners_leave(make_device, tmp_path):
    remote = {"name": "m", "ref": "remote:no-such-model"}
    with running(fake_ollama(tmp_path / "bin"), tmp_path / "serve") as url:
        engines = {"ollama": {"url": url, "serve": "never"}}
        device = make_device("strict", engines=engines)
        device.runner.start()
        device.runner.assign(assignment(backend="ollama", model=remote))
        last = device.wait_for_end("c.d.000")
        assert (last["state"], last["failure"]["code"]) == ("REJECTED", "SOURCE_NOT_ALLOWED")
        device.stop()
        device = make_device("open", engines=engines, sources=("remote:",))
        device.runner.start()
        device.runner.assign(assignment(0, backend="ollama", model=remote))
        device.runner.assign(assignment(1, backend="xllamacpp", model=remote))
        last = device.wait_for_end("c.d.000")
        assert (last["state"], last["failure"]["code"]) == ("FAILED", "MODEL_NOT_FOUND")
        last = device.wait_for_end("c.d.001")
        assert (last["state"], last["failure"]["code"]) == ("REJECTED", "MODEL_REJECTED")


def test_weights_that_an_engine_unpacks_must_fit_unpacked(make_device):
    pytest.importorskip("torch")
    # Room for the file and llama.cpp's work on it, not for 32 bits of every weight.
    device = make_device(ram_bytes=450 * 10**6)
    device.runner.start()
    device.runner.assign(assignment(0))
    device.runner.assign(assignment(1, backend="transformers"))
    assert device.wait_for_end("c.d.000")["state"] == "SUCCEEDED"
    last = device.wait_for_end("c.d.001")
    assert (last["state"], last["failure"]["code"]) == ("REJECTED", "MODEL_TOO_LARGE")
