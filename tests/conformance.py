"""What the conformance suite runs inside an engine's own process, and the handle on that process.

An engine that crashes takes its process with it, not the tests; and what it leaves behind (memory,
threads, descriptors) can be told from what another engine or pytest itself holds.
"""

import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import psutil

from endpoint import CONTEXT_TOKENS as ENDPOINT_CONTEXT_TOKENS
from enginetable import Engine, weights_for
from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import (
    Backend,
    Completion,
    LoadReport,
    Prepares,
    PreparesRounds,
    Token,
)
from fleetmark_agent.backends.langchain import LangChain
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendError
from fleetmark_protocol.messages import Options

CALL_TIMEOUT_S = 240
PROMPT = "The capital of Italy is"
CONTEXT_TOKENS = 256


@dataclass(frozen=True)
class Answer:
    """A whole stream, with the wall clock around it."""

    before_ns: int
    after_ns: int
    steps: list[Token]
    completion: Completion

    @property
    def text(self) -> str:
        return "".join(step.text for step in self.steps)

    @property
    def ids(self) -> list[int]:
        return [token for step in self.steps for token in step.ids]


@dataclass(frozen=True)
class Held:
    """What a process and its children hold."""

    descriptors: int
    threads: int
    rss_bytes: int
    children: int
    listening: int


def backend_of(engine: Engine) -> Backend:
    """Return a new backend of an engine."""
    return registry.create(engine.backend, engine.settings())


def options_of(engine: Engine, **more: Any) -> Options:
    """Return options for short prompts, without those that the backend does not take.

    One thread: two that wait for each other at every layer crawl where a core has other work.
    """
    wanted = {"threads": 1, "context_tokens": CONTEXT_TOKENS, **engine.options, **more}
    takes = backend_of(engine).takes
    return Options(**{name: value for name, value in wanted.items() if name in takes})


def model_of(engine: Engine) -> Path:
    """Return the same model for every engine, in the form that it reads."""
    backend = backend_of(engine)
    if isinstance(backend, LangChain):
        return weights_for(engine, backend.formats_for(options_of(engine)))
    return weights_for(engine, backend.formats)


def context_of(engine: Engine) -> int:
    """Return the context that prompts must fit in."""
    taken = "context_tokens" in backend_of(engine).takes
    return CONTEXT_TOKENS if taken else ENDPOINT_CONTEXT_TOKENS


class Hosted:
    """An engine's process; calls the functions below inside of it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.model = model_of(engine)
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._run(_create, engine.backend, engine.settings())

    def load(self, model: Path | None = None, **more: Any) -> LoadReport:
        """Load, by default the engine's weights."""
        return self._run(_load, model or self.model, options_of(self.engine, **more))

    def ask(self, prompt: str = PROMPT, tokens: int = 16, **more: Any) -> Answer:
        """Generate."""
        return self._run(_ask, prompt, tokens, options_of(self.engine, **more))

    def ask_together(
        self, prompts: list[str], tokens: int = 16, **more: Any
    ) -> "list[Answer | BackendError]":
        """Generate for all prompts at the same time; a refusal stands where its answer would."""
        options = options_of(self.engine, **more)
        return self._run(_ask_together, prompts, tokens, options)

    def leave(self, steps: int) -> None:
        """Begin to generate, and close the stream after a few steps."""
        self._run(_leave, steps, options_of(self.engine))

    def close_backend(self) -> None:
        """Call the backend's `close`."""
        self._run(_close)

    def cycles(self, count: int) -> Held:
        """Create, load, generate and close anew `count` times; return what is held after."""
        options = options_of(self.engine)
        arguments = (self.engine.backend, self.engine.settings(), self.model, options)
        return self._run(_cycles, count, *arguments)

    def held(self) -> Held:
        """Return what the process holds now."""
        return self._run(_held)

    def end(self) -> None:
        """Close the backend and end the process."""
        self._pool.submit(_close)
        self._pool.shutdown()

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.submit(function, *arguments).result(CALL_TIMEOUT_S)


_hosted: list[Backend] = []


def _create(name: str, engines: EnginesSettings) -> None:
    _hosted[:] = [registry.create(name, engines)]


def _load(model: Path, options: Options) -> LoadReport:
    return _hosted[0].load(model, options)


def _ask(prompt: str, tokens: int, options: Options) -> Answer:
    return _ask_of(_hosted[0], prompt, tokens, options)


def _ask_of(backend: Backend, prompt: str, tokens: int, options: Options) -> Answer:
    if isinstance(backend, Prepares):
        backend.prepare(prompt, options)
    return _taken(backend, prompt, tokens, options)


def _ask_together(
    prompts: list[str], tokens: int, options: Options
) -> "list[Answer | BackendError]":
    backend = _hosted[0]
    if isinstance(backend, PreparesRounds):
        backend.prepare_round(prompts, options)
    together = Barrier(len(prompts))

    def ask(prompt: str) -> "Answer | BackendError":
        together.wait()
        try:
            return _taken(backend, prompt, tokens, options)
        except BackendError as error:
            return error

    with ThreadPoolExecutor(len(prompts)) as clients:
        return list(clients.map(ask, prompts))


def _taken(backend: Backend, prompt: str, tokens: int, options: Options) -> Answer:
    steps: list[Token] = []
    completion: Completion | None = None
    before_ns = time.perf_counter_ns()
    for item in backend.generate(prompt, tokens, options):
        assert completion is None, "the completion is the last item"
        if isinstance(item, Completion):
            completion = item
        else:
            steps.append(item)
    after_ns = time.perf_counter_ns()
    assert completion is not None, "a stream ends with a completion"
    return Answer(before_ns, after_ns, steps, completion)


def _leave(steps: int, options: Options) -> None:
    stream = _hosted[0].generate(PROMPT, 100, options)
    for _ in range(steps):
        next(stream)
    stream.close()  # type: ignore[attr-defined]


def _close() -> None:
    _hosted[0].close()


def _cycles(count: int, name: str, engines: EnginesSettings, model: Path, options: Options) -> Held:
    for _ in range(count):
        fresh = registry.create(name, engines)
        fresh.load(model, options)
        _ask_of(fresh, PROMPT, 2, options)
        fresh.close()
    return _held()


def _held() -> Held:
    # Clients of HTTP libraries die in cycles: what only waits to be collected is not held.
    gc.collect()
    process = psutil.Process()
    tree = [process, *process.children(recursive=True)]
    return Held(
        descriptors=process.num_fds(),
        threads=process.num_threads(),
        rss_bytes=process.memory_info().rss,
        children=len(tree) - 1,
        listening=sum(len(listening_ports(one.pid)) for one in tree),
    )


def listening_ports(pid: int) -> list[int]:
    """Return the TCP ports that a process listens on."""
    return [
        connection.laddr.port
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


CORES = os.cpu_count() or 1
