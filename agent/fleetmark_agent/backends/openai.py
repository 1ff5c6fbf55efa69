"""Any endpoint that speaks OpenAI's API: a reference row, measured over the network between."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fleetmark_agent.backends.base import Availability, Completion, LoadReport, Token
from fleetmark_agent.backends.openai_wire import Answer, error_of, request_body
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    ModelNotFound,
)
from fleetmark_protocol.messages import Options
from fleetmark_protocol.secretfile import read_secret
from fleetmark_protocol.settings import is_loopback

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 3600.0
"""The runner's deadlines are shorter; this one only ends a connection nobody watches."""
KEEP_OPEN_S = 2.0
"""How long an idle connection is used again: less than servers wait before they close it."""
_NO_LIST = (404, 405, 501)


class OpenAI:
    """Counts are the endpoint's; it loads nothing for us, and tells no token ids and no times."""

    name = "openai"
    formats = ("remote",)
    # Context, threads and batch are the endpoint's own, and how many requests it serves at once: it
    # is asked as many as a job says. It stops at end tokens.
    takes = frozenset({"temperature", "seed", "ignore_eos", "parallel"})

    def __init__(self, engines: EnginesSettings) -> None:
        self._settings = engines.openai
        self._client: httpx.Client | None = None
        self._key: str | None = None
        self._model = ""

    def probe(self) -> Availability:
        """See `Backend.probe`."""
        if self._settings.url is None:
            return Availability(
                available=False,
                reason="no endpoint is set",
                hint="set engines.openai.url in the agent's settings",
            )
        try:
            self._read_key()
        except ConfigError as error:
            return Availability(available=False, reason=error.message, hint=error.hint)
        return Availability(available=True)

    def load(self, model: Path, options: Options) -> LoadReport:  # noqa: ARG002 - it loads nothing
        """Connect, and see that the endpoint has the model: see `Backend.load`.

        Raises:
            ModelNotFound: it lists its models, and this is none of them.
            BackendUnavailable, BackendTimeout, BackendError: it is not there, or does not want us.
        """
        self.close()
        self._client = self._connect()
        self._model = str(model)
        started_s = time.perf_counter()
        try:
            self._check_listed(self._client)
        except BaseException:
            self.close()
            raise
        return LoadReport(
            time.perf_counter() - started_s,
            details={
                "endpoint": urlsplit(self._settings.url or "").netloc,
                "api": self._settings.api,
            },
        )

    def prepare(self, prompt: str, options: Options) -> None:  # noqa: ARG002 - same for all
        """Have a connection open before the clock starts, as a program that asks often has.

        Raises:
            BackendUnavailable, BackendTimeout, BackendError: see `load`.
        """
        if self._client is not None:
            self._check_listed(self._client)

    def prepare_round(self, prompts: Sequence[str], options: Options) -> None:  # noqa: ARG002
        """Have a connection open for each of the requests to come: see `prepare`.

        Raises:
            BackendUnavailable, BackendTimeout, BackendError: see `load`.
        """
        import httpx

        client = self._client
        if client is None:
            return
        self._check_listed(client)
        with contextlib.ExitStack() as held, contextlib.suppress(httpx.HTTPError):
            # All begun before the first is read to its end, so that each has its own.
            answers = [held.enter_context(client.stream("GET", "/models")) for _ in prompts]
            for answer in answers:
                answer.read()

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        if self._client is None:
            raise BackendError("no endpoint is connected")
        if not prompt:
            raise BackendError("the prompt has no tokens: there is nothing to evaluate")
        api = self._settings.api
        body = request_body(api, self._model, prompt, output_tokens, options)
        path = "/chat/completions" if api == "chat" else "/completions"
        answer = Answer()
        for time_ns, line in self._lines(self._client, path, body):
            try:
                text = answer.take(line)
            except BackendError as error:
                # Not chained: the other one may show the key.
                raise self._without_key(error) from None
            if text:
                yield Token(time_ns, text)
        if not answer.done and answer.finish is None:
            raise BackendCrashed("the endpoint ended its answer in the middle")
        yield answer.completion()

    def close(self) -> None:
        """See `Backend.close`."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _lines(
        self, client: "httpx.Client", path: str, body: dict[str, Any]
    ) -> Iterator[tuple[int, str]]:
        import httpx

        try:
            with client.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._refused(response)
                for line in response.iter_lines():
                    yield time.perf_counter_ns(), line
        except httpx.TimeoutException as error:
            raise BackendTimeout(f"the endpoint took too long: {error}") from error
        except httpx.HTTPError as error:
            raise BackendCrashed(f"the connection to the endpoint broke: {error}") from error

    def _check_listed(self, client: "httpx.Client") -> None:
        import httpx

        try:
            try:
                response = client.get("/models")
            except httpx.RemoteProtocolError:
                # The server closed a connection that was used before: it may, after any answer.
                response = client.get("/models")
        except httpx.TimeoutException as error:
            raise BackendTimeout(f"the endpoint took too long: {error}") from error
        except httpx.HTTPError as error:
            raise BackendUnavailable(f"no endpoint at {self._settings.url}: {error}") from error
        if response.status_code in _NO_LIST:
            return
        if response.status_code != 200:
            raise self._refused(response)
        known = _listed(response)
        if known and self._model not in known:
            raise ModelNotFound(
                f"the endpoint has no model {self._model!r}",
                hint=f"it has {', '.join(sorted(known)[:10])}",
            )

    def _refused(self, response: "httpx.Response") -> BackendError:
        try:
            answer = response.json()
        except ValueError:
            answer = response.text
        return self._without_key(error_of(response.status_code, answer))

    def _without_key(self, error: BackendError) -> BackendError:
        """Return an error that may be shown: some endpoints repeat what they were given."""
        if self._key is None:
            return error
        return type(error)(error.message.replace(self._key, "(the key)"), hint=error.hint)

    def _connect(self) -> "httpx.Client":
        import httpx

        url = self._settings.url
        if url is None:
            raise BackendUnavailable("no endpoint is set", hint="set engines.openai.url")
        try:
            self._key = self._read_key()
        except ConfigError as error:
            raise BackendUnavailable(error.message, hint=error.hint) from None
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        return httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(keepalive_expiry=KEEP_OPEN_S),
            # A proxy has no place before this machine. Redirects are not followed: a key stays
            # where its owner sent it.
            trust_env=not is_loopback(urlsplit(url).hostname or ""),
        )

    def _read_key(self) -> str | None:
        """Return the key; None where none is set.

        Raises:
            ConfigError: the file cannot be read, or holds something else.
        """
        file = self._settings.api_key_file
        if file is None:
            return None
        key = read_secret("engines.openai.api_key_file", file).get_secret_value()
        if not key.isascii() or " " in key:
            # What is wrong is not shown: it may be most of a key.
            raise ConfigError(f"engines.openai.api_key_file: {file} must hold the key and no more")
        return key


def _listed(response: "httpx.Response") -> set[str]:
    """Return the models that an endpoint lists; nothing where it is no such list."""
    try:
        return {str(one["id"]) for one in response.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return set()
