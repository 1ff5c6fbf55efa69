"""What a plan says a device would refuse, before anything is sent to it."""

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, make_campaign, make_inventory
from fleetmark_agent.config import RunnerSettings
from fleetmark_agent.limits import check_size
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_protocol.errors import JobTooLarge
from fleetmark_protocol.messages import BackendInfo, Hardware, ModelInfo

ONE_CELL = CAMPAIGN.replace("[Q8_0, Q4_0]", "Q8_0").replace("[1, 2]", "1")
CROWD = ONE_CELL.replace("kind: single", "kind: concurrency, clients: [2, 4]")
PI = Hardware(arch="aarch64", os="Linux", kernel="6", hostname="pi", mem_total_bytes=4 * 10**9)
SERVES = ("threads", "context_tokens", "parallel")


def backend(name="xllamacpp", **more):
    return BackendInfo(name=name, available=True, version="1", **more)


def model(**more):
    known = {"name": "tiny.gguf", "sha256": "ab" * 32, "quantization": "Q8_0"}
    return ModelInfo(**{**known, "bytes": 3 * 10**9, "parameters": 3 * 10**9, **more})


def device(*backends, models=(), **more):
    inventory = make_inventory(backends=backends, models=models, hardware=PI)
    return FakeDevice("pi", inventory=inventory, **more)


def plan_of(tmp_path, text, *devices):
    plan = make_plan(make_campaign(tmp_path, text), "c1", devices)
    assert plan.problems == ()
    return plan


def refusal(tmp_path, text, *devices):
    return plan_of(tmp_path, text, *devices).jobs[0].refusal


def test_clients_are_refused_by_an_engine_that_serves_one_at_a_time(tmp_path):
    told = backend(takes=("threads",)), backend("llama_server", takes=SERVES)
    assert refusal(tmp_path, CROWD, device(*told)) == (
        "workload 'one-4' has 4 clients ask at the same time, and backend 'xllamacpp' serves one "
        "request at a time there (backends that serve several there: llama_server)"
    )
    assert refusal(tmp_path, CROWD, device(backend(takes=SERVES))) is None
    assert refusal(tmp_path, ONE_CELL, device(*told)) is None


def test_an_agent_that_does_not_tell_what_it_takes_is_not_judged(tmp_path):
    assert refusal(tmp_path, CROWD, device(backend())) is None


def test_where_such_cells_are_skipped_the_reason_is_kept(tmp_path):
    text = CROWD + "unavailable: skip\n"
    able = FakeDevice("pi-2", inventory=make_inventory())
    plan = plan_of(tmp_path, text, device(backend(takes=("threads",))), able)
    (left,) = plan.left_out
    assert "serves one request at a time there (backends that serve several there: none)" in (
        left.reason
    )
    assert {job.device for job in plan.jobs} == {"pi-2"}


def test_a_model_of_an_architecture_that_the_engine_does_not_know_is_refused(tmp_path):
    particular = backend(architectures=("llama", "gpt2"))
    holder = FakeDevice("ec2", inventory=make_inventory(models=(model(architecture="qwen2"),)))
    assert refusal(
        tmp_path, ONE_CELL.replace("all: true", "devices: [pi]"), *[device(particular), holder]
    ) == (
        "backend 'xllamacpp' does not know models of architecture qwen2 there (it knows llama, "
        "gpt2)"
    )


@pytest.mark.parametrize(
    ("architectures", "architecture"),
    [((), "qwen2"), (("llama",), "llama"), (("llama",), None)],
)
def test_what_is_known_or_not_told_is_not_refused(tmp_path, architectures, architecture):
    one = device(backend(architectures=architectures), models=(model(architecture=architecture),))
    assert refusal(tmp_path, ONE_CELL, one) is None


def test_an_engine_that_is_not_built_for_the_processor_is_refused_in_its_own_words(tmp_path):
    broken = BackendInfo(
        name="xllamacpp",
        available=False,
        reason="the file is for x86_64, this machine is aarch64",
        hint="install a build for aarch64",
    )
    assert refusal(tmp_path, ONE_CELL, device(broken)) == (
        "backend 'xllamacpp' is not available there: the file is for x86_64, this machine is "
        "aarch64 (install a build for aarch64)"
    )


