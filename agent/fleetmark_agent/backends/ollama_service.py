"""The Ollama server a job works with: one that runs already, or one started for it alone."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleetmark_agent.backends.base import load_failed, ran_out_of_memory
from fleetmark_agent.backends.scratch import Scratch
from fleetmark_agent.backends.serverprocess import LINE_CHARS, ServerProcess, free_port
from fleetmark_agent.backends.settings import OllamaSettings
from fleetmark_agent.oomkills import kernel_oom_kills
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    BackendUnavailable,
    ModelNotFound,
    OutOfMemory,
    PromptTooLong,
)
from fleetmark_protocol.settings import is_loopback

PROBE_TIMEOUT_S = 0.5
START_TIMEOUT_S = 60.0
INSTALL_HINT = (
    "curl -fsSL https://ollama.com/install.sh | sh (its vendor's installer), or name a program in"
    " engines.ollama.executable of the agent's settings"
)
_PORTS_TRIED = 3
_TOO_LONG = re.compile(r"exceeds the context length|longer than the context", re.IGNORECASE)
_RUNNER_GONE = re.compile(
    r"has terminated|unexpectedly stopped|unexpected EOF|connection (refused|reset)|forcibly closed"
)


@dataclass(frozen=True)
class Service:
    """A server that answers.

    Attributes:
        client: `ollama.Client` for it.
        url: its base.
        version: as it says.
        process: where it was started here.
        models_dir: where that one keeps models.
        scratch: to be removed with it.
        oom_kills: how many processes the kernel had killed for memory when it was found.
    """

    client: Any
    url: str
    version: str
    process: ServerProcess | None = None
    models_dir: Path | None = None
    scratch: Scratch | None = None
    oom_kills: int = field(default_factory=kernel_oom_kills)

    @property
    def own(self) -> bool:
        """Whether it was started here, so that nobody else uses it."""
        return self.process is not None

    @property
    def port_to_follow(self) -> int | None:
        """Port of a server of somebody else on this machine; None for any other."""
        parts = urlsplit(self.url)
        if self.own or not is_loopback(parts.hostname or ""):
            return None
        return parts.port or (443 if parts.scheme == "https" else 80)

    @contextlib.contextmanager
    def typed_errors(self) -> Iterator[None]:
        """Turn what the client raises into errors of ours.

        Raises:
            ModelNotFound, OutOfMemory, PromptTooLong, BackendCrashed, BackendError: see `error_of`.
        """
        import httpx
        import ollama

        try:
            yield
        except ollama.ResponseError as error:
            meant = error_of(error.status_code, str(error.error))
            if isinstance(meant, BackendCrashed) and kernel_oom_kills() > self.oom_kills:
                meant = OutOfMemory(f"the kernel killed for memory, and {meant.message}")
            raise meant from error
        except (httpx.TransportError, ConnectionError) as error:
            broke = BackendCrashed(f"the Ollama at {self.url} broke off: {error}")
            raise (self.process.explain(broke) if self.process else broke) from error
        except ValueError as error:
            raise BackendError(f"the Ollama at {self.url} answers nonsense: {error}") from error

    def close(self) -> None:
        """Close the connection; stop what was started."""
        self.client.close()
        if self.process is not None:
            self.process.stop()
        if self.scratch is not None:
            self.scratch.remove()

    def load_failed(self, model: Path, error: Exception) -> BackendError:
        """Return what to raise where the server says that it cannot load a model."""
        said = self.process.said() if self.process else ""
        out_of_memory = next((line for line in said.splitlines() if ran_out_of_memory(line)), "")
        return load_failed(model, error, out_of_memory.strip()[:LINE_CHARS])


def connect(settings: OllamaSettings, served: int = 1) -> Service:
    """Return the running server, or one started now, as the owner wants it.

    Args:
        settings: the owner's.
        served: requests at once, of one that is started; a running one is as it was started.

    Raises:
        BackendUnavailable: none runs and none may or can be started.
        BackendCrashed, BackendTimeout: it was started and did not come up.
    """
    if settings.serve != "always":
        version = version_at(settings.url)
        if version is not None:
            return Service(_client(settings.url), settings.url, version)
        if settings.serve == "never":
            raise BackendUnavailable(f"no Ollama answers at {settings.url}")
    program = executable(settings)
    if program is None:
        raise BackendUnavailable("the ollama program is not installed", hint=INSTALL_HINT)
    return _start(program, settings.models_dir, served)


def executable(settings: OllamaSettings) -> str | None:
    """Return the program that would be started; None where there is none."""
    name = str(settings.executable) if settings.executable else "ollama"
    return shutil.which(name)


def version_at(url: str, timeout_s: float = PROBE_TIMEOUT_S) -> str | None:
    """Return the version of the server at a URL; None where no Ollama answers."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", f"{parts.path}/api/version")
        response = connection.getresponse()
        answer = json.loads(response.read(4096)) if response.status == 200 else {}
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    version = answer.get("version") if isinstance(answer, dict) else None
    return version if isinstance(version, str) else None


