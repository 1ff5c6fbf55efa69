"""The role of an inference engine, and what goes in and out of it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from fleetmark_protocol.errors import BackendError, ModelRejected, OutOfMemory, PromptTooLong
from fleetmark_protocol.messages import Options


@dataclass(frozen=True)
class Availability:
    """Whether an engine can be used here.

    Attributes:
        version: of the engine or its binding; None when not available.
        reason: why it is not available.
        hint: the command that would make it so.
        features: what the engine was built with (AVX2, NEON, BLAS...), where that is cheap to know.
    """

    available: bool
    version: str | None = None
    reason: str | None = None
    hint: str | None = None
    features: tuple[str, ...] = ()


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
        engine_load_s: model load by the engine's own clock, where it tells one for this request.
        engine_prefill_s: by the engine's own clock, where it tells.
        engine_decode_s: by the engine's own clock, where it tells.
        load_included: whether the model was loaded within this request (a program that is started
            for one prompt), so that its latency and TTFT are those of a cold start.
    """

    prompt_tokens: int
    prompt_tokens_evaluated: int
    output_tokens: int
    stop_reason: str
    prompt_ids: tuple[int, ...] = ()
    engine_load_s: float | None = None
    engine_prefill_s: float | None = None
    engine_decode_s: float | None = None
    load_included: bool = False


@dataclass(frozen=True)
class LoadReport:
    """What a load took and made, apart from any request.

    Attributes:
        load_s: seconds until ready to take a prompt; None for a program that is started, and loads
            the model, within each request.
        version: of the engine that loaded it.
        details: what else is worth keeping (context size granted, threads used).
        service_port: loopback TCP port of an engine that runs outside of this process's tree;
            telemetry follows the process that listens there.
    """

    load_s: float | None
    version: str | None = None
    details: dict[str, str | int | float | bool] = field(default_factory=dict)
    service_port: int | None = None


COMMON_OPTIONS = frozenset(
    {"threads", "context_tokens", "batch_tokens", "temperature", "seed", "ignore_eos", "start"}
)
"""What a backend takes unless it says otherwise."""

SERVER_OPTIONS = COMMON_OPTIONS | {"parallel"}
"""What a backend takes that serves several requests at once."""


def slots(options: Options) -> int:
    """Return how many requests an engine must be able to serve at once; pure."""
    return options.parallel or 1


class Backend(Protocol):
    """An engine. Used by one thread, in a worker process of its own.

    One that has `parallel` in `takes` serves several requests at once: after a load with
    `Options.parallel` of n up to n threads may be in `generate` at the same time, each has
    `context_tokens` for itself, and none finds anything of another's prompt again.

    Its class is called with an `EnginesSettings`: what the device's owner set for engines.

    Attributes:
        name: as it is registered.
        formats: kinds of model files it reads (see `models.facts`), the one it likes best first;
            `remote` where a model may be one that the engine's own server has.
        takes: names of the `Options` it honours; a job that sets another one is rejected, for
            its row would claim what was not done.
    """

    name: str
    formats: tuple[str, ...]
    takes: frozenset[str]

    def probe(self) -> Availability:
        """Say whether the engine can be used; cheap, no side effects, no heavy import."""

    def load(self, model: Path, options: Options) -> LoadReport:
        """Load a model; a second load replaces the first.

        Args:
            model: the file or directory; for a model of an engine's own server, its name.
            options: of the job; with `start` cold nothing of an earlier load may be left to use.

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
            BackendCrashed, OutOfMemory: the engine is gone and must be loaded again.
            BackendError: anything else the engine says; the next request may work.
        """

    def close(self) -> None:
        """Free the model; may be called twice."""


@runtime_checkable
class Prepares(Protocol):
    """What a backend adds that has something to do before a request, outside of its time."""

    def prepare(self, prompt: str, options: Options) -> None:
        """Make the engine forget what it could find again of this prompt.

        Raises:
            BackendError: see `Backend.generate`.
        """


@runtime_checkable
class PreparesRounds(Protocol):
    """What a backend adds that has something to do before several requests at once."""

    def prepare_round(self, prompts: Sequence[str], options: Options) -> None:
        """See `Prepares.prepare`, for the requests that come next, all at the same time.

        Raises:
            BackendError: see `Backend.generate`.
        """


@runtime_checkable
class ChoosesFormats(Protocol):
    """What a backend adds whose model files depend on a job's options."""

    def formats_for(self, options: Options) -> tuple[str, ...]:
        """Return what `formats` is for a job with these options.

        Raises:
            OptionNotTaken: they do not say.
        """


def formats_of(backend: Backend, options: Options) -> tuple[str, ...]:
    """Return the kinds of model files that a backend reads in a job with these options.

    Raises:
        OptionNotTaken: an option that decides it is missing or wrong.
    """
    if isinstance(backend, ChoosesFormats):
        return backend.formats_for(options)
    return backend.formats


@runtime_checkable
class KnowsArchitectures(Protocol):
    """What a backend adds that can tell, without a load, which models its engine does not run."""

    def knows(self, architecture: str, options: Options) -> bool | None:
        """Whether its engine runs models of an architecture, as GGUF names it; None: cannot say."""


@runtime_checkable
class Unpacks(Protocol):
    """What a backend adds that holds weights in another form than their file does."""

    def held_bits_per_weight(self, options: Options) -> float:
        """Return how much memory each weight takes while a job with these options loads."""


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


def load_failed(model: Path, error: Exception, said: str = "") -> BackendError:
    """Return what to raise where an engine says that a load failed.

    Args:
        model: what was loaded.
        error: what was raised.
        said: what the engine printed meanwhile; llama.cpp gives its bindings the same answer for
            a file it cannot read and for memory it cannot get, but prints which.
    """
    reason = f"{error} ({said})" if said else str(error)
    if ran_out_of_memory(reason):
        return OutOfMemory(f"no memory to load {model.name}: {reason}")
    return ModelRejected(
        f"cannot load {model.name}: {reason}",
        hint="the file is damaged or of a kind this version does not know, or memory ran out",
    )


_NO_MEMORY = re.compile(
    r"(unable|failed) to (re)?allocate|can(no|')t allocate|bad_alloc|out of memory|MemoryError"
    r"|(not enough|insufficient) memory|alloc\w* .{0,40}failed|requires more system memory"
    r"|GGML_ASSERT.*(mem_buffer != NULL|: data\b)",
    re.IGNORECASE,
)


def ran_out_of_memory(said: str) -> bool:
    """Whether what an engine said means that it could not get memory; pure."""
    return _NO_MEMORY.search(said) is not None
