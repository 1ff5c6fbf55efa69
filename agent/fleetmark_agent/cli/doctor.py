"""`fleetmark-agent doctor`: what is there, what is missing, what to do about it."""

import os
import platform
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fleetmark_agent.cli.options import ConfigOption, settings_from
from fleetmark_agent.findings import Finding
from fleetmark_protocol.errors import FleetmarkError

if TYPE_CHECKING:
    from fleetmark_agent.config import AgentSettings

LOW_DISK_BYTES = 500 * 2**20
LONG_BACKLOG = 600
"""Records that nobody acknowledges: ten minutes of telemetry at 1 Hz."""


def doctor(config: ConfigOption = None) -> None:
    """Check this device: settings, disk, broker, engines, models, sensors.

    Changes nothing, and may be run beside the agent. Exits with 1 if something keeps the agent
    from working.
    """
    from fleetmark_agent import servicecheck
    from fleetmark_protocol import logs

    settings = settings_from(config)
    # What the checks find is printed below; what they log on the way would only repeat it.
    logs.configure("error", settings.log_format)
    bad = False
    for finding in examine(settings, servicecheck.units_of(config)):
        typer.echo(f"{finding.level:>4}  {finding.what}")
        if finding.hint is not None:
            typer.echo(f"      -> {finding.hint}")
        bad = bad or finding.level == "bad"
    raise typer.Exit(1 if bad else 0)


def examine(settings: "AgentSettings", units: tuple[Path, ...] = ()) -> Iterator[Finding]:
    """Yield a finding for each thing looked at; nothing is written but a probe that is removed.

    Args:
        settings: of this device.
        units: where a service with these settings would be installed; see `servicecheck`.
    """
    from fleetmark_agent.servicecheck import examine_agent

    yield Finding("ok", f"Python {platform.python_version()} on {platform.machine()}")
    yield Finding("ok", f"device {settings.device_id!r} of fleet {settings.fleet!r}")
    yield from _state(settings)
    yield examine_agent(settings.state_dir, units)
    yield from _outbox(settings)
    yield from _broker(settings)
    yield from _backends(settings)
    yield from _models(settings)
    yield from _sensors(settings)
    yield from _memory_limits(settings.telemetry.sensor_root)


def _state(settings: "AgentSettings") -> Iterator[Finding]:
    directory = settings.state_dir
    there = directory.exists()
    try:
        _try_writing(directory if there else _existing(directory), really=there)
    except OSError as error:
        yield Finding(
            "bad",
            f"state_dir {directory}: {error.strerror}",
            "make room, or choose a directory this user can write (state_dir)",
        )
        return
    found = "is writable" if there else "is not there yet; the first start makes it"
    yield Finding("ok", f"state_dir {directory} {found}")
    yield from _room("state_dir", directory, "the outbox needs room here")


def _try_writing(directory: Path, *, really: bool) -> None:
    """Find out whether something could be written; a full disk only shows when it is tried.

    Raises:
        OSError: it could not.
    """
    if not os.access(directory, os.W_OK | os.X_OK) or not directory.is_dir():
        raise PermissionError(13, "cannot be written by this user")
    if really:
        probe = directory / f".doctor-{os.getpid()}"
        try:
            probe.write_bytes(b"x" * 4096)
        finally:
            probe.unlink(missing_ok=True)


def _room(name: str, directory: Path, why: str) -> Iterator[Finding]:
    free_bytes = shutil.disk_usage(_existing(directory)).free
    low = free_bytes < LOW_DISK_BYTES
    text = f"{name}: {free_bytes / 2**30:.1f} GiB free on its disk"
    yield Finding("warn", text, why) if low else Finding("ok", text)


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _outbox(settings: "AgentSettings") -> Iterator[Finding]:
    file = settings.outbox_file
    try:
        if not file.exists():
            return
        with closing(_read_only(file)) as connection:
            waiting, size = connection.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0) FROM records"
            ).fetchone()
    except (OSError, sqlite3.Error) as error:
        yield Finding(
            "warn",
            f"outbox {file}: {error}",
            "a damaged one is put aside when the agent starts; one of another user can only be"
            " read by that user",
        )
        return
    text = f"outbox: {waiting} records ({size / 2**20:.1f} MiB) wait for the collector's ack"
    if waiting > LONG_BACKLOG or size > settings.outbox.max_bytes / 2:
        yield Finding(
            "warn",
            text,
            f"does a collector run (`fleetmark doctor` in the centre), on the same broker? Nothing"
            f" is lost; near {settings.outbox.max_bytes / 2**20:.0f} MiB old telemetry is thinned",
        )
    else:
        yield Finding("ok", text)