def test_weights_and_the_contexts_of_all_clients_must_fit(tmp_path):
    # 3 GB of weights; a context of 2048 tokens takes 0.26 GB, and four of them 1.07 GB.
    held = model(kv_bytes_per_token=131_072)
    able = backend(takes=SERVES)
    assert refusal(tmp_path, ONE_CELL, device(able, models=(held,))) is None
    assert refusal(tmp_path, CROWD, device(able, models=(held,))) == (
        "does not fit: needs 4.1 GB (weights 3.0 GB, 4 contexts of 2048 tokens 1.1 GB), the device "
        "has 4.0 GB"
    )
    smaller = CROWD.replace("threads: 1", "threads: 1, context_tokens: 1024")
    assert refusal(tmp_path, smaller, device(able, models=(held,))) is None


def test_one_large_context_may_be_too_much_by_itself(tmp_path):
    text = ONE_CELL.replace("threads: 1", "threads: 1, context_tokens: 8192")
    assert refusal(tmp_path, text, device(backend(), models=(model(kv_bytes_per_token=131_072),)))
    assert "1 context of 8192 tokens 1.1 GB" in str(
        refusal(tmp_path, text, device(backend(), models=(model(kv_bytes_per_token=131_072),)))
    )
    assert refusal(tmp_path, text, device(backend(), models=(model(),))) is None


def test_slots_that_the_file_asks_for_count_where_they_are_more_than_the_clients(tmp_path):
    text = ONE_CELL.replace("threads: 1", "threads: 1, parallel: 6")
    one = device(backend(takes=SERVES), models=(model(kv_bytes_per_token=131_072),))
    assert "6 contexts of 2048 tokens 1.6 GB" in str(refusal(tmp_path, text, one))


# --- jobs that are too large ---------------------------------------------------------------------


def sized(hardware=PI, **inventory):
    return FakeDevice("pi", inventory=make_inventory(hardware=hardware, **inventory))


FOUR_CORES = PI.model_copy(update={"cores_logical": 4})
MANY_THREADS = ONE_CELL.replace("threads: 1", "threads: 17")


def test_threads_are_held_against_the_cores_that_the_inventory_tells(tmp_path):
    told = refusal(tmp_path, MANY_THREADS, sized(FOUR_CORES))
    assert told == "the job asks for 17 threads; this device has 4 cores and takes 16"
    assert refusal(tmp_path, MANY_THREADS.replace("17", "16"), sized(FOUR_CORES)) is None
    eight = FOUR_CORES.model_copy(update={"cores_logical": 8})
    assert refusal(tmp_path, MANY_THREADS, sized(eight)) is None
    assert refusal(tmp_path, MANY_THREADS, sized(PI)) is None  # it does not tell its cores


def test_trials_are_counted_whatever_the_device_says_of_itself(tmp_path):
    prompts = ", ".join("abcdefghijk")
    text = ONE_CELL.replace("kind: single, prompt: hello", f"kind: multi, prompts: [{prompts}]")
    text = text.replace("repetitions: 2", "repetitions: 10000")
    told = "the job has 110,001 trials; an agent takes 100,000 (ask for fewer repetitions or "
    for one in (sized(), FakeDevice("pi", inventory=None)):
        assert str(refusal(tmp_path, text, one)).startswith(told)
    assert refusal(tmp_path, text.replace("10000", "9000"), sized()) is None


def test_the_owners_limits_are_those_of_the_inventory(tmp_path):
    assert refusal(tmp_path, ONE_CELL, sized(max_job_s=3600)) == (
        "the job may take 7200 s; this device's owner allows 3600 s (set a smaller timeouts.job_s, "
        "or let the owner raise runner.max_job_s)"
    )
    assert refusal(tmp_path, ONE_CELL, sized(max_job_s=7200)) is None
    told = refusal(tmp_path, CROWD, sized(max_context_tokens=4096))
    assert str(told).startswith(
        "the job asks for contexts of 8,192 tokens; this device's owner allows 4,096 ("
    )
    assert refusal(tmp_path, CROWD, sized(max_context_tokens=8192)) is None


def test_an_older_agent_that_does_not_tell_its_owners_limits_is_not_judged(tmp_path):
    long = ONE_CELL + "timeouts: {job_s: 600000}\n"
    assert refusal(tmp_path, long, sized()) is None


def test_what_a_plan_foretells_is_what_the_device_says(tmp_path):
    (job,) = plan_of(tmp_path, MANY_THREADS, sized(FOUR_CORES)).jobs
    with pytest.raises(JobTooLarge) as caught:
        check_size(job.spec, RunnerSettings(), 4)
    assert caught.value.message == job.refusal
