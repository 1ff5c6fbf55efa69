"""The agent as a service: runs until a signal comes, takes new settings, tells how it stands."""

import logging
import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fleetmark_agent import parts, statussocket
from fleetmark_agent.certificatewatch import CertificateWatch
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.standing import LastProblem, Standing
from fleetmark_agent.statelock import held
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ConfigError, FleetmarkError
from fleetmark_protocol.logs import OURS
from fleetmark_protocol.notify import Notifier
from fleetmark_protocol.version import __version__

CHECK_S = 5.0
"""How often the parts are looked after where no watchdog asks for it more often."""


class _Signals:
    """What the outside wants: set by handlers, read by the main thread."""

    def __init__(self) -> None:
        # An Event's lock may be held by the very thread that a handler interrupts; the put of this
        # queue is made for that.
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.end = self.reload = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._reload)

    def _end(self, *_: object) -> None:
        self.end = True
        self._woken.put(None)

    def _reload(self, *_: object) -> None:
        self.reload = True
        self._woken.put(None)

    def wait(self, timeout_s: float) -> None:
        """Return when something is wanted, or the time is over."""
        with suppress(queue.Empty):
            self._woken.get(timeout=timeout_s)


class _Service:
    """One agent process; used by the main thread, `standing` by any."""

    def __init__(
        self, settings: AgentSettings, reread: Callable[[], AgentSettings], problems: LastProblem
    ) -> None:
        self._reread = reread
        self._problems = problems
        self._notifier = Notifier()
        self._log = logs.get("service")
        self._started_ns = self._settings_ns = time.time_ns()
        self._refused: str | None = None
        self._refusals = 0
        self._settings = settings
        self._parts = parts.start(settings)
        self._certificate = CertificateWatch(settings.broker)

    def run(self, signals: _Signals) -> None:
        """Look after the parts until told to end, and end them."""
        self._log.info(
            "agent_started",
            device=self._settings.device_id,
            fleet=self._settings.fleet,
            version=__version__,
            state_dir=str(self._settings.state_dir),
        )
        self._notifier.say(READY=1, STATUS=self._in_words())
        self._certificate.look()
        try:
            while not signals.end:
                signals.wait(self._notifier.interval_s or CHECK_S)
                if signals.reload and not signals.end:
                    signals.reload = False
                    self._reload()
                self._look_after()
        finally:
            self._log.info("agent_stopping")
            self._notifier.say(STOPPING=1)
            self._parts.stop()
        self._log.info("agent_stopped", backlog=self._parts.outbox.backlog().records)

    def _look_after(self) -> None:
        """Give a sign of life if there is life.

        Raises:
            FleetmarkError: a part has died; a restart of the process brings it back.
        """
        self._certificate.look()
        broken = self._parts.broken()
        if broken is not None:
            raise FleetmarkError(f"the agent's {broken} has died", hint="this is a mistake of ours")
        if self._parts.hangs():
            self._log.error("sampler_hangs", hint="a sensor does not answer")
            return
        self._notifier.say(WATCHDOG=1, STATUS=self._in_words())

    def _reload(self) -> None:
        """Take new settings; the trial under way is given up and made again."""
        self._notifier.say(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        try:
            settings = self._reread()
            self._check(settings)
        except FleetmarkError as error:
            self._keep(error)
        else:
            self._change(settings)
        self._notifier.say(READY=1, STATUS=self._in_words())

    def _check(self, settings: AgentSettings) -> None:
        """Refuse what cannot be taken before anything is stopped for it.

        Raises:
            ConfigError: says why.
        """
        old = self._settings
        if settings.state_dir != old.state_dir:
            raise ConfigError(
                f"state_dir is {old.state_dir} until the agent ends", hint="restart it instead"
            )
        job_id = self._parts.runner.current_job()
        renamed = (settings.fleet, settings.device_id) != (old.fleet, old.device_id)
        if renamed and job_id is not None:
            raise ConfigError(
                f"fleet and device_id stay {old.fleet}/{old.device_id} while job {job_id} runs",
                hint="its results are expected under this name: wait for it, or cancel it",
            )
        parts.check(settings)

    def _change(self, settings: AgentSettings) -> None:
        """Begin anew with settings, even with those of before: files that they name may be new."""
        self._parts.stop()
        try:
            self._parts = parts.start(settings)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end what ran before
            self._parts = parts.start(self._settings)
            self._keep(error)
        else:
            self._settings, self._refused = settings, None
            self._certificate = CertificateWatch(settings.broker)
            self._settings_ns = time.time_ns()
            logs.configure(settings.log_level, settings.log_format)
            self._log.info("settings_taken")

    def _keep(self, error: Exception) -> None:
        ours = isinstance(error, FleetmarkError)
        reason = str(error) if ours else f"{type(error).__name__}: {error}"
        self._refused, self._refusals = reason, self._refusals + 1
        self._log.error(
            "settings_refused",
            reason=reason,
            hint="those of before stay in use",
            exc_info=None if ours else error,
        )

    def standing(self) -> dict[str, object]:
        """Return how the agent stands."""
        now, settings = self._parts, self._settings
        backlog = now.outbox.backlog()
        problem, problem_ns = self._problems.newest()
        return Standing(
            pid=os.getpid(),
            version=__version__,
            fleet=settings.fleet,
            device=settings.device_id,
            boot_id=now.boot_id,
            started_ns=self._started_ns,
            settings_ns=self._settings_ns,
            refused_settings=self._refused,
            refusals=self._refusals,
            broker=f"{settings.broker.host}:{settings.broker.port}",
            connected=now.link.connected,
            job_id=now.runner.current_job(),
            outbox_records=backlog.records,
            outbox_bytes=backlog.bytes,
            outbox_used_percent=backlog.used_percent,
            certificate_ends_ns=self._certificate.ends_ns,
            collector_version=now.link.centre.version,
            collector_refusal=now.link.centre.refusal,
            last_ack_ns=now.acks.last_ns,
            last_problem=problem,
            last_problem_ns=problem_ns,
        ).as_fields()

    def _in_words(self) -> str:
        now = self._parts
        job = now.runner.current_job()
        where = "connected" if now.link.connected else "not connected"
        doing = f"runs {job}" if job else "idle"
        return f"{where}, {doing}, {now.outbox.backlog().records} records wait"


def run_agent(settings: AgentSettings, reread: Callable[[], AgentSettings]) -> None:
    """Run until SIGTERM or SIGINT; at a SIGHUP take new settings.

    Args:
        settings: what to begin with.
        reread: returns what the settings are now; may raise ConfigError.

    Raises:
        ConfigError: another agent uses this state directory, or a setting cannot be used.
        StoreUnavailable: the state directory cannot be written.
        FleetmarkError: a part of the agent died.
    """
    signals = _Signals()
    with _problems() as problems, held(settings.state_dir):
        service = _Service(settings, reread, problems)
        with statussocket.served(settings.state_dir, service.standing):
            service.run(signals)


@contextmanager
def _problems() -> Iterator[LastProblem]:
    handler, ours = LastProblem(), logging.getLogger(OURS)
    ours.addHandler(handler)
    try:
        yield handler
    finally:
        ours.removeHandler(handler)
