"""Jobs whose clients ask at the same time: the runner with its real parts and real engines."""

import threading

import psutil
import pytest

from agentdevice import Device, assignment
from enginetable import program
from servers import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path / "state")
    yield made
    if not made.stopping:
        made.stop()


def crowd(clients=2, prompts=("The sun", "Two and two"), **more):
    workload = {"name": f"crowd-{clients}", "kind": "concurrency", "clients": clients}
    asked = {"prompts": prompts, "output_tokens": 8, "warmup": 1, "repetitions": 2}
    return {**workload, **asked, **more}


def run(device, *workloads, **job):
    device.runner.start()
    device.runner.assign(assignment(workloads=workloads, **job))
    return device.wait_for_end("c.d.000")


def test_every_client_of_every_round_has_a_record_with_the_throughput_of_its_round(device):
    assert run(device, crowd(1), crowd(2), crowd(4))["state"] == "SUCCEEDED"
    trials = device.records("trial")
    assert len(trials) == 3 * (1 + 2 + 4)
    by_round = {}
    for trial in trials:
        key = (trial["workload"], trial["warmup"], trial["repetition"])
        by_round.setdefault(key, []).append(trial)
    assert len(by_round) == 9
    for together in by_round.values():
        clients = together[0]["clients"]
        assert [trial["client"] for trial in together] == list(range(clients))
        for shared in ("throughput_tps", "cpu_percent_mean", "rss_bytes"):
            assert len({trial.get(shared) for trial in together}) == 1, shared
        assert all(trial["output_tokens"] == 8 for trial in together)
        assert all(trial["prompt_tokens_evaluated"] == trial["prompt_tokens"] for trial in together)
        slowest_s = max(trial["latency_s"] for trial in together)
        assert together[0]["throughput_tps"] <= clients * 8 / slowest_s
    (load,) = device.records("load")
    assert load["engine"]["slots"] == 4, "the most clients, for all workloads of the job"


@pytest.mark.skipif(program("llama-server") is None, reason="no llama-server on the PATH")
def test_a_server_outside_of_the_worker_serves_them_too(device):
    assert run(device, crowd(2), backend="llama_server")["state"] == "SUCCEEDED"
    trials = device.records("trial")
    assert len(trials) == 6
    assert {trial["backend"] for trial in trials} == {"llama_server"}
    assert all(trial["throughput_tps"] > 0 for trial in trials)


def test_each_client_pays_its_share_of_the_round(device):
    run(device, crowd(2, warmup=0), usd_per_hour=3600.0)
    first, second = device.records("trial")[:2]
    assert first["cost_usd"] == second["cost_usd"]
    slowest_s = max(first["latency_s"], second["latency_s"])
    # A dollar a second: both together cost the time from the first start to the last end.
    assert slowest_s <= 2 * first["cost_usd"] < slowest_s + 0.5


def test_a_client_that_fails_is_its_own_failure_and_its_round_is_not_compared(device):
    last = run(device, crowd(2, prompts=["The sun", "word " * 600]))
    assert (last["state"], last["failure"]["code"]) == ("FAILED", "PROMPT_TOO_LONG")
    trials = device.records("trial")
    assert len(trials) == 6, "the rounds after it are made all the same"
    for good, bad in zip(trials[::2], trials[1::2], strict=True):
        assert (good.get("failure"), good["output_tokens"]) == (None, 8)
        assert "throughput_tps" not in good
        assert good["verdict"] == "INVALID"
        assert "incomplete_round" in good["verdict_reasons"]
        assert bad["failure"]["code"] == "PROMPT_TOO_LONG"


def test_an_engine_that_serves_one_at_a_time_rejects_the_job_before_anything_is_loaded(device):
    last = run(device, crowd(4), backend="llama_cpp")
    assert last["state"] == "REJECTED"
    assert last["failure"]["code"] == "OPTION_NOT_TAKEN"
    assert "crowd-4" in last["failure"]["message"]
    assert "4 clients" in last["failure"]["message"]
    assert "xllamacpp" in last["failure"]["message"], "who serves them is in the hint"
    assert device.records("load") == device.records("trial") == []


def test_memory_for_all_the_contexts_is_looked_for_before_the_job_starts(tmp_path):
    device = Device(tmp_path / "small", ram_bytes=500 * 2**20)
    last = run(device, crowd(64), options={"threads": 1, "context_tokens": 2048})
    assert last["state"] == "REJECTED"
    assert last["failure"]["code"] == "MODEL_TOO_LARGE"
    assert "KV cache of 64 contexts" in last["failure"]["message"]
    device.stop()


def test_an_agent_that_ends_in_the_middle_of_a_round_makes_the_whole_round_again(device, tmp_path):
    device.runner.start()
    long = crowd(3, prompts=["The sun"], output_tokens=60, warmup=0, repetitions=3)
    device.runner.assign(assignment(workloads=[long]))
    wait_for(lambda: len(device.records("trial")) == 3, 60, "the first round")
    device.stop()
    seen = Device(tmp_path / "state")
    recorded = [trial["trial_id"] for trial in seen.records("trial")]
    assert len(recorded) in (3, 6), "all clients of a round, or none"
    seen.runner.start()
    assert seen.wait_for_end("c.d.000")["state"] == "SUCCEEDED"
    ids = [trial["trial_id"] for trial in seen.records("trial")]
    assert ids == [f"c.d.000.crowd-3.{rep}.{client}" for rep in range(3) for client in range(3)]
    seen.stop()


def test_a_cancel_in_the_middle_of_a_round_ends_it_and_records_nothing_of_it(device):
    device.runner.start()
    before = set(psutil.Process().children(recursive=True))
    long = crowd(2, prompts=["The sun"], output_tokens=1900, warmup=0)
    options = {"threads": 1, "context_tokens": 2048}
    device.runner.assign(assignment(workloads=[long], options=options))
    wait_for(lambda: device.records("load"), 60, "the load")
    threading.Event().wait(0.5)
    device.runner.assign(assignment(desired="cancel", workloads=[long], options=options))
    assert device.wait_for_end("c.d.000")["state"] == "CANCELED"
    assert device.records("trial") == []
    assert set(psutil.Process().children(recursive=True)) <= before
