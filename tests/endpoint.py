"""An OpenAI-compatible endpoint that none of our code serves: llama.cpp's own, in a process apart.

python -m endpoint MODEL.gguf
"""

import atexit
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

MODEL_NAME = "smollm2"
CONTEXT_TOKENS = 4096
SERVES = 4
"""Requests at once."""


@cache
def endpoint_url(model: Path) -> str:
    """Return the address of the endpoint of this test run, started for the first who asks."""
    process = subprocess.Popen(
        [sys.executable, "-m", "endpoint", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    atexit.register(process.kill)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address, "the endpoint did not start"
    return f"{address}/v1"


def _serve(model: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {MODEL_NAME}
    params.n_ctx = CONTEXT_TOKENS * SERVES
    params.n_parallel = SERVES
    params.kv_unified = False
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    # Until the tests are over.
    sys.stdin.read()
    del server


if __name__ == "__main__":
    _serve(sys.argv[1])