@lru_cache
def version_of(program: str, _changed_ns: int) -> str | None:
    """Return what a program says of itself; asked once for each version of the file."""
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=10,
            # So that it tells its own version, not that of a server somewhere.
            env={**os.environ, "OLLAMA_HOST": "127.0.0.1:1"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"version is (\S+)", done.stdout + done.stderr)
    return found[1] if found else None


def error_of(status: int, said: str) -> BackendError:
    """Return what an error answer means; pure.

    Args:
        status: HTTP status; -1 for an error in the middle of a stream.
        said: the server's own words.
    """
    message = f"Ollama says: {said}"
    if ran_out_of_memory(said) or "signal: killed" in said:
        return OutOfMemory(message)
    if _TOO_LONG.search(said):
        return PromptTooLong(message)
    if _RUNNER_GONE.search(said):
        return BackendCrashed(message)
    if status == 404:
        return ModelNotFound(message)
    return BackendError(message)


def server_environment(
    base: Mapping[str, str], port: int, models_dir: Path, home: Path, served: int = 1
) -> dict[str, str]:
    """Return the environment of a server that serves one model, and caches nothing."""
    kept = {name: value for name, value in base.items() if not name.startswith("OLLAMA_")}
    return {
        **kept,
        # It makes a key pair there.
        "HOME": str(home),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(models_dir),
        # Each of them gets a context of the size that a request asks for.
        "OLLAMA_NUM_PARALLEL": str(served),
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NO_CLOUD": "1",
        # Since 0.30 it runs llama.cpp's server, which would keep old prompts in memory and find
        # them again.
        "LLAMA_ARG_CACHE_RAM": "0",
    }


def _start(program: str, models_dir: Path | None, served: int) -> Service:
    scratch = Scratch("fleetmark-ollama-")
    try:
        models = models_dir or scratch.path / "models"
        models.mkdir(parents=True, exist_ok=True)
        return _started(program, models, scratch, served)
    except BaseException:
        scratch.remove()
        raise


def _started(program: str, models_dir: Path, scratch: Scratch, served: int) -> Service:
    left = _PORTS_TRIED
    while True:
        left -= 1
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        try:
            process = ServerProcess.start(
                [program, "serve"],
                env=server_environment(os.environ, port, models_dir, scratch.path, served),
                # It has runners of its own, and ends them then.
                death_signal=signal.SIGTERM,
                ready=lambda url=url: version_at(url) is not None,  # type: ignore[misc]
                timeout_s=START_TIMEOUT_S,
            )
        except BackendCrashed as error:
            if left and "address already in use" in error.message:
                continue
            raise
        version = version_at(url, START_TIMEOUT_S) or "unknown"
        return Service(_client(url), url, version, process, models_dir, scratch)


def _client(url: str) -> Any:
    import ollama

    # The runner's deadlines end what takes too long; a proxy has no place before this machine.
    loopback = is_loopback(urlsplit(url).hostname or "")
    return ollama.Client(host=url, timeout=None, trust_env=not loopback)
