"""Jobs that go by the contract and ask for more than a device can or its owner will give."""

import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdevice import assignment
from fleetmark_agent import limits
from fleetmark_agent.config import AgentSettings, RunnerSettings
from fleetmark_agent.engine import KEPT_LOGS, forget_old_logs
from fleetmark_agent.limits import check_size
from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.models.preflight import check_fits
from fleetmark_agent.preflight import check_job, with_slots
from fleetmark_agent.trials import plan, planned_count
from fleetmark_protocol.errors import ConfigError, JobTooLarge, ModelTooLarge
from fleetmark_protocol.joblimits import MAX_TRIALS, MAX_WORKLOADS
from fleetmark_protocol.messages import JobSpec, Options
from fleetmark_protocol.settings import load

GIB = 2**30


def job(options=None, timeouts=None, **workload) -> JobSpec:
    work = {"name": "w", "kind": "single", "prompts": ["x"], **workload}
    return assignment(
        workloads=[work], options=options or {}, **({"timeouts": timeouts} if timeouts else {})
    ).job


def refused(spec, cores=4, **runner):
    with pytest.raises(JobTooLarge) as caught:
        check_size(with_slots(spec), RunnerSettings(**runner), cores)
    return caught.value


def test_billions_of_trials_are_counted_not_planned():
    spec = job(prompts=[""] * 300_000, repetitions=10_000, kind="multi", warmup=100)
    assert planned_count(spec) == 300_000 * 10_000 + 100
    assert "3,000,000,100 trials; an agent takes 100,000" in refused(spec).message


def test_what_one_message_can_hold_of_long_prompts_is_planned_and_bounded_by_time():
    spec = job(prompts=["x" * 200_000] * 4, repetitions=10_000, kind="multi")
    check_size(spec, RunnerSettings(), 4)
    assert planned_count(spec) <= MAX_TRIALS


def test_thousands_of_workloads_are_refused():
    spec = job().model_copy(update={"workloads": job().workloads * (MAX_WORKLOADS + 1)})
    assert f"{MAX_WORKLOADS + 1} workloads" in refused(spec).message


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["single", "multi", "concurrency", "soak", "coldstart", "context_sweep"]),
    warmup=st.integers(0, 3),
    repetitions=st.integers(1, 4),
    clients=st.integers(1, 5),
    prompts=st.integers(1, 4),
)
def test_the_count_is_that_of_the_plan(kind, warmup, repetitions, clients, prompts):
    spec = job(
        kind=kind, warmup=warmup, repetitions=repetitions, clients=clients, prompts=["p"] * prompts
    )
    soaks = repetitions if kind == "soak" else 0
    assert planned_count(spec) == len(plan(spec)) + soaks


def test_threads_beyond_all_reason_are_refused_and_some_more_than_cores_are_not():
    assert "1024 threads; this device has 4 cores" in refused(job({"threads": 1024})).message
    check_size(job({"threads": 16}), RunnerSettings(), 4)
    check_size(job({"threads": 256}), RunnerSettings(), 64)


@pytest.mark.parametrize("job_s", [1e308, 700_000.0])
def test_a_job_may_not_ask_for_the_device_for_ever(job_s):
    told = refused(job(timeouts={"job_s": job_s}))
    assert "owner allows 604800 s" in told.message
    assert "runner.max_job_s" in (told.hint or "")


def test_the_owner_may_give_less_time_and_less_context():
    check_size(job(), RunnerSettings(max_job_s=7200), 4)
    refused(job(), max_job_s=7199)
    check_size(job({"context_tokens": 4096}), RunnerSettings(max_context_tokens=4096), 4)
    many = job({"context_tokens": 2048}, kind="concurrency", clients=4)
    told = refused(many, max_context_tokens=4096)
    assert "contexts of 8,192 tokens; this device's owner allows 4,096" in told.message


def test_a_job_that_is_too_large_is_refused_before_its_backend_is_looked_at():
    def create(name):
        raise AssertionError(name)

    with pytest.raises(JobTooLarge):
        check_job(job({"threads": 1024}), AgentSettings(device_id="d"), create)


@pytest.mark.parametrize("known", [11_520, None])
def test_a_million_tokens_for_256_clients_says_what_it_needs_and_what_is_there(known):
    facts = ModelFacts(parameters=135_000_000, kv_values_per_token=known, vocabulary=49_152)
    options = Options(context_tokens=1_048_576, parallel=256)
    with pytest.raises(ModelTooLarge, match=r"needs \d{4,}\.\d GB .* 8\.6 GB free"):
        check_fits(facts, 98_000_000, options.context_tokens, 8 * GIB, options.parallel or 1)


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "x"])
def test_a_limit_that_is_none_is_the_owners_mistake(wrong):
    with pytest.raises(ConfigError, match="max_job_s"):
        load(AgentSettings, None, {"runner": {"max_job_s": wrong}}, environ={})


def test_the_end_of_the_owners_patience_says_whose_it_was():
    error = limits.held_too_long(3600)
    assert error.code == "JOB_TIMED_OUT"
    assert "held the device for 3600 s" in error.message


def test_what_engines_printed_is_kept_of_the_newest_jobs_only(tmp_path):
    for number in range(KEPT_LOGS + 5):
        file = tmp_path / f"j{number}.log"
        file.touch()
        os.utime(file, (number, number))
    (tmp_path / "other").touch()
    forget_old_logs(tmp_path)
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {f"j{number}.log" for number in range(5, KEPT_LOGS + 5)} | {"other"}
