"""The HTTP protocol of llama.cpp's server, as spoken by servers of its whole history."""

import http.client
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from fleetmark_agent.backends.base import Completion, Token, check_length
from fleetmark_protocol.errors import BackendCrashed, BackendError, PromptTooLong
from fleetmark_protocol.messages import Options

READ_TIMEOUT_S = 3600
"""The runner's deadlines are shorter; this one only ends a connection nobody watches."""
HEALTH_TIMEOUT_S = 5
ANSWER_BYTES_MAX = 64 * 2**20
LINE_BYTES_MAX = 8 * 2**20

# Nothing but temperature shapes the distribution, as in the other backends. Newer servers are told
# so by the list of samplers; the others are set to where they do nothing for older ones, which had
# penalties and cuts outside of that list, and on by default.
_PLAIN_SAMPLING = {
    "samplers": ["temperature"],
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "tfs_z": 1.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "mirostat": 0,
}


def new_key() -> str:
    """Return a random key, so that nobody else on the machine uses a server meant for us."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class LlamaHttp:
    """One server; any number of threads may ask at the same time.

    Every request has a connection of its own: a stream that is left is closed, which is how a
    server learns that it may stop generating.

    Attributes:
        address: `host:port`.
        key: sent with each request; servers without one ignore it.
        context_tokens: of each of its slots.
        tells_ids: whether it adds a model's special tokens where it is asked for token ids (see
            `asked_for_ids`); if so prompts are sent as ids, and the two cannot differ.
    """

    address: str
    key: str = field(repr=False)
    context_tokens: int
    tells_ids: bool = True

    def healthy(self) -> bool:
        """Whether it has loaded its model; false while it does, or where nobody listens."""
        try:
            status, _ = self._answer("GET", "/health", None, HEALTH_TIMEOUT_S)
        except BackendCrashed:
            return False
        # Servers older than this page begin to listen when the model is loaded.
        return status in (200, 404)

    def get(self, path: str) -> Any:
        """Return what a page says.

        Raises:
            BackendCrashed: the connection broke.
            BackendError: it says no.
        """
        return self._json("GET", path, None)

    def check_slots(self, wanted: int) -> None:
        """See that it serves as many requests at once as it was started for, where it tells.

        Raises:
            BackendError: it serves fewer.
        """
        if wanted == 1:
            return
        status, raw = self._answer("GET", "/props", None, HEALTH_TIMEOUT_S)
        # Before March 2024 there was no such page, or it did not say.
        told = json.loads(raw).get("total_slots", wanted) if status == 200 else wanted
        if told < wanted:
            raise BackendError(f"llama.cpp serves {told} requests at once, {wanted} were asked for")

    def asked_for_ids(self) -> "LlamaHttp":
        """Return itself with `tells_ids` as the server is found to be.

        The answer to a request for pieces tells: both came in together, in 2024.
        """
        body = {"content": "a", "add_special": True, "with_pieces": True}
        answer = self._json("POST", "/tokenize", body)
        return replace(self, tells_ids=any(isinstance(token, dict) for token in answer["tokens"]))

    def tokenize(self, text: str) -> list[int]:
        """Return token ids; without a leading special token unless `tells_ids`."""
        answer = self._json("POST", "/tokenize", {"content": text, "add_special": True})
        return [int(token) for token in answer["tokens"]]

    def complete(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """Generate; see `Backend.generate`.

        Raises:
            BackendCrashed: the connection broke.
        """
        prompt_ids = self.tokenize(prompt)
        check_length(len(prompt_ids), output_tokens, self.context_tokens)
        body = {
            "prompt": prompt_ids if self.tells_ids else prompt,
            "n_predict": output_tokens,
            "temperature": options.temperature,
            "seed": options.seed,
            "ignore_eos": options.ignore_eos,
            "stream": True,
            "cache_prompt": False,
            "return_tokens": True,
            **_PLAIN_SAMPLING,
        }
        connection = self._connect(READ_TIMEOUT_S)
        try:
            response = _request(connection, "POST", "/completion", body, self.key)
            if response.status != 200:
                raise _error_of("/completion", response.status, _read(response))
            yield from _stream(response, prompt_ids)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error) from error
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        status, raw = self._answer(method, path, body, READ_TIMEOUT_S)
        if status != 200:
            raise _error_of(path, status, raw)
        try:
            return json.loads(raw)
        except ValueError:
            raise BackendError(f"llama.cpp's answer to {path} is no JSON") from None

    def _answer(
        self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float
    ) -> tuple[int, bytes]:
        connection = self._connect(timeout_s)
        try:
            response = _request(connection, method, path, body, self.key)
            return response.status, _read(response)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error) from error
        finally:
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=timeout_s)


def _request(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    key: str,
) -> http.client.HTTPResponse:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request(
        method,
        path,
        None if body is None else json.dumps(body),
        {**headers, "Connection": "close"},
    )
    return connection.getresponse()


def _read(response: http.client.HTTPResponse) -> bytes:
    return response.read(ANSWER_BYTES_MAX)


def _stream(
    response: http.client.HTTPResponse, prompt_ids: list[int]
) -> Iterator[Token | Completion]:
    """Read events until the last one.

    A step that carries no count is given as one token: the engine's total at the end, not the sum
    of the steps, is the number of tokens.
    """
    made = 0
    counted = True
    while line := response.readline(LINE_BYTES_MAX):
        time_ns = time.perf_counter_ns()
        if not line.startswith(b"data: "):
            _raise_if_error(line)
            continue
        step = json.loads(line[6:])
        if "error" in step:
            raise _error(step["error"])
        counted = counted and "tokens_predicted" in step
        # The last step repeats the count and brings no token, unless text was held back.
        count = step["tokens_predicted"] - made if counted else int(step["content"] != "")
        if count > 0:
            made += count
            ids = tuple(step.get("tokens", ()))
            yield Token(time_ns, step["content"], ids if len(ids) == count else (), count)
        if step["stop"]:
            yield _completion(step, prompt_ids)
            return
    raise BackendCrashed("llama.cpp ended its answer early")


def _completion(step: dict[str, Any], prompt_ids: list[int]) -> Completion:
    """Read the last step.

    Raises:
        PromptTooLong: it has cut the prompt or its own answer to fit.
    """
    if step.get("truncated"):
        raise PromptTooLong("llama.cpp cut the prompt or the answer to fit its context")
    timings = step.get("timings", {})
    prompt_tokens = step["tokens_evaluated"]
    return Completion(
        prompt_tokens=prompt_tokens,
        prompt_tokens_evaluated=timings.get("prompt_n", prompt_tokens),
        output_tokens=step["tokens_predicted"],
        stop_reason=_stop_reason(step),
        # An older server adds its special token to the text it was sent, but not to these.
        prompt_ids=tuple(prompt_ids) if prompt_tokens == len(prompt_ids) else (),
        engine_prefill_s=timings["prompt_ms"] / 1e3 if "prompt_ms" in timings else None,
        engine_decode_s=timings["predicted_ms"] / 1e3 if "predicted_ms" in timings else None,
    )


def _stop_reason(step: dict[str, Any]) -> str:
    if "stop_type" in step:
        return {"limit": "length", "eos": "eos"}.get(step["stop_type"], "stop")
    if step.get("stopped_eos"):
        return "eos"
    return "length" if step.get("stopped_limit") else "stop"


def _error_of(path: str, status: int, raw: bytes) -> BackendError:
    try:
        _raise_if_error(raw)
    except BackendError as error:
        return error
    return BackendError(f"llama.cpp answered {status} to {path}")


def _raise_if_error(raw: bytes) -> None:
    text = raw.strip().removeprefix(b"error: ")
    if text.startswith(b"{"):
        found = json.loads(text)
        raise _error(found.get("error", found))


def _error(found: Any) -> BackendError:
    if not isinstance(found, dict):
        return BackendError(f"llama.cpp: {found}")
    message = str(found.get("message") or found.get("content") or found)
    kind = PromptTooLong if found.get("type") == "exceed_context_size_error" else BackendError
    return kind(f"llama.cpp: {message}")


def _broken(error: Exception) -> BackendCrashed:
    return BackendCrashed(f"the connection to llama.cpp broke: {error or type(error).__name__}")
