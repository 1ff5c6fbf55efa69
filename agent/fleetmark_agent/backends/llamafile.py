"""llamafile: llama.cpp in one file that runs anywhere, with weights inside or beside it."""

import time
from collections.abc import Iterator
from pathlib import Path

from fleetmark_agent.backends import llamafile_cli
from fleetmark_agent.backends.base import (
    SERVER_OPTIONS,
    Availability,
    Completion,
    LoadReport,
    Token,
    load_failed,
    slots,
)
from fleetmark_agent.backends.llama_http import LlamaHttp
from fleetmark_agent.backends.llama_program import (
    ask_briefly,
    flags_in,
    model_was_refused,
    plain_environment,
    server_arguments,
    start_server,
    version_in,
)
from fleetmark_agent.backends.llamafile_cli import LlamafileCli, Version
from fleetmark_agent.backends.llamafile_program import Program, is_program, open_trusted
from fleetmark_agent.backends.scratch import Scratch
from fleetmark_agent.backends.serverprocess import ServerProcess
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    BackendUnavailable,
    FleetmarkError,
)
from fleetmark_protocol.messages import Options

SCRATCH_PREFIX = "fleetmark-llamafile-"
NO_WARMUP: Version = (0, 8, 12)
"""From here on the server can leave its warm-up run out; the manual up to 0.9 does not say so."""


class Llamafile:
    """A server for each load; for a cold start the command, where it does the same work."""

    name = "llamafile"
    formats = ("llamafile", "gguf")
    takes = SERVER_OPTIONS

    def __init__(self, engines: EnginesSettings) -> None:
        self._settings = engines.llamafile
        self._program: Program | None = None
        self._scratch: Scratch | None = None
        self._server: ServerProcess | None = None
        self._http: LlamaHttp | None = None
        self._cli: LlamafileCli | None = None

    def probe(self) -> Availability:
        """See `Backend.probe`; without a bare program the version is that of each model."""
        if not self._settings.trusted_sha256:
            return Availability(
                available=False,
                reason="the owner of this device trusts no llamafile",
                hint="add digests of llamafiles (sha256sum FILE) to trusted_sha256 under"
                " [engines.llamafile] in the agent's settings",
            )
        bare = self._settings.executable
        if bare is None:
            return Availability(available=True)
        try:
            version, _, _ = self._ask(bare.expanduser())
        except FleetmarkError as error:
            return Availability(available=False, reason=error.message, hint=error.hint)
        finally:
            self.close()
        return Availability(available=True, version=version)

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`.

        Raises:
            SourceNotAllowed: the owner does not trust this program.
        """
        self.close()
        inside = is_program(model)
        weights = None if inside else model.absolute()
        version_text, known, program = self._ask(model if inside else self._bare())
        version = _numbers(version_text)
        served = slots(options)
        details: dict[str, str | int | float | bool] = {"context_tokens": options.context_tokens}
        details |= {"slots": served}
        # The command answers one prompt.
        alone = options.start == "cold" and served == 1
        if alone and version is not None and llamafile_cli.usable(version):
            self._cli = LlamafileCli(
                program, weights, version, known, self._environment(), self._scratch_dir()
            )
            return LoadReport(None, version_text, {**details, "mode": "cli"})
        if version is not None and NO_WARMUP <= version < llamafile_cli.WRAPS_PROMPTS:
            known |= {"--no-warmup"}
        # Before, the server was a program of its own.
        mode = ("--server",) if version is None or version >= llamafile_cli.FIRST else ()
        started_s = time.perf_counter()
        try:
            self._server, self._http = start_server(
                lambda port: [
                    *program.command,
                    *mode,
                    *server_arguments(known, weights, port, options),
                ],
                context_tokens=options.context_tokens,
                pass_fds=(program.fd,),
                env=self._environment(),
                cwd=self._scratch_dir(),
                name=program.name,
            )
        except BackendCrashed as error:
            if model_was_refused(error.message):
                raise load_failed(model, error) from error
            raise
        load_s = time.perf_counter() - started_s
        self._http.check_slots(served)
        self._http = self._http.asked_for_ids()
        return LoadReport(load_s, version_text, {**details, "mode": "server"})

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        if self._cli is not None:
            yield from self._cli.generate(prompt, output_tokens, options)
            return
        if self._server is None or self._http is None:
            raise BackendError("no model is loaded")
        try:
            yield from self._http.complete(prompt, output_tokens, options)
        except BackendCrashed as error:
            raise self._server.explain(error) from error

    def close(self) -> None:
        """See `Backend.close`."""
        self._cli = None
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._program is not None:
            self._program.close()
            self._program = None
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None

    def _bare(self) -> Path:
        if self._settings.executable is None:
            raise BackendUnavailable(
                "a model without a program inside needs the bare llamafile program",
                hint="name it in engines.llamafile.executable of the agent's settings",
            )
        return self._settings.executable.expanduser()

    def _ask(self, path: Path) -> tuple[str | None, frozenset[str], Program]:
        """Open a program and return its version and the flags that it says it knows.

        Raises:
            BackendUnavailable, ModelRejected, SourceNotAllowed: see `open_trusted`.
        """
        self._program = program = open_trusted(path, self._settings.trusted_sha256)
        env = self._environment()
        said = ask_briefly([*program.command, "--version"], env=env, pass_fds=(program.fd,))
        # The manual of both uses in older ones, in newer ones that of a server.
        manual = ask_briefly(
            [*program.command, "--server", "--help"], env=env, pass_fds=(program.fd,)
        )
        return version_in(said), flags_in(manual), program

    def _environment(self) -> dict[str, str]:
        """Return that of the program.

        One for any system unpacks a loader, and takes one that it finds, in the directory that
        TMPDIR names: it must be one that nobody else may write.
        """
        return {**plain_environment(), "TMPDIR": str(self._scratch_dir())}

    def _scratch_dir(self) -> Path:
        if self._scratch is None:
            self._scratch = Scratch(SCRATCH_PREFIX)
        return self._scratch.path


def _numbers(version: str | None) -> Version | None:
    """Return `0.8.13` as numbers, None for what is no such version; pure."""
    parts = (version or "").split(" ")[0].split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        return None
    return tuple(int(part) for part in parts)
