"""The role of an inference engine, and what goes in and out of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fleetmark_protocol.errors import BackendError, ModelRejected, PromptTooLong
from fleetmark_protocol.messages import Options


@dataclass(frozen=True)
class Availability:
    """Whether an engine can be used here.

    Attributes:
        version: of the engine or its binding; None when not available.
        reason: why it is not available.
        hint: the command that would make it so.
    """

    available: bool
    version: str | None = None
    reason: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class Token:
    """One step of a stream.

    Attributes:
        time_ns: `time.perf_counter_ns()` when it was out.
        text: may be empty (a token can be a part of a character).
        ids: token ids, where the engine gives them.
        count: tokens in this step; more than one where an engine sends several at once.
    """

    time_ns: int
    text: str
    ids: tuple[int, ...] = ()
    count: int = 1


@dataclass(frozen=True)
class Completion:
    """The end of a stream, in the engine's own words.

    Attributes:
        prompt_tokens: the engine's count of the whole prompt.
        prompt_tokens_evaluated: less than that where a prefix was cached.
        output_tokens: the engine's or its tokenizer's count.
        stop_reason: `length` (as many as asked), `eos` (the model ended), `stop`.
        prompt_ids: token ids of the prompt, where the engine gives them.
        engine_prefill_s: by the engine's own clock, where it tells.
        engine_decode_s: by the engine's own clock, where it tells.
    """

    prompt_tokens: int
    prompt_tokens_evaluated: int
    output_tokens: int
    stop_reason: str
    prompt_ids: tuple[int, ...] = ()
    engine_prefill_s: float | None = None
    engine_decode_s: float | None = None


@dataclass(frozen=True)
class LoadReport:
    """What a load took and made, apart from any request.

    Attributes:
        load_s: seconds until ready to take a prompt.
        version: of the engine that loaded it.
        details: what else is worth keeping (context size granted, threads used).
    """

    load_s: float
    version: str | None = None
    details: dict[str, str | int | float | bool] = field(default_factory=dict)


class Backend(Protocol):
    """An engine. Used by one thread, in a worker process of its own."""

    name: str

    def probe(self) -> Availability:
        """Say whether the engine can be used; cheap, no side effects, no heavy import."""

    def load(self, model: Path, options: Options) -> LoadReport:
        """Load a model file; a second load replaces the first.

        Raises:
            BackendUnavailable: the engine is not installed.
            ModelRejected: the engine cannot read this file.
            OutOfMemory: there was not enough memory.
        """

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """Generate, nothing cached from earlier prompts; the last item is the `Completion`.

        Raises:
            PromptTooLong: prompt and output do not fit in the context.
            BackendError: anything else the engine says.
        """

    def close(self) -> None:
        """Free the model; may be called twice."""


def check_length(prompt_tokens: int, output_tokens: int, context_tokens: int) -> None:
    """Refuse before the engine is asked: engines differ in what they do with too much.

    Raises:
        BackendError: the prompt is empty.
        PromptTooLong: prompt and output do not fit in the context.
    """
    if prompt_tokens == 0:
        raise BackendError("the prompt has no tokens: there is nothing to evaluate")
    if prompt_tokens + output_tokens > context_tokens:
        raise PromptTooLong(
            f"prompt of {prompt_tokens} tokens and {output_tokens} of output do not fit in a"
            f" context of {context_tokens}"
        )


def load_failed(model: Path, error: Exception) -> ModelRejected:
    """Return what to raise where an engine says that a load failed, but not why.

    llama.cpp gives its bindings the same answer for a file it cannot read and for memory it cannot
    get, so neither may be claimed.
    """
    return ModelRejected(
        f"llama.cpp cannot load {model.name}: {error}",
        hint="the file is damaged or of a kind this version does not know, or memory ran out",
    )
