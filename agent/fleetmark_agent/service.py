"""Puts the parts of an agent together, runs them until a signal comes, and takes them apart."""

import random
import signal
import threading
import time
from dataclasses import dataclass

from fleetmark_agent.backends import registry
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
from fleetmark_agent.statelock import held
from fleetmark_agent.telemetry.backlog import Waiting
from fleetmark_agent.telemetry.sampler import Sample, Sampler
from fleetmark_agent.telemetry.sensors import all_sensors
from fleetmark_protocol import logs
from fleetmark_protocol.ids import new_uuid
from fleetmark_protocol.messages import Inventory, Status
from fleetmark_protocol.version import __version__


@dataclass
class _Parts:
    """A running agent; taken apart in the order of `stop`."""

    database: Database
    outbox: Outbox
    sampler: Sampler
    link: Link
    runner: Runner
    stopping: threading.Event


def run_agent(settings: AgentSettings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigError: another agent uses this state directory, or a setting cannot be used.
        StoreUnavailable: the state directory cannot be written.
    """
    log = logs.get("service")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with held(settings.state_dir):
        parts = _start(settings)
        log.info(
            "agent_started",
            device=settings.device_id,
            fleet=settings.fleet,
            version=__version__,
            state_dir=str(settings.state_dir),
        )
        ended.wait()
        log.info("agent_stopping")
        _stop(parts)
    log.info("agent_stopped", backlog=parts.outbox.backlog().records)


def _start(settings: AgentSettings) -> _Parts:
    boot_id = new_uuid()
    stopping = threading.Event()
    database = Database(settings.outbox_file)
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
        )

    status = Status(
        online=True, boot_id=boot_id, agent_version=__version__, started_ns=time.time_ns()
    )
    link = Link(
        settings,
        outbox,
        status,
        on_assignment=lambda assignment: runner.assign(assignment),
        on_withdrawn=lambda job_id: runner.withdraw(job_id),
        # Spreads a fleet; nothing secret hangs on it.
        rng=random.Random(boot_id),  # noqa: S311
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
    parts = _Parts(database, outbox, sampler, link, runner, stopping)
    sampler.start()
    link.start(inventory())
    runner.start()
    return parts


def _stop(parts: _Parts) -> None:
    """From the source to the wire, so that what is under way still reaches the outbox."""
    parts.stopping.set()
    parts.runner.stop()
    parts.sampler.stop()
    parts.link.stop()
    parts.database.close()
