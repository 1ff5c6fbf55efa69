"""What rejects a job before anything is fetched or started."""

from pathlib import Path

import pytest

from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import (
    COMMON_OPTIONS,
    SERVER_OPTIONS,
    Availability,
    load_failed,
    ran_out_of_memory,
)
from fleetmark_agent.backends.settings import EnginesSettings, OllamaSettings
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.preflight import check_job, check_model, check_options, with_slots
from fleetmark_protocol.errors import (
    BackendUnavailable,
    ModelRejected,
    OptionNotTaken,
    OutOfMemory,
    SourceNotAllowed,
)
from fleetmark_protocol.messages import JobSpec, Options

FILE = Path("model.gguf")


class FakeBackend:
    """Says of itself what a test wants."""

    name = "fake"
    formats = ("gguf",)
    takes = COMMON_OPTIONS | {"inner_backend"}

    def __init__(self, found=None):
        self.found = found or Availability(True)

    def probe(self):
        return self.found


def job(backend="fake", **options):
    return JobSpec.model_validate(
        {
            "job_id": "c.d.000",
            "campaign_id": "c",
            "backend": backend,
            "model": {"name": "m", "ref": "path:m.gguf"},
            "options": options,
            "workloads": [{"name": "w", "kind": "single", "prompts": ["p"]}],
        }
    )


def allowing(*names):
    return AgentSettings(device_id="d", runner={"allow_backends": names})


def test_a_job_that_may_run_gets_its_backend():
    backend = FakeBackend()
    assert check_job(job(), allowing("*"), lambda _: backend) is backend


def test_a_backend_that_the_owner_does_not_allow_is_never_even_looked_at():
    def create(name):
        raise AssertionError(name)

    with pytest.raises(SourceNotAllowed, match="'fake' is not allowed"):
        check_job(job(), allowing("other"), create)


def test_an_inner_backend_needs_to_be_allowed_as_well():
    with pytest.raises(SourceNotAllowed, match="'inner' is not allowed"):
        check_job(job(inner_backend="inner"), allowing("fake"), lambda _: FakeBackend())
    assert check_job(job(inner_backend="inner"), allowing("*"), lambda _: FakeBackend())


def test_an_inner_backend_that_is_not_installed_rejects_the_job_before_it_starts():
    missing = FakeBackend(Availability(False, reason="no engine"))
    found = {"fake": FakeBackend(), "inner": missing}
    with pytest.raises(BackendUnavailable, match="no engine"):
        check_job(job(inner_backend="inner"), allowing("*"), found.__getitem__)


def test_a_backend_that_is_not_installed_says_what_would_install_it():
    missing = FakeBackend(Availability(False, reason="no engine", hint="pip install engine"))
    with pytest.raises(BackendUnavailable, match="no engine") as caught:
        check_job(job(), allowing("*"), lambda _: missing)
    assert caught.value.hint == "pip install engine"


def crowd(*clients, parallel=None, backend="fake"):
    workloads = [
        {"name": f"crowd-{n}", "kind": "concurrency", "prompts": ["p"], "clients": n}
        for n in clients
    ]
    options = Options(parallel=parallel)
    plain = job(backend).model_dump()
    plain["workloads"] = [*plain["workloads"], *workloads]
    return JobSpec.model_validate({**plain, "options": options})


@pytest.mark.parametrize(
    ("clients", "own", "wanted"),
    [((1, 4, 2), None, 4), ((2,), 8, 8), ((4,), 2, 4), ((), None, None), ((), 3, 3)],
)
def test_an_engine_is_to_serve_as_many_as_the_most_clients_or_the_jobs_own_number(
    clients, own, wanted
):
    assert with_slots(crowd(*clients, parallel=own)).options.parallel == wanted


def test_clients_at_the_same_time_are_refused_where_one_is_served_and_who_serves_is_named():
    with pytest.raises(OptionNotTaken) as caught:
        check_job(with_slots(crowd(1, 4)), allowing("*"), creating_real)
    assert caught.value.message == (
        "workload 'crowd-4' has 4 clients ask at the same time, and backend 'fake' serves one"
        " request at a time here"
    )
    assert caught.value.hint == (
        "backends that serve several at once: llama_server, llamafile, openai, xllamacpp"
    )