def _read_only(file: Path) -> sqlite3.Connection:
    """Open the outbox so that not even SQLite's own side files are made (the doctor may be root).

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    busy = file.with_name(file.name + "-wal").exists()
    how = "mode=ro" if busy else "mode=ro&immutable=1"
    return sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True)


def _broker(settings: "AgentSettings") -> Iterator[Finding]:
    from fleetmark_agent import statussocket
    from fleetmark_agent.connectivity import examine_broker
    from fleetmark_protocol.version import __version__

    try:
        said = statussocket.ask(settings.state_dir) or {}
    except (OSError, ValueError):
        said = {}
    running = said.get("version", __version__)
    if running != __version__:
        yield Finding(
            "warn",
            f"the agent that runs is version {running}, the one installed here {__version__}",
            "restart it: systemctl restart fleetmark-agent",
        )
    yield from examine_broker(settings, said.get("boot_id"))


def _backends(settings: "AgentSettings") -> Iterator[Finding]:
    from fleetmark_agent.backends import registry
    from fleetmark_protocol.settings import suggestion

    allowed, known = settings.runner.allow_backends, registry.names()
    for name in allowed:
        if name != "*" and name not in known:
            yield Finding(
                "warn", f"runner.allow_backends: no backend {name!r}{suggestion(name, known)}"
            )
    found = registry.probe(allowed, settings.engines_here)
    for backend in found:
        if backend.available:
            built_with = f" ({', '.join(backend.features)})" if backend.features else ""
            yield Finding(
                "ok", f"backend {backend.name} {backend.version or ''}".rstrip() + built_with
            )
        else:
            yield Finding("warn", f"backend {backend.name}: {backend.reason}", backend.hint)
    if any(backend.available for backend in found):
        return
    if not {"*", *known} & set(allowed):
        hint = "name one in runner.allow_backends, or `*` for all"
    else:
        ways = [backend.hint for backend in found if backend.hint]
        hint = f"install one: {' or '.join(ways)}" if ways else "install one of them"
    yield Finding("bad", "no backend is available, so no job can run", hint)


def _models(settings: "AgentSettings") -> Iterator[Finding]:
    from fleetmark_agent.models.store import ModelStore

    store = ModelStore.from_settings(settings)
    try:
        models, unknown, unfinished = store.list(), store.unknown(), store.unfinished()
    except FleetmarkError as error:
        yield Finding("bad", error.message, error.hint)
        return
    held = sum(model.bytes for model in models)
    quota = settings.models.quota_bytes
    yield Finding(
        "ok",
        f"model store {store.directory}: {len(models)} models,"
        f" {held / 2**30:.1f} of {quota / 2**30:.1f} GiB",
        None
        if models or unknown
        else "a campaign fetches what it names; `fleetmark-agent model add` brings one in by hand",
    )
    for model in models:
        yield Finding("ok", f"model {model.name}: {model.quantization}, {model.bytes / 1e6:.0f} MB")
    for name in unknown:
        yield Finding(
            "info",
            f"model {name}: never looked at, or changed since",
            f"check it: fleetmark-agent model verify {name}",
        )
    for name in unfinished:
        yield Finding(
            "info",
            f"model {name}: its download was broken off",
            f"it goes on when asked for again; or: fleetmark-agent model rm {name}",
        )
    if held > 0.9 * quota:
        yield Finding("warn", "the model store is nearly full", "raise models.quota_bytes")
    if _existing(store.directory).stat().st_dev != _existing(settings.state_dir).stat().st_dev:
        yield from _room("models.dir", store.directory, "models need room here")


def _sensors(settings: "AgentSettings") -> Iterator[Finding]:
    from fleetmark_agent.telemetry.sensors import all_sensors

    for sensor in all_sensors(settings.telemetry.sensor_root, settings.state_dir):
        status = sensor.probe()
        if status.available:
            yield Finding("ok", f"sensor {sensor.name}: {', '.join(status.fields)}")
        else:
            text = f"sensor {sensor.name}: {status.reason} (absent, not 0)"
            yield Finding("warn", text, status.hint)


def _memory_limits(root: Path) -> Iterator[Finding]:
    """Say where the service's MemoryMax and MemorySwapMax do nothing, as on Raspberry Pi OS."""
    file = root / "sys/fs/cgroup/cgroup.controllers"
    until_then = "until then set runner.max_backend_bytes"
    try:
        controllers = file.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        yield Finding(
            "warn",
            f"MemoryMax and MemorySwapMax of a service may not hold: {file}:"
            f" {getattr(error, 'strerror', None) or 'not text'}",
            "boot with unified cgroups (kernel's command line: systemd.unified_cgroup_hierarchy=1"
            f" cgroup_enable=memory cgroup_memory=1); {until_then}",
        )
        return
    if "memory" in controllers:
        yield Finding("ok", "the kernel counts memory by groups: limits of a service hold")
        return
    yield Finding(
        "warn",
        f"MemoryMax and MemorySwapMax of a service do not hold: no `memory` in {file}",
        "add `cgroup_enable=memory cgroup_memory=1` to the kernel's command line (Raspberry Pi:"
        f" the one line of /boot/firmware/cmdline.txt) and reboot; {until_then}",
    )
