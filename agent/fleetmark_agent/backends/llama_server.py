"""llama.cpp's own server program, whichever build the device has, under the worker."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from fleetmark_agent.backends.base import (
    SERVER_OPTIONS,
    Availability,
    Completion,
    LoadReport,
    Token,
    load_failed,
    slots,
)
from fleetmark_agent.backends.binaries import llama_cpp_knows
from fleetmark_agent.backends.llama_http import LlamaHttp
from fleetmark_agent.backends.llama_program import (
    ask_briefly,
    chosen,
    flags_in,
    model_was_refused,
    plain_environment,
    server_arguments,
    start_server,
    version_in,
)
from fleetmark_agent.backends.packages import parse_features
from fleetmark_agent.backends.serverprocess import ServerProcess, free_port
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendCrashed, BackendError, BackendUnavailable
from fleetmark_protocol.messages import Options

PROGRAM = "llama-server"


class LlamaServer:
    """Spawned for each load, on a loopback port of its own with a random key."""

    name = "llama_server"
    formats = ("gguf",)
    takes = SERVER_OPTIONS

    def __init__(self, engines: EnginesSettings) -> None:
        self._wanted = engines.llama_server.executable
        self._server: ServerProcess | None = None
        self._http: LlamaHttp | None = None

    def probe(self) -> Availability:
        """See `Backend.probe`."""
        try:
            executable = _find(self._wanted)
            version, features, _ = _ask(executable, executable.stat().st_mtime_ns)
        except BackendUnavailable as error:
            return Availability(available=False, reason=error.message, hint=error.hint)
        return Availability(available=True, version=version, features=features)

    def knows(self, architecture: str, _options: Options) -> bool | None:
        """See `KnowsArchitectures.knows`."""
        try:
            executable = _find(self._wanted).resolve()
        except BackendUnavailable:
            return None
        beside = (executable.parent, executable.parent.parent / "lib")
        libraries = [file for place in beside for file in sorted(place.glob("libllama.so*"))]
        told = [llama_cpp_knows(file, architecture) for file in (executable, *libraries)]
        return next((answer for answer in told if answer is not None), None)

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        self.close()
        executable = _find(self._wanted)
        version, features, known = _ask(executable, executable.stat().st_mtime_ns)
        started_s = time.perf_counter()
        try:
            self._server, self._http = start_server(
                lambda port: [str(executable), *server_arguments(known, model, port, options)],
                context_tokens=options.context_tokens,
                env=plain_environment(),
                name=PROGRAM,
            )
        except BackendCrashed as error:
            if model_was_refused(error.message):
                raise load_failed(model, error) from error
            raise
        load_s = time.perf_counter() - started_s
        self._http.check_slots(slots(options))
        self._http = self._http.asked_for_ids()
        return LoadReport(
            load_s,
            version=version,
            details={
                "context_tokens": options.context_tokens,
                "slots": slots(options),
                "system": " ".join(features),
            },
        )

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        if self._server is None or self._http is None:
            raise BackendError("no model is loaded")
        try:
            yield from self._http.complete(prompt, output_tokens, options)
        except BackendCrashed as error:
            raise self._server.explain(error) from error

    def close(self) -> None:
        """See `Backend.close`."""
        if self._server is not None:
            self._server.stop()
            self._server = None


def _find(wanted: Path | None) -> Path:
    """Return the program: the one that was named, that beside this Python, or that on the PATH.

    Raises:
        BackendUnavailable: says what is missing.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(str((wanted or Path(PROGRAM)).expanduser()), path=path)
    if found is not None:
        return Path(found).absolute()
    if wanted is not None:
        raise BackendUnavailable(
            f"{wanted} is not there or not executable",
            hint="correct engines.llama_server.executable in the agent's settings",
        )
    raise BackendUnavailable(
        f"no program {PROGRAM} on the PATH",
        hint="apt install llama.cpp-tools (Debian 14 or newer), or build llama.cpp:"
        " cmake -B build && cmake --build build --target llama-server; then put it on the PATH"
        " or name it in engines.llama_server.executable",
    )


@lru_cache(maxsize=8)
def _ask(executable: Path, _mtime_ns: int) -> tuple[str | None, tuple[str, ...], frozenset[str]]:
    """Return version, build features and known flags of a program as it is now.

    Raises:
        BackendUnavailable: it cannot be run.
    """
    env = plain_environment()
    known = flags_in(ask_briefly([str(executable), "--help"], env=env))
    version = version_in(ask_briefly([str(executable), "--version"], env=env))
    # It tells what it was built with only on its way to loading a model: so one that is none.
    arguments = ["-m", os.devnull, "--host", "127.0.0.1", "--port", str(free_port())]
    verbose = chosen([(("--verbosity",), "4")], known)
    said = ask_briefly([str(executable), *arguments, *verbose], env=env)
    return version, parse_features(said), known
