"""What is asked of Ollama, and what its numbers mean. Pure: no clock, no I/O."""

import string
from collections.abc import Sequence
from typing import Any

from fleetmark_agent.backends.base import Completion, check_length
from fleetmark_protocol.errors import PromptTooLong
from fleetmark_protocol.messages import Options

CUT_MARGIN_TOKENS = 4
"""A prompt that is longer than the context is cut without a word, down to at most this much below
the context (as `num_keep` of -1 has it); the count that comes back is that of the cut one."""
_JUDGED_FROM_TOKENS = 128
"""Shorter prompts may be evaluated in about the time of one token where memory is the limit."""
_NO_EVALUATION_STEPS = 1.5
_RELOAD_SHARE = 0.5
_RELOAD_MIN_S = 0.1
_NS = 1e9


def runner_options(options: Options) -> dict[str, Any]:
    """Return the options that a model is loaded with; another value would load it again."""
    chosen: dict[str, Any] = {"num_ctx": options.context_tokens, "num_gpu": 0}
    if options.threads is not None:
        chosen["num_thread"] = options.threads
    if options.batch_tokens is not None:
        chosen["num_batch"] = options.batch_tokens
    return chosen


def request_options(options: Options, output_tokens: int) -> dict[str, Any]:
    """Return all options of one request; what a model's own Modelfile sets is overruled."""
    return {
        **runner_options(options),
        "num_predict": output_tokens,
        "num_keep": -1,
        "seed": options.seed,
        # Nothing but temperature shapes the distribution, as in the other backends.
        "temperature": options.temperature,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_penalty": 1.0,
        "repeat_last_n": 0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop": [],
    }


def other_prompt(prompts: Sequence[str]) -> str:
    """Return a prompt whose first token is another one than that of each of these."""
    taken = {prompt[:1] for prompt in prompts}
    return next((first for first in "0" + string.ascii_letters if first not in taken), "0")


def completion_of(
    final: Any, *, output_tokens: int, context_tokens: int, known_tokens: int, load_s: float
) -> Completion:
    """Return what the last part of an answer says.

    Args:
        final: `ollama.GenerateResponse`; its durations are nanoseconds.
        output_tokens: how many were asked.
        context_tokens: of the loaded model.
        known_tokens: of this prompt, by an earlier answer; at least 1.
        load_s: what loading this model took.

    Raises:
        PromptTooLong: the prompt was cut, or the context ran over.
    """
    # Ollama before 0.4 counts what it evaluated, and leaves a zero out.
    counted = final.prompt_eval_count or 0
    if counted >= context_tokens - CUT_MARGIN_TOKENS:
        raise PromptTooLong(
            f"{counted} tokens of the prompt fill a context of {context_tokens}:"
            " Ollama may have cut it"
        )
    check_length(max(counted, known_tokens), output_tokens, context_tokens)
    prefill_s = _seconds(final.prompt_eval_duration)
    decode_s = _seconds(final.eval_duration)
    made = final.eval_count or 0
    engine_load_s = _seconds(final.load_duration)
    return Completion(
        prompt_tokens=max(counted, known_tokens),
        prompt_tokens_evaluated=1 if _found_again(counted, prefill_s, made, decode_s) else counted,
        output_tokens=made,
        # No words to stop at are set, so what stopped it was an end token.
        stop_reason={"length": "length", "stop": "eos"}.get(final.done_reason or "", "stop"),
        engine_load_s=engine_load_s,
        engine_prefill_s=prefill_s,
        engine_decode_s=decode_s,
        load_included=(engine_load_s or 0.0) > max(_RELOAD_MIN_S, _RELOAD_SHARE * load_s),
    )


def _found_again(
    prompt_tokens: int, prefill_s: float | None, output_tokens: int, decode_s: float | None
) -> bool:
    """Whether a long prompt took no longer than a token: Ollama since 0.4 always counts all of it.

    Only backs the eviction up: a part of a prompt that is found again does not show here.
    """
    if prefill_s is None or decode_s is None or output_tokens < 2:
        return False
    one_token_s = decode_s / output_tokens
    return prompt_tokens >= _JUDGED_FROM_TOKENS and prefill_s < _NO_EVALUATION_STEPS * one_token_s


def _seconds(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns / _NS
