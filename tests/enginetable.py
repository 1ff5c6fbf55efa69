"""The rows of the conformance suite: each backend, and the engine that it is tested with here."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from endpoint import MODEL_NAME, endpoint_url
from engines import ALL_ENGINES, MODEL_REF, MODEL_SHA256, cache_dir, model_store, smollm2
from fleetmark_agent.backends.settings import (
    EnginesSettings,
    LlamaServerSettings,
    OllamaSettings,
    OpenAISettings,
)
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.messages import ModelSpec
from llamafiles import stand_in_llamafile, trusting
from ollamas import fake_ollama

LACKS = {
    "prompt_ids": "token ids of the prompt",
    "output_ids": "token ids of the output",
    "clock": "prefill and decode by its own clock",
    "ignore_eos": "going on after an end token",
    "version": "saying which version it is",
}
PREBUILT = frozenset({"xllamacpp"})
"""Installed for every run of the tests, so that its absence is a failure."""


def program(name: str) -> Path | None:
    """Return where a program is that tests use: named by hand, beside Python, or on the PATH.

    Args:
        name: such as `llama-server`; by hand it is named as FLEETMARK_TEST_LLAMA_SERVER.
    """
    by_hand = os.environ.get("FLEETMARK_TEST_" + name.upper().replace("-", "_"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = by_hand or shutil.which(name, path=path)
    return None if found is None else Path(found).absolute()


@dataclass(frozen=True)
class Engine:
    """One row.

    Attributes:
        backend: as it is registered.
        needs: Python modules that must be importable.
        program: name of a program that must be found (see `program`).
        label: tells rows of the same backend apart.
        options: what else the backend is given.
        settings: what the device's owner would set; called when the engine is used.
        lacks: what it cannot do, of `LACKS`.
        llama_cpp: it is a llama.cpp of today, so that its ids are those of the others.
        form: of the model, where it reads several; default: the store's choice.
        remote: its model is no file of ours.
        installable: it can be had on any machine, so that with ENGINES=all it must be here.
        too_few_bytes: of data in memory, for a load with 65,536 tokens of context.
    """

    backend: str
    needs: tuple[str, ...] = ()
    program: str | None = None
    label: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Callable[[], EnginesSettings] = EnginesSettings
    lacks: frozenset[str] = frozenset()
    llama_cpp: bool = False
    form: str | None = None
    remote: bool = False
    installable: bool = True
    too_few_bytes: int = 1000 * 2**20

    def __str__(self) -> str:
        return self.backend + (f"-{self.label}" if self.label else "")

    @property
    def here(self) -> bool:
        """Whether it is installed."""
        if self.program is not None and program(self.program) is None:
            return False
        return all(importlib.util.find_spec(module) is not None for module in self.needs)


def engines_here() -> list[Engine]:
    """Return the engines to be tested in this run."""
    return [
        engine
        for engine in ENGINES
        if engine.here or engine.backend in PREBUILT or (ALL_ENGINES and engine.installable)
    ]


def weights_for(engine: Engine, formats: tuple[str, ...]) -> Path:
    """Return the same model in a form that a backend reads, made once and kept.

    Args:
        engine: which row.
        formats: what it reads, what it likes best first.
    """
    if engine.remote:
        return Path(MODEL_NAME)
    wanted = formats if engine.form is None else (engine.form,)
    if "gguf" in wanted:
        return smollm2()
    spec = ModelSpec(name="smollm2", ref=MODEL_REF, sha256=MODEL_SHA256)
    return ModelStore(model_store(), ModelSettings()).ensure(spec, formats=wanted).path


def _llama_server() -> EnginesSettings:
    return EnginesSettings(llama_server=LlamaServerSettings(executable=program("llama-server")))


def _llamafile() -> EnginesSettings:
    file = program("llamafile") or Path("llamafile")
    return trusting(file, bare=file)


def _stand_in_llamafile(version: str) -> Callable[[], EnginesSettings]:
    def settings() -> EnginesSettings:
        file = stand_in_llamafile(cache_dir() / "bin", version)
        return trusting(file, bare=file)

    return settings


def _ollama() -> EnginesSettings:
    return EnginesSettings(ollama=OllamaSettings(executable=program("ollama"), serve="always"))


def _stand_in_ollama() -> EnginesSettings:
    executable = fake_ollama(cache_dir() / "bin")
    return EnginesSettings(ollama=OllamaSettings(executable=executable, serve="always"))


def _openai() -> EnginesSettings:
    return EnginesSettings(openai=OpenAISettings(url=endpoint_url(smollm2())))


_OLLAMA_LACKS = frozenset({"prompt_ids", "output_ids", "ignore_eos"})
_OPENAI_LACKS = frozenset({"prompt_ids", "output_ids", "ignore_eos", "clock", "version"})
_LANGCHAIN = ("langchain_core", "langchain_community", "langchain_ollama")

ENGINES = (
    Engine("xllamacpp", needs=("xllamacpp",), llama_cpp=True),
    Engine("llama_cpp", needs=("llama_cpp",), llama_cpp=True),
    Engine("llama_server", program="llama-server", settings=_llama_server, llama_cpp=True),
    Engine(
        "llamafile",
        program="llamafile",
        settings=_llamafile,
        llama_cpp=True,
        installable=False,
    ),
    Engine(
        "llamafile",
        label="stand-in-0.6.1",
        needs=("xllamacpp",),
        settings=_stand_in_llamafile("0.6.1"),
        lacks=frozenset({"output_ids"}),
    ),
    Engine(
        "llamafile",
        label="stand-in-0.10.0",
        needs=("xllamacpp",),
        settings=_stand_in_llamafile("0.10.0"),
    ),
    Engine(
        "ollama",
        needs=("ollama",),
        program="ollama",
        settings=_ollama,
        lacks=_OLLAMA_LACKS,
        installable=False,
        # It takes no longer a context than the model was trained with.
        too_few_bytes=200 * 2**20,
    ),
    Engine(
        "ollama",
        label="stand-in",
        needs=("ollama", "xllamacpp"),
        settings=_stand_in_ollama,
        lacks=_OLLAMA_LACKS,
    ),
    Engine("ctransformers", needs=("ctransformers",), lacks=frozenset({"clock"})),
    Engine(
        "langchain",
        label="llama_cpp",
        needs=(*_LANGCHAIN, "llama_cpp"),
        options={"inner_backend": "llama_cpp"},
    ),
    Engine(
        "langchain",
        label="ctransformers",
        needs=(*_LANGCHAIN, "ctransformers"),
        options={"inner_backend": "ctransformers"},
        lacks=frozenset({"clock"}),
    ),
    Engine(
        "langchain",
        label="stand-in-ollama",
        needs=(*_LANGCHAIN, "ollama", "xllamacpp"),
        options={"inner_backend": "ollama"},
        settings=_stand_in_ollama,
        lacks=_OLLAMA_LACKS,
    ),
    Engine(
        "transformers",
        needs=("torch", "transformers"),
        lacks=frozenset({"clock"}),
        form="safetensors",
    ),
    Engine(
        "openai",
        label="llama.cpp",
        needs=("xllamacpp",),
        settings=_openai,
        lacks=_OPENAI_LACKS,
        remote=True,
    ),
)
