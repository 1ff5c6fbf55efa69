"""LangChain over one of the other engines, so that what LangChain itself costs can be told."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from fleetmark_agent.backends.base import (
    COMMON_OPTIONS,
    Availability,
    Completion,
    LoadReport,
    Token,
)
from fleetmark_agent.backends.ctransformers import CTransformers
from fleetmark_agent.backends.langchain_ctransformers import OverCTransformers
from fleetmark_agent.backends.langchain_llama_cpp import OverLlamaCpp
from fleetmark_agent.backends.langchain_ollama import OverOllama
from fleetmark_agent.backends.llama_cpp import LlamaCpp
from fleetmark_agent.backends.ollama import Ollama
from fleetmark_agent.backends.packages import probe_package
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendError, BackendUnavailable, OptionNotTaken
from fleetmark_protocol.messages import Options

NO_TRACING = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2")
"""With one of these set to true LangChain sends every prompt to a server of its makers."""


class Inner(Protocol):
    """One engine as LangChain's users reach it."""

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""

    def prepare(self, prompt: str, options: Options) -> None:
        """See `Prepares.prepare`."""

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""

    def close(self) -> None:
        """See `Backend.close`."""


BARE: dict[str, Any] = {"llama_cpp": LlamaCpp, "ollama": Ollama, "ctransformers": CTransformers}
OVER: dict[str, Any] = {
    "llama_cpp": OverLlamaCpp,
    "ollama": OverOllama,
    "ctransformers": OverCTransformers,
}


class LangChain:
    """The inner engine gets what its own backend would give it; LangChain's defaults are undone."""

    name = "langchain"
    formats = tuple(dict.fromkeys(kind for bare in BARE.values() for kind in bare.formats))
    takes = COMMON_OPTIONS | {"inner_backend"}

    def __init__(self, engines: EnginesSettings) -> None:
        self._engines = engines
        self._inner: Inner | None = None

    def probe(self) -> Availability:
        """See `Backend.probe`."""
        for package in ("langchain-core", "langchain-community", "langchain-ollama"):
            found = probe_package(package, package.replace("-", "_"), "langchain")
            if not found.available:
                return found
        reasons = []
        for name, bare in BARE.items():
            inner = bare(self._engines).probe()
            if inner.available:
                return probe_package("langchain-core", "langchain_core", "langchain")
            reasons.append(f"{name}: {inner.reason}")
        return Availability(
            available=False,
            reason=f"no engine to drive is available ({'; '.join(reasons)})",
            hint="pip install 'fleetmark[llama-cpp]' installs one",
        )

    def formats_for(self, options: Options) -> tuple[str, ...]:
        """Return what the engine reads that a job names; `formats` is of all of them.

        Raises:
            OptionNotTaken: it names none, or one that LangChain is not driven over here.
        """
        return tuple(BARE[inner_name(options)].formats)

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        self.close()
        name = inner_name(options)
        found = BARE[name](self._engines).probe()
        if not found.available:
            raise BackendUnavailable(f"{name}: {found.reason}", hint=found.hint)
        for variable in NO_TRACING:
            os.environ[variable] = "false"
        started_s = time.perf_counter()
        import langchain_core.language_models.llms  # noqa: F401 - its time is not the model's

        import_s = time.perf_counter() - started_s
        inner: Inner = OVER[name](self._engines)
        report = inner.load(model, options)
        self._inner = inner
        version = probe_package("langchain-core", "langchain_core", "langchain").version
        return LoadReport(
            report.load_s,
            version=f"{version} over {name} {report.version}",
            details={**report.details, "inner_backend": name, "langchain_import_s": import_s},
            service_port=report.service_port,
        )

    def prepare(self, prompt: str, options: Options) -> None:
        """See `Prepares.prepare`."""
        if self._inner is not None:
            self._inner.prepare(prompt, options)

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        if self._inner is None:
            raise BackendError("no model is loaded")
        yield from self._inner.generate(prompt, output_tokens, options)

    def close(self) -> None:
        """See `Backend.close`."""
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()


def inner_name(options: Options) -> str:
    """Return the engine that LangChain is to drive; pure.

    Raises:
        OptionNotTaken: the job names none, or one that is not driven here.
    """
    name = options.inner_backend
    if name not in BARE:
        raise OptionNotTaken(
            "LangChain runs no model itself: it needs inner_backend"
            if name is None
            else f"inner_backend {name!r} is not driven through LangChain",
            hint=f"inner_backend may be {', '.join(BARE)}",
        )
    return name
