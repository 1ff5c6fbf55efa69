"""The part of the Ollama stand-in that computes: a process with one model, and a handle on it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


PARALLEL = int(os.environ.get("OLLAMA_NUM_PARALLEL", "1"))


class Runner:
    """A process with one model and as many contexts as the server was told to have."""

    def __init__(self, model: str, blob: Path, chosen: Json) -> None:
        self.model = model
        self.chosen = chosen
        self.context = int(chosen.get("num_ctx", 4096))
        self.free = threading.Semaphore(PARALLEL)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "fakes.fake_ollama",
                "runner",
                str(blob),
                str(self.port),
                json.dumps(chosen),
            ]
        )
        while True:
            if self.process.poll() is not None:
                raise Refused(500, "runner process has terminated: error loading model")
            with contextlib.suppress(OSError):
                if self.ask("GET", "/health").status == 200:
                    return
            time.sleep(0.02)

    def ask(self, method: str, path: str, body: Json | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        headers = {"Connection": "close", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        return connection.getresponse()

    def steps(self, prompt: list[int], options: Json) -> Iterator[Json]:
        response = self.ask(
            "POST",
            "/completion",
            {
                "prompt": prompt,
                "stream": True,
                "cache_prompt": True,
                "n_predict": options.get("num_predict", -1),
                "n_keep": options.get("num_keep", 4),
                "temperature": options.get("temperature", 0.8),
                "top_k": options.get("top_k", 40),
                "top_p": options.get("top_p", 0.9),
                "min_p": options.get("min_p", 0.0),
                "repeat_penalty": options.get("repeat_penalty", 1.1),
                "seed": options.get("seed", -1),
            },
        )
        try:
            for line in response:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            response.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def cut(prompt: list[int], keep: int, context: int) -> list[int]:
    """Do what Ollama does with a prompt that is too long: leave out of its middle, say nothing."""
    if len(prompt) < context:
        return prompt
    keep = min(len(prompt) if keep < 0 else keep, context - 1)
    left = context - max((context - keep) // 2, 1)
    return prompt[:keep] + prompt[keep + len(prompt) - left :]


def run(model: str, port: int, chosen: Json) -> None:
    """Be a runner: llama.cpp's server with one model."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = chosen.get("num_ctx", 4096) * PARALLEL
    params.n_parallel = PARALLEL
    params.kv_unified = False
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = chosen.get("num_thread", 2)
    params.warmup = False
    params.fit_params = False
    params.ctx_shift = True
    params.cache_ram_mib = int(os.environ.get("LLAMA_ARG_CACHE_RAM", "8192"))
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.ui = False
    params.verbosity = 1
    server = xllamacpp.Server(params)
    print(f"runner at {server.listening_address}", file=sys.stderr, flush=True)
    signal.pause()
