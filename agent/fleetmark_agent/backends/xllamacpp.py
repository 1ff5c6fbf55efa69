"""llama.cpp in this process through the prebuilt xllamacpp binding: no compiler needed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleetmark_agent.backends.base import (
    SERVER_OPTIONS,
    Availability,
    Completion,
    LoadReport,
    Token,
    load_failed,
    slots,
)
from fleetmark_agent.backends.binaries import llama_cpp_knows, package_file
from fleetmark_agent.backends.llama_http import LlamaHttp, new_key
from fleetmark_agent.backends.packages import probe_package
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendError
from fleetmark_protocol.messages import Options


class XLlamaCpp:
    """The binding's own server on loopback: unlike its callbacks, it tells token ids."""

    name = "xllamacpp"
    formats = ("gguf",)
    takes = SERVER_OPTIONS

    def __init__(self, _engines: EnginesSettings) -> None:
        self._server: Any = None
        self._http: LlamaHttp | None = None

    def probe(self) -> Availability:
        """See `Backend.probe`."""
        return probe_package(
            "xllamacpp",
            "xllamacpp",
            "xllamacpp",
            features_code="print(xllamacpp.get_system_info())",
        )

    def knows(self, architecture: str, _options: Options) -> bool | None:
        """See `KnowsArchitectures.knows`."""
        return llama_cpp_knows(package_file("xllamacpp", "*.so"), architecture)

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        self.close()
        import xllamacpp

        key = new_key()
        params = _params(xllamacpp, model, options, key)
        started_s = time.perf_counter()
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise load_failed(model, error) from error
        address = urlsplit(self._server.listening_address).netloc
        self._http = LlamaHttp(address, key, options.context_tokens)
        # Answered by the server's own loop: only now is it ready. A server that is closed before
        # its loop began never ends, and takes the process with it.
        self._http.get("/slots")
        load_s = time.perf_counter() - started_s
        self._http.check_slots(slots(options))
        return LoadReport(
            load_s,
            version=xllamacpp.__version__,
            details={
                "context_tokens": options.context_tokens,
                "slots": slots(options),
                "system": xllamacpp.get_system_info().strip(),
            },
        )

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        if self._server is None or self._http is None:
            raise BackendError("no model is loaded")
        yield from self._http.complete(prompt, output_tokens, options)

    def close(self) -> None:
        """See `Backend.close`."""
        # The binding's server stops and frees the model when the object goes.
        self._server = None


def _params(xllamacpp: Any, model: Path, options: Options, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    # Split among its slots, each with a context of its own that no other can fill.
    params.n_ctx = options.context_tokens * slots(options)
    params.n_parallel = slots(options)
    params.kv_unified = False
    params.cont_batching = True
    params.n_gpu_layers = 0
    if options.threads is not None:
        params.cpuparams.n_threads = options.threads
        params.cpuparams_batch.n_threads = options.threads
    if options.batch_tokens is not None:
        params.n_batch = options.batch_tokens
    # A load is measured as a load: a hidden first run would make it look slow, and the first
    # trial fast.
    params.warmup = False
    # Exactly what was asked, not what the binding thinks fits.
    params.fit_params = False
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.ui = False
    params.verbosity = 1
    return params
