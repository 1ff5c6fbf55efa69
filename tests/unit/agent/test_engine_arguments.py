"""What of a job reaches an engine's command line: numbers, choices, and paths of the store."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetmark_agent.backends import registry
from fleetmark_agent.backends.llama_program import server_arguments
from fleetmark_agent.backends.llamafile_cli import arguments
from fleetmark_agent.backends.ollama_wire import request_options
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_agent.models import targets
from fleetmark_agent.models.reference import RemoteReference, parse
from fleetmark_protocol.errors import BackendUnavailable, ConfigError
from fleetmark_protocol.messages import JobSpec, Options
from fleetmark_protocol.values import NO_NUL

_FLAGS = (
    "--parallel --n-gpu-layers --no-warmup --fit --no-cache-prompt --cache-ram --threads"
    " --threads-batch --batch-size --cont-batching --no-kv-unified --no-context-shift --no-webui"
    " --ignore-eos --repeat-penalty --top-k --top-p --min-p --simple-io --no-display-prompt"
)
KNOWN = frozenset(_FLAGS.split())
HOSTILE = ("--rpc", "-m", "--lora=/x", "--model=/etc/passwd", "-hf evil/x", "a b", "x\ty", "%n")
OURS = KNOWN | {"--model", "--host", "--port", "--ctx-size", "--cli", "--file", "--n-predict"}
OURS |= {"--temp", "--seed", "--no-escape"}


def options_of_any_kind():
    return st.builds(
        Options,
        threads=st.none() | st.integers(1, 1024),
        context_tokens=st.integers(8, 1_048_576),
        batch_tokens=st.none() | st.integers(1, 65536),
        temperature=st.floats(0, 10),
        seed=st.integers(0, 2**31 - 1),
        ignore_eos=st.booleans(),
        parallel=st.none() | st.integers(1, 256),
        inner_backend=st.none() | st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
    )


def check_line(line: list[str], model: Path) -> None:
    """Every flag is one that we write ourselves; what is no flag is a number, a word or a path."""
    assert all(word in OURS for word in line if word.startswith("-"))
    assert line[line.index("--model") + 1] == str(model)
    rest = [word for word in line if not word.startswith("-")]
    words = {"off", "127.0.0.1", str(model), "/scratch/prompt"}
    assert all(word in words or float(word) >= 0 for word in rest)


@settings(max_examples=150, deadline=None)
@given(options=options_of_any_kind(), name=st.sampled_from(HOSTILE))
def test_no_option_and_no_name_becomes_a_flag_of_llama_cpps_server(options, name):
    model = Path("/store") / name
    check_line(server_arguments(KNOWN, model, 4242, options), model)


@settings(max_examples=150, deadline=None)
@given(options=options_of_any_kind(), name=st.sampled_from(HOSTILE))
def test_no_option_and_no_name_becomes_a_flag_of_a_llamafile(options, name):
    model = Path("/store") / name
    line = arguments(KNOWN, (0, 9, 0), model, Path("/scratch/prompt"), 64, options)
    check_line(line, model)


@settings(max_examples=50, deadline=None)
@given(options=options_of_any_kind())
def test_what_ollama_is_told_of_a_job_are_numbers(options):
    told = request_options(options, 64)
    assert all(isinstance(value, (int, float, bool)) for value in told.values() if value != [])


def free_texts(schema, whole=None, path="") -> set[str]:
    """Return the places of a schema that take any text."""
    whole = whole or schema
    if "$ref" in schema:
        return free_texts(whole["$defs"][schema["$ref"].rsplit("/", 1)[-1]], whole, path)
    found: set[str] = set()
    for one in schema.get("anyOf", ()):
        found |= free_texts(one, whole, path)
    for name, one in schema.get("properties", {}).items():
        found |= free_texts(one, whole, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found |= free_texts(schema[key], whole, f"{path}[]")
    for one in schema.get("patternProperties", {}).values():
        found |= free_texts(one, whole, f"{path}[]")
    chosen = "enum" in schema or "const" in schema or schema.get("pattern") not in (None, NO_NUL)
    return found | ({path} if schema.get("type") == "string" and not chosen else set())


def test_a_job_has_free_text_in_these_places_and_no_other():
    """A new one has to be looked at: where does it go, and what would a flag or a path do there?"""
    assert free_texts(JobSpec.model_json_schema()) == {
        ".model.ref",
        ".model.quantization",
        ".labels[]",
        ".workloads[].prompts[]",
        ".centre",
    }


@pytest.mark.parametrize(
    "wanted", ["--rpc", "Q8_0 --rpc", "../Q8_0", "q8_0\n", "copy", "", "\u017f", "COPY", "Q8_0\0"]
)
def test_a_quantization_is_one_of_a_list(wanted):
    with pytest.raises(ConfigError):
        targets.checked(wanted)


@pytest.mark.parametrize(
    "name",
    [
        "-x",
        "--rpc",
        "../x",
        "a/../b",
        "a//b",
        "/etc/x",
        "a b",
        "a\n",
        "a?x=1",
        "a#b",
        "a%2fb",
        "",
        "é",
    ],
)
def test_a_servers_model_has_a_name_that_is_nothing_else(name):
    with pytest.raises(ConfigError):
        parse(f"remote:{name}")
    assert parse("remote:library/llama3.2:1b") == RemoteReference("library/llama3.2:1b")


@pytest.mark.parametrize("name", ["os", "subprocess", "fleetmark_agent", "base", "registry", "pip"])
def test_only_what_is_registered_as_a_backend_is_one(name):
    with pytest.raises(BackendUnavailable):
        registry.create(name, EnginesSettings())