def test_ollama_serves_several_only_where_the_agent_starts_it():
    attached, started = (
        registry.create("ollama", EnginesSettings(ollama=OllamaSettings(serve=serve)))
        for serve in ("auto", "always")
    )
    assert "parallel" not in attached.takes
    assert started.takes == attached.takes | {"parallel"}


def test_a_backend_that_serves_them_may_run_the_job():
    serving = FakeBackend()
    serving.takes = SERVER_OPTIONS
    assert check_job(with_slots(crowd(4)), allowing("*"), lambda _: serving) is serving


def creating_real(name):
    return FakeBackend() if name == "fake" else registry.create(name)


def test_options_at_their_default_ask_for_nothing():
    check_options("fake", Options(), frozenset())


def test_every_option_that_would_not_be_honoured_is_named():
    asked = Options(dtype="bf16", threads=2, load_quantization="int8_dynamic")
    with pytest.raises(OptionNotTaken, match=r"take dtype, load_quantization$"):
        check_options("fake", asked, COMMON_OPTIONS)


@pytest.mark.parametrize(
    "said",
    [
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 94371840",
        "unable to allocate CPU buffer",
        "std::bad_alloc",
        "MemoryError: ",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 34359738368 bytes.",
        "model requires more system memory (5.6 GiB) than is available (3.2 GiB)",
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 90.00 MB)",
        "llama_model_load: error loading model: mmap failed: Cannot allocate memory",
        "vendor/llama.cpp/ggml/src/ggml.c:1644: GGML_ASSERT(ctx->mem_buffer != NULL) failed",
        "GGML_ASSERT: models/ggml/llama.cpp:453: data",
        "OpenBLAS error: Memory allocation still failed after 10 retries, giving up.",
    ],
)
def test_what_engines_say_when_memory_runs_out_is_known(said):
    assert ran_out_of_memory(said)
    assert isinstance(load_failed(FILE, ValueError("no"), said), OutOfMemory)


@pytest.mark.parametrize(
    "said",
    [
        "invalid magic characters: 'not '",
        "unknown model architecture: 'none'",
        "tensor 'blk.7.ffn_up.weight' data is not within the file bounds",
        "allocated 94371840 bytes for the cache",
        "GGML_ASSERT: models/ggml/llama.cpp:1200: data_size",
    ],
)
def test_other_failures_are_not_taken_for_a_lack_of_memory(said):
    assert not ran_out_of_memory(said)
    assert isinstance(load_failed(FILE, ValueError("no"), said), ModelRejected)


class FakeReader(FakeBackend):
    """Says which architectures it runs."""

    def __init__(self, answer):
        super().__init__(Availability(True, version="1.2"))
        self.answer = answer

    def knows(self, architecture, options):
        return self.answer


def facts(architecture="mamba", kind="gguf"):
    return ModelFacts(format=kind, architecture=architecture)


def test_an_architecture_that_the_engine_does_not_run_is_refused_with_its_name():
    with pytest.raises(ModelRejected, match=r"'mamba', which fake 1\.2 does not run"):
        check_model(job(), facts(), lambda _: FakeReader(False))


def test_of_a_framework_the_engine_inside_decides():
    engines = {"fake": FakeReader(None), "inner": FakeReader(False)}
    with pytest.raises(ModelRejected, match=r"which inner 1\.2"):
        check_model(job(inner_backend="inner"), facts(), engines.__getitem__)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (True, facts()),
        (None, facts()),
        (False, facts(architecture=None)),
        (False, facts(kind="safetensors")),
    ],
)
def test_what_is_not_known_not_to_run_is_let_through(answer, found):
    check_model(job(), found, lambda _: FakeReader(answer))


def test_a_backend_that_cannot_say_lets_everything_through():
    check_model(job(), facts(), lambda _: FakeBackend())
