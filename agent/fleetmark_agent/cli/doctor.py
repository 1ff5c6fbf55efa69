"""`fleetmark-agent doctor`: what is there, what is missing, what to do about it."""

import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import typer

from fleetmark_agent.cli.options import ConfigOption, settings_from
from fleetmark_agent.config import AgentSettings
from fleetmark_protocol.errors import FleetmarkError

LOW_DISK_BYTES = 500 * 2**20


@dataclass(frozen=True)
class Finding:
    """One line: `warn` is worth knowing, `bad` keeps the agent from doing its work."""

    level: Literal["ok", "warn", "bad"]
    what: str
    hint: str | None = None


def doctor(config: ConfigOption = None) -> None:
    """Check this device: settings, disk, broker, engines, models, sensors.

    Exits with 1 if something keeps the agent from working.
    """
    settings = settings_from(config)
    bad = False
    for finding in examine(settings):
        typer.echo(f"{finding.level:>4}  {finding.what}")
        if finding.hint is not None:
            typer.echo(f"      -> {finding.hint}")
        bad = bad or finding.level == "bad"
    raise typer.Exit(1 if bad else 0)


def examine(settings: AgentSettings) -> Iterator[Finding]:
    """Yield a finding for each thing looked at."""
    yield Finding("ok", f"Python {platform.python_version()} on {platform.machine()}")
    yield Finding("ok", f"device {settings.device_id!r} of fleet {settings.fleet!r}")
    yield from _state(settings)
    yield from _broker(settings)
    yield from _backends(settings)
    yield from _models(settings)
    yield from _sensors(settings)


def _state(settings: AgentSettings) -> Iterator[Finding]:
    directory = settings.state_dir
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = directory / ".doctor"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        yield Finding(
            "bad",
            f"state_dir {directory}: {error.strerror}",
            "make room, or choose a directory this user can write (state_dir)",
        )
        return
    free = shutil.disk_usage(directory).free
    yield Finding(
        "warn" if free < LOW_DISK_BYTES else "ok",
        f"state_dir {directory} is writable, {free / 2**30:.1f} GiB free",
        "models and the outbox need room here" if free < LOW_DISK_BYTES else None,
    )
    if not settings.outbox_file.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{settings.outbox_file}?mode=ro", uri=True)) as file:
            (waiting,) = file.execute("SELECT count(*) FROM records").fetchone()
        yield Finding("ok", f"outbox: {waiting} records wait for the collector's ack")
    except sqlite3.Error as error:
        yield Finding("warn", f"outbox {settings.outbox_file}: {error}", "the agent will heal it")


def _broker(settings: AgentSettings) -> Iterator[Finding]:
    from fleetmark_agent.brokerclient import try_broker

    broker = settings.broker
    where = f"broker {broker.host}:{broker.port}"
    try:
        try_broker(settings)
    except FleetmarkError as error:
        yield Finding("bad", f"{where}: {error.message}", error.hint)
        return
    yield Finding("ok", f"{where} accepts us{' over TLS' if broker.ca_file else ''}")


def _backends(settings: AgentSettings) -> Iterator[Finding]:
    from fleetmark_agent.backends import registry

    found = registry.probe(settings.runner.allow_backends)
    for backend in found:
        if backend.available:
            yield Finding("ok", f"backend {backend.name} {backend.version or ''}".rstrip())
        else:
            yield Finding("warn", f"backend {backend.name}: {backend.reason}", backend.hint)
    if not any(backend.available for backend in found):
        yield Finding("bad", "no backend is available, so no job can run", "install one of them")


def _models(settings: AgentSettings) -> Iterator[Finding]:
    from fleetmark_agent.models.store import ModelStore

    try:
        models = ModelStore.from_settings(settings).list()
    except FleetmarkError as error:
        yield Finding("bad", f"model store {settings.models_dir}: {error.message}", error.hint)
        return
    held = sum(model.bytes for model in models) / 2**30
    yield Finding("ok", f"model store {settings.models_dir}: {len(models)} models, {held:.1f} GiB")


def _sensors(settings: AgentSettings) -> Iterator[Finding]:
    from fleetmark_agent.telemetry.sensors import all_sensors

    for sensor in all_sensors(settings.telemetry.sensor_root, settings.state_dir):
        status = sensor.probe()
        if status.available:
            yield Finding("ok", f"sensor {sensor.name}: {', '.join(status.fields)}")
        else:
            yield Finding("warn", f"sensor {sensor.name}: {status.reason} (absent, not 0)")
    sys.stdout.flush()
