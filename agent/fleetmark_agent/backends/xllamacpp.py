"""llama.cpp in this process through the prebuilt xllamacpp binding: no compiler needed."""

import http.client
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleetmark_agent.backends.base import (
    Availability,
    Completion,
    LoadReport,
    Token,
    check_length,
    load_failed,
)
from fleetmark_agent.backends.packages import probe_package
from fleetmark_protocol.errors import BackendError, PromptTooLong
from fleetmark_protocol.messages import Options

READ_TIMEOUT_S = 3600
"""The runner's deadlines are shorter; this one only ends a connection nobody watches."""


class XLlamaCpp:
    """The binding's own server on loopback: unlike its callbacks, it tells token ids."""

    name = "xllamacpp"

    def __init__(self) -> None:
        self._server: Any = None
        self._address = ""
        self._key = ""
        self._context_tokens = 0

    def probe(self) -> Availability:
        """See `Backend.probe`."""
        return probe_package("xllamacpp", "xllamacpp", "xllamacpp")

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        self.close()
        import xllamacpp

        self._key = secrets.token_hex(16)
        params = _params(xllamacpp, model, options, self._key)
        started_s = time.perf_counter()
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise load_failed(model, error) from error
        self._address = urlsplit(self._server.listening_address).netloc
        # Answered by the server's own loop: only now is it ready. A server that is closed before
        # its loop began never ends, and takes the process with it.
        self._ask("GET", "/slots", None).read()
        load_s = time.perf_counter() - started_s
        self._context_tokens = options.context_tokens
        return LoadReport(
            load_s,
            version=xllamacpp.__version__,
            details={
                "context_tokens": options.context_tokens,
                "system": xllamacpp.get_system_info().strip(),
            },
        )

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        if self._server is None:
            raise BackendError("no model is loaded")
        prompt_ids = self._tokenize(prompt)
        check_length(len(prompt_ids), output_tokens, self._context_tokens)
        response = self._post(
            "/completion",
            {
                "prompt": prompt_ids,
                "n_predict": output_tokens,
                "temperature": options.temperature,
                "seed": options.seed,
                "ignore_eos": options.ignore_eos,
                "stream": True,
                "cache_prompt": False,
                "return_tokens": True,
                # Nothing but temperature shapes the distribution, as in the other backends.
                "samplers": ["temperature"],
            },
        )
        made = 0
        for line in response:
            time_ns = time.perf_counter_ns()
            if not line.startswith(b"data: "):
                _raise_if_error(line)
                continue
            step = json.loads(line[6:])
            if "error" in step:
                raise _error(step["error"])
            count = step["tokens_predicted"] - made
            made = step["tokens_predicted"]
            ids = tuple(step.get("tokens", ()))
            # The last step repeats the count and brings no token, unless text was held back.
            if count > 0:
                yield Token(time_ns, step["content"], ids if len(ids) == count else (), count)
            if step["stop"]:
                yield _completion(step, prompt_ids)
                return
        raise BackendError("llama.cpp ended its answer early")

    def close(self) -> None:
        """See `Backend.close`."""
        # The binding's server stops and frees the model when the object goes.
        self._server = None

    def _tokenize(self, prompt: str) -> list[int]:
        answer = json.load(self._post("/tokenize", {"content": prompt, "add_special": True}))
        return [int(token) for token in answer["tokens"]]

    def _post(self, path: str, body: dict[str, Any]) -> http.client.HTTPResponse:
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._address, timeout=READ_TIMEOUT_S)
        connection.request(
            method,
            path,
            body,
            {
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self._key}",
                "Connection": "close",
            },
        )
        response = connection.getresponse()
        if response.status != 200:
            _raise_if_error(response.read())
            raise BackendError(f"llama.cpp answered {response.status} to {path}")
        return response


def _params(xllamacpp: Any, model: Path, options: Options, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = options.context_tokens
    params.n_parallel = 1
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
    params.verbosity = 0
    return params


def _completion(step: dict[str, Any], prompt_ids: list[int]) -> Completion:
    timings = step.get("timings", {})
    return Completion(
        prompt_tokens=len(prompt_ids),
        prompt_tokens_evaluated=timings.get("prompt_n", step["tokens_evaluated"]),
        output_tokens=step["tokens_predicted"],
        stop_reason={"limit": "length", "eos": "eos"}.get(step.get("stop_type", ""), "stop"),
        prompt_ids=tuple(prompt_ids),
        engine_prefill_s=timings["prompt_ms"] / 1e3 if "prompt_ms" in timings else None,
        engine_decode_s=timings["predicted_ms"] / 1e3 if "predicted_ms" in timings else None,
    )


def _raise_if_error(raw: bytes) -> None:
    text = raw.strip().removeprefix(b"error: ")
    if not text.startswith(b"{"):
        return
    found = json.loads(text)
    raise _error(found.get("error", found))


def _error(found: dict[str, Any]) -> BackendError:
    message = str(found.get("message", found))
    kind = PromptTooLong if found.get("type") == "exceed_context_size_error" else BackendError
    return kind(f"llama.cpp: {message}")
