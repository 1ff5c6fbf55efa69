"""Ollama through its official client: a server that runs already, or one started for the job."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fleetmark_agent.backends.base import (
    COMMON_OPTIONS,
    SERVER_OPTIONS,
    Availability,
    Completion,
    LoadReport,
    Token,
    check_length,
    slots,
)
from fleetmark_agent.backends.ollama_models import is_named, known_model
from fleetmark_agent.backends.ollama_service import (
    INSTALL_HINT,
    Service,
    connect,
    executable,
    version_at,
    version_of,
)
from fleetmark_agent.backends.ollama_wire import (
    completion_of,
    other_prompt,
    request_options,
    runner_options,
)
from fleetmark_agent.backends.packages import probe_package
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    BackendTimeout,
    OutOfMemory,
)
from fleetmark_protocol.messages import Options

KEEP_ALIVE_S = 600
"""How long the server holds a model after a request: longer than any pause between two trials, yet
it lets go by itself where a worker was killed."""
UNLOAD_TIMEOUT_S = 30.0
UNLOAD_POLL_S = 0.02

Asks = Callable[[Service, str, str, dict[str, Any]], Iterator[Any]]
"""Called with the server, the model's name, a prompt and options; yields the parts of the answer as
the client has them."""


def ask_by_client(
    service: Service, model: str, prompt: str, chosen: dict[str, Any]
) -> Iterator[Any]:
    """Ask by the official client, without any template around the prompt."""
    yield from service.client.generate(
        model, prompt=prompt, raw=True, stream=True, keep_alive=KEEP_ALIVE_S, options=chosen
    )


class Ollama:
    """Counts and durations are Ollama's own; it tells no token ids, and end tokens end the answer.

    Ollama keeps what it evaluated and finds any common beginning again without saying so. So each
    measured prompt meets a context that was just used for another (a server of ours with one), or a
    model just loaded anew (a server with several, or somebody else's with a cache behind them).
    """

    name = "ollama"
    formats = ("gguf", "remote")

    def __init__(self, engines: EnginesSettings, asks: Asks = ask_by_client) -> None:
        self._settings = engines.ollama
        self._asks = asks
        self._service: Service | None = None
        self._model = ""
        self._context_tokens = 0
        self._load_s = 0.0
        # How many of the next prompts can find nothing again that was evaluated before.
        self._clean = 0
        self._under_way = 0
        self._lock = threading.RLock()
        self._prompt_tokens: dict[str, int] = {}

    @property
    def takes(self) -> frozenset[str]:
        """See `Backend`; a server that runs already does not say how many it serves at once."""
        return SERVER_OPTIONS if self._settings.serve == "always" else COMMON_OPTIONS

    def probe(self) -> Availability:
        """See `Backend.probe`."""
        package = probe_package("ollama", "ollama", "ollama")
        if not package.available:
            return package
        running = None
        if self._settings.serve != "always":
            running = version_at(self._settings.url)
        program = executable(self._settings) if self._settings.serve != "never" else None
        if running is None and program is None:
            return Availability(
                available=False,
                reason=f"no Ollama answers at {self._settings.url}"
                + ("" if self._settings.serve == "never" else ", and no ollama program is found"),
                hint=INSTALL_HINT,
            )
        if running is None and program is not None:
            running = version_of(program, Path(program).stat().st_mtime_ns)
        return Availability(available=True, version=running)

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        self.close()
        started_s = time.perf_counter()
        service = connect(self._settings, slots(options))
        connected_s = time.perf_counter() - started_s
        self._service = service
        try:
            self._model, details = known_model(service, model)
            self._unload()
            self._load_s = self._load_now(model, options)
            held = self._in_memory()
        except BaseException:
            self.close()
            raise
        # Less than asked where the model was trained with less; old versions do not say.
        granted = getattr(held, "context_length", None) or options.context_tokens
        self._context_tokens = min(options.context_tokens, granted)
        self._prompt_tokens = {}
        self._clean = 1
        details |= {"started_here": service.own, "context_tokens": self._context_tokens}
        if service.own:
            details |= {"slots": slots(options)}
        if held is not None:
            details |= {"gpu_bytes": int(held.size_vram or 0)}
        if service.own:
            details["server_start_s"] = connected_s
        return LoadReport(self._load_s, service.version, details, service.port_to_follow)

    @property
    def place(self) -> tuple[str, str]:
        """URL of the server, and the name of the model there.

        Raises:
            BackendError: no model is loaded.
        """
        return self._running().url, self._model

    def prepare(self, prompt: str, options: Options) -> None:
        """Make the server forget what it could find again of a prompt; outside of any measuring.

        Raises:
            BackendCrashed, OutOfMemory: the server is gone.
            BackendError: see `Backend.generate`.
        """
        if not self._clean and self._service is not None:
            self.prepare_round([prompt], options)

    def prepare_round(self, prompts: Sequence[str], options: Options) -> None:
        """Do as `prepare` for requests that come at the same time.

        Raises:
            BackendCrashed, OutOfMemory, BackendError: see `prepare`.
        """
        if not self._running().own or slots(options) > 1:
            self._unload()
            self._load_now(Path(self._model), options)
        for _ in self._stream(other_prompt(prompts), 1, options):
            pass
        self._clean = len(prompts)

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        if self._service is None:
            raise BackendError("no model is loaded")
        clean = self._take_clean()
        known = self._prompt_tokens.get(prompt, 1 if prompt else 0)
        check_length(known, output_tokens, self._context_tokens)
        with self._lock:
            if not clean and not self._under_way:
                self.prepare(prompt, options)
                self._take_clean()
            self._under_way += 1
        completion = None
        try:
            for part in self._stream(prompt, output_tokens, options):
                time_ns = time.perf_counter_ns()
                # Its count includes the end token, which comes without text.
                if part.response or part.done_reason == "stop":
                    yield Token(time_ns, part.response)
                if part.done:
                    completion = completion_of(
                        part,
                        output_tokens=output_tokens,
                        context_tokens=self._context_tokens,
                        known_tokens=known,
                        load_s=self._load_s,
                    )
        finally:
            with self._lock:
                self._under_way -= 1
        if completion is None:
            raise BackendError(
                "Ollama ended its answer before its end",
                hint="it does so when a model repeats one token more than 30 times",
            )
        self._prompt_tokens[prompt] = completion.prompt_tokens
        yield completion

    def close(self) -> None:
        """See `Backend.close`."""
        service, self._service = self._service, None
        if service is None:
            return
        try:
            if self._model and not service.own:
                with service.typed_errors():
                    # Says so and does not wait: whoever is next asks for a load anyway.
                    service.client.generate(self._model, prompt="", keep_alive=0)
        except BackendError:
            # A server that is gone holds nothing.
            pass
        finally:
            self._model = ""
            service.close()

    def _take_clean(self) -> bool:
        """Whether the next prompt finds nothing again; whatever comes of it, the one after does."""
        with self._lock:
            clean, self._clean = self._clean > 0, max(0, self._clean - 1)
        return clean

    def _stream(self, prompt: str, output_tokens: int, options: Options) -> Iterator[Any]:
        service = self._running()
        try:
            with service.typed_errors():
                chosen = request_options(options, output_tokens)
                yield from self._asks(service, self._model, prompt, chosen)
        except (BackendCrashed, OutOfMemory):
            # The last one to hear of it: the others read from the same client.
            if self._under_way <= 1:
                self.close()
            raise

    def _load_now(self, model: Path, options: Options) -> float:
        """Load and return the seconds that it took."""
        import ollama

        service = self._running()
        started_s = time.perf_counter()
        with service.typed_errors():
            try:
                service.client.generate(
                    self._model,
                    prompt="",
                    keep_alive=KEEP_ALIVE_S,
                    options=runner_options(options),
                )
            except ollama.ResponseError as error:
                if error.status_code == 404:
                    raise
                raise service.load_failed(model, error) from error
        return time.perf_counter() - started_s

    def _unload(self) -> None:
        """Have the model out of memory, so that the next load is one.

        Raises:
            BackendTimeout: the server keeps it, perhaps for a request of somebody else.
        """
        service = self._running()
        deadline_s = time.monotonic() + UNLOAD_TIMEOUT_S
        asked = False
        while self._in_memory() is not None:
            if not asked:
                with service.typed_errors():
                    service.client.generate(self._model, prompt="", keep_alive=0)
                asked = True
            if time.monotonic() > deadline_s:
                raise BackendTimeout(
                    f"the Ollama at {service.url} did not unload {self._model}"
                    f" within {UNLOAD_TIMEOUT_S:g} s"
                )
            time.sleep(UNLOAD_POLL_S)

    def _in_memory(self) -> Any:
        """Return what the server says of our model among those it holds, or None."""
        service = self._running()
        with service.typed_errors():
            held = service.client.ps().models
        return next((one for one in held if is_named(self._model, one.model or "")), None)

    def _running(self) -> Service:
        if self._service is None:
            raise BackendError("no model is loaded")
        return self._service
