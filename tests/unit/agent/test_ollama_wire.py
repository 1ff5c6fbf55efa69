"""What Ollama's numbers and words mean; the numbers of 0.32.15 are those of a real run."""

from dataclasses import dataclass

import pytest

from fleetmark_agent.backends.ollama_models import is_named, template_for
from fleetmark_agent.backends.ollama_service import error_of, server_environment
from fleetmark_agent.backends.ollama_wire import (
    completion_of,
    other_prompt,
    request_options,
    runner_options,
)
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    ModelNotFound,
    OutOfMemory,
    PromptTooLong,
)
from fleetmark_protocol.messages import Options

MS = 1_000_000


@dataclass
class Final:
    """The last part of an answer."""

    done_reason: str | None = "length"
    load_duration: int | None = 1 * MS
    prompt_eval_count: int | None = 5
    prompt_eval_duration: int | None = 200 * MS
    eval_count: int | None = 16
    eval_duration: int | None = 800 * MS


def completion(final, output_tokens=16, context_tokens=512, known_tokens=1, load_s=2.0):
    return completion_of(
        final,
        output_tokens=output_tokens,
        context_tokens=context_tokens,
        known_tokens=known_tokens,
        load_s=load_s,
    )


def test_counts_and_durations_are_taken_over_in_seconds():
    found = completion(Final())
    assert (found.prompt_tokens, found.prompt_tokens_evaluated, found.output_tokens) == (5, 5, 16)
    assert (found.engine_load_s, found.engine_prefill_s, found.engine_decode_s) == (0.001, 0.2, 0.8)
    assert found.stop_reason == "length"
    assert not found.load_included


def test_an_end_token_is_told_from_the_length():
    assert completion(Final(done_reason="stop", eval_count=3)).stop_reason == "eos"


def test_a_prompt_that_an_old_version_found_again_counts_as_not_evaluated():
    found = completion(Final(prompt_eval_count=None), known_tokens=5)
    assert (found.prompt_tokens, found.prompt_tokens_evaluated) == (5, 0)


def test_a_long_prompt_in_the_time_of_one_token_was_found_again():
    found = completion(Final(prompt_eval_count=300, prompt_eval_duration=60 * MS))
    assert found.prompt_tokens_evaluated < found.prompt_tokens == 300
    slow = completion(Final(prompt_eval_count=300, prompt_eval_duration=600 * MS))
    assert slow.prompt_tokens_evaluated == 300


def test_a_model_that_was_loaded_again_within_the_request_makes_it_a_cold_one():
    assert completion(Final(load_duration=1900 * MS)).load_included


@pytest.mark.parametrize("counted", [258, 511, 512])
def test_a_context_that_ran_over_or_a_prompt_that_was_cut_is_refused(counted):
    context = 258 if counted == 258 else 512
    with pytest.raises(PromptTooLong, match=str(context)):
        completion(Final(prompt_eval_count=counted), output_tokens=1, context_tokens=context)
    with pytest.raises(PromptTooLong):
        completion(Final(prompt_eval_count=100), output_tokens=500)


def test_a_load_is_asked_with_what_the_requests_have_or_they_would_load_again():
    options = Options(threads=3, context_tokens=256, batch_tokens=64, temperature=0.5, seed=9)
    loaded, asked = runner_options(options), request_options(options, 16)
    assert loaded == {"num_ctx": 256, "num_gpu": 0, "num_thread": 3, "num_batch": 64}
    assert loaded.items() <= asked.items()
    assert (asked["temperature"], asked["seed"], asked["num_predict"]) == (0.5, 9, 16)
    assert (asked["top_k"], asked["top_p"], asked["repeat_penalty"]) == (0, 1.0, 1.0)


def test_the_prompt_that_evicts_another_begins_in_another_way():
    for prompt in ("The capital", "0 is", "A is", ""):
        assert other_prompt(prompt)[0] != prompt[:1]


def test_a_model_of_ours_carries_the_digest_of_its_file():
    assert template_for("ab" * 32) == "{{/* sha256:" + "ab" * 32 + " */}}{{ .Prompt }}"


def test_a_name_without_a_tag_means_the_latest():
    assert is_named("llama3", "llama3:latest")
    assert is_named("llama3:8b", "llama3:8b")
    assert not is_named("llama3", "llama3:8b")


def test_a_server_of_ours_takes_nothing_from_the_owners_but_what_any_program_needs(tmp_path):
    owners = {"PATH": "/bin", "HOME": "/root", "OLLAMA_NUM_PARALLEL": "4", "OLLAMA_DEBUG": "1"}
    env = server_environment(owners, 4711, tmp_path / "models", tmp_path)
    assert env["PATH"] == "/bin"
    assert env["HOME"] == str(tmp_path)
    assert env["OLLAMA_HOST"] == "127.0.0.1:4711"
    assert env["OLLAMA_NUM_PARALLEL"] == "1"
    assert env["LLAMA_ARG_CACHE_RAM"] == "0"
    assert "OLLAMA_DEBUG" not in env


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (404, "model 'nope' not found", ModelNotFound),
        (500, "model requires more system memory (9.9 GiB) than is available", OutOfMemory),
        (500, "llama runner process has terminated: signal: killed", OutOfMemory),
        (400, "the input length exceeds the context length", PromptTooLong),
        (-1, "model runner has unexpectedly stopped, this may be due to", BackendCrashed),
        (503, "server busy, please try again", BackendError),
    ],
)
def test_an_error_answer_has_a_type_and_keeps_the_servers_words(status, said, kind):
    error = error_of(status, said)
    assert type(error) is kind
    assert said in error.message
