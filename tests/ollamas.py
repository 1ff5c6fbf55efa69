"""Ollama programs for tests: the real one where there is one, and the stand-in."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fleetmark_agent.backends.ollama_service import server_environment, version_at
from fleetmark_agent.backends.serverprocess import free_port

TESTS = Path(__file__).parent


def real_ollama() -> Path | None:
    """Return the real program: the one that FLEETMARK_TEST_OLLAMA names, else that on the PATH."""
    found = os.environ.get("FLEETMARK_TEST_OLLAMA") or shutil.which("ollama")
    return Path(found) if found else None


def fake_ollama(directory: Path, fault: str = "") -> Path:
    """Return the stand-in as a program of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "ollama"
    program.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={TESTS} FAKE_OLLAMA_FAULT={fault}\n"
        f'exec {sys.executable} -m fakes.fake_ollama "$@"\n'
    )
    program.chmod(0o755)
    return program


@contextlib.contextmanager
def running(program: Path, directory: Path) -> Iterator[str]:
    """Run a server that is none of the agent's, and return its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = server_environment(os.environ, port, directory / "models", directory)
    (directory / "models").mkdir(parents=True, exist_ok=True)
    # As somebody's own would: with what it keeps by default.
    del env["LLAMA_ARG_CACHE_RAM"]
    with (directory / "serve.log").open("wb") as log:
        server = subprocess.Popen([str(program), "serve"], env=env, stdout=log, stderr=log)
    try:
        while version_at(url) is None:
            assert server.poll() is None, (directory / "serve.log").read_text()
            time.sleep(0.02)
        yield url
    finally:
        server.terminate()
        server.wait(20)
