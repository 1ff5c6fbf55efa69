"""The parts of a running agent: put together from its settings, looked after, taken apart."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from fleetmark_agent.backends import registry
from fleetmark_agent.brokerclient import make_client
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.engine import Tools
from fleetmark_agent.inventory import hardware, make_inventory
from fleetmark_agent.joblog import JobLog
from fleetmark_agent.link import Link
from fleetmark_agent.models.store import ModelStore
from fleetmark_agent.outbox import Outbox
from fleetmark_agent.recorder import Recorder
from fleetmark_agent.runner import Runner
from fleetmark_agent.standing import Acks
from fleetmark_agent.telemetry.backlog import Waiting
from fleetmark_agent.telemetry.sampler import Sample, Sampler
from fleetmark_agent.telemetry.sensors import all_sensors
from fleetmark_agent.timezones import device_time_zone
from fleetmark_protocol.ids import new_uuid
from fleetmark_protocol.messages import Inventory, Status
from fleetmark_protocol.version import __version__

STUCK_S = 60.0
"""A sampler that has read nothing for so long, beyond its interval, hangs in a sensor."""


@dataclass(frozen=True)
class Parts:
    """A running agent.

    Attributes:
        boot_id: of this start.
        acks: what the collector confirmed.
    """

    settings: AgentSettings
    boot_id: str
    database: Database
    outbox: Outbox
    sampler: Sampler
    link: Link
    runner: Runner
    acks: Acks
    stopping: threading.Event

    def broken(self) -> str | None:
        """Return which part has died, which none ever should; None if all live."""
        alive = {
            "sampler": self.sampler.alive,
            "link": self.link.alive,
            "runner": self.runner.alive,
        }
        return next((name for name, lives in alive.items() if not lives), None)

    def hangs(self) -> bool:
        """Whether a sensor has held the sampler up for so long that only a restart may help."""
        sample = self.sampler.latest()
        if sample is None:
            return False
        silent_s = (time.monotonic_ns() - sample.mono_ns) / 1e9
        return silent_s > self.settings.telemetry.interval_s + STUCK_S

    def stop(self) -> None:
        """End from the source to the wire, so that what is under way still reaches the outbox."""
        self.stopping.set()
        # Backwards, and the others although one breaks.
        with ExitStack() as last_first:
            last_first.callback(self.database.close)
            last_first.callback(self.link.stop)
            last_first.callback(self.sampler.stop)
            last_first.callback(self.runner.stop)


def check(settings: AgentSettings) -> None:
    """See that the files which the settings name can be used, without starting anything.

    Raises:
        ConfigError: one cannot.
    """
    make_client(settings)


def start(settings: AgentSettings) -> Parts:
    """Start an agent; its state directory must be held.

    Raises:
        ConfigError: a setting cannot be used.
        StoreUnavailable: the state directory cannot be written.
    """
    database = Database(settings.outbox_file)
    # Of an agent that has not begun nothing may stay: two clients of one id throw each other off.
    with ExitStack() as undo:
        undo.callback(database.close)
        parts, inventory = _put_together(settings, database)
        undo.pop_all()
        undo.callback(parts.stop)
        parts.sampler.start()
        parts.link.start(inventory())
        parts.runner.start()
        undo.pop_all()
    return parts


def _put_together(
    settings: AgentSettings, database: Database
) -> tuple[Parts, Callable[[], Inventory]]:
    """Return an agent that has not begun, and what says what the device is."""
    boot_id = new_uuid()
    stopping, acks = threading.Event(), Acks()
    outbox = Outbox(database, settings.outbox.max_bytes)
    joblog = JobLog(database)
    recorder = Recorder(database, outbox, joblog, stopping.is_set)
    models = ModelStore.from_settings(settings)

    def waiting() -> Waiting:
        backlog = outbox.backlog()
        return Waiting(backlog.records, backlog.used_percent)

    sensors = all_sensors(settings.telemetry.sensor_root, settings.state_dir, waiting)

    def emit(sample: Sample, job_id: str | None, trial_id: str | None) -> None:
        outbox.append(sample.to_record(boot_id, job_id, trial_id))

    sampler = Sampler(
        sensors, emit, settings.telemetry.interval_s, settings.telemetry.trial_interval_s
    )

    def inventory() -> Inventory:
        return make_inventory(
            settings=settings,
            boot_id=boot_id,
            time_ns=time.time_ns(),
            hardware=hardware(settings.telemetry.sensor_root),
            backends=registry.probe(settings.runner.allow_backends, settings.engines_here),
            models=models.list(),
            sensors=sampler.sensor_infos(),
            jobs=joblog.known(),
            time_zone=device_time_zone(settings.telemetry.sensor_root),
        )

    status = Status(
        online=True, boot_id=boot_id, agent_version=__version__, started_ns=time.time_ns()
    )
    link = Link(
        settings,
        outbox,
        status,
        on_assignment=lambda assignment: runner.assign(assignment),
        on_refused=lambda refused: runner.refuse(refused),
        on_withdrawn=lambda job_id: runner.withdraw(job_id),
        # Spreads a fleet; nothing secret hangs on it.
        rng=random.Random(boot_id),  # noqa: S311 - delays, not secrets
        watcher=acks,
        jobs=joblog.known,
    )
    tools = Tools(
        sampler,
        link.hold,
        settings.state_dir / "logs",
        settings.runner.max_backend_bytes,
        settings.engines_here,
    )
    runner = Runner(
        settings,
        tools,
        recorder,
        models,
        create=lambda name: registry.create(name, settings.engines_here),
        on_change=lambda: link.announce(inventory()),
    )
    recorder.event("info", "agent_started", f"agent {__version__} started", boot_id=boot_id)
    if database.healed_from is not None:
        recorder.event(
            "error",
            "outbox_damaged",
            f"the outbox was damaged and put aside as {database.healed_from.name}",
        )
    parts = Parts(settings, boot_id, database, outbox, sampler, link, runner, acks, stopping)
    return parts, inventory
