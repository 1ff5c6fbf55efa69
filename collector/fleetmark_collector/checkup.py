"""The checks of `fleetmark doctor`: each says what is there, what is missing, and what to do."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from fleetmark_collector import broker, dead_letters
from fleetmark_collector.campaigns.skew import mismatch
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.findings import Finding
from fleetmark_collector.sinks import stores
from fleetmark_protocol.errors import FleetmarkError
from fleetmark_protocol.ids import new_uuid

MIN_FREE_BYTES = 2**30
CONNECT_S = 5.0


def examine(settings: CollectorSettings) -> Iterator[Finding]:
    """Make all checks, cheapest first; yields as it goes because some take seconds."""
    checks: tuple[Callable[[CollectorSettings], Finding | Iterator[Finding]], ...] = (
        _python,
        _data_dir,
        _disk,
        _mosquitto,
        _identities,
        _broker,
        _collector,
        _store,
        _dead_letters,
        _devices,
    )
    for check in checks:
        try:
            found = check(settings)
            yield from (found,) if isinstance(found, Finding) else found
        except FleetmarkError as error:
            yield Finding(check.__name__.strip("_"), "missing", error.message, error.hint or "")


def _python(_: CollectorSettings) -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", "ok", f"{version} ({sys.executable})")


def _data_dir(settings: CollectorSettings) -> Finding:
    directory = settings.data_dir
    if directory.is_dir() and os.access(directory, os.W_OK | os.X_OK):
        return Finding("data_dir", "ok", str(directory))
    if not directory.exists() and os.access(_existing(directory), os.W_OK | os.X_OK):
        return Finding("data_dir", "ok", f"{directory} (not there yet; made at the first start)")
    return Finding(
        "data_dir",
        "missing",
        f"{directory} cannot be written",
        "change its owner, or name another one with --data-dir",
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _disk(settings: CollectorSettings) -> Finding:
    free_bytes = shutil.disk_usage(_existing(settings.data_dir)).free
    text = f"{free_bytes / 2**30:.1f} GiB free"
    if free_bytes < MIN_FREE_BYTES:
        return Finding("disk", "warn", text, "make room: a full disk stops collecting")
    return Finding("disk", "ok", text)


def _mosquitto(_: CollectorSettings) -> Finding:
    found = broker.find_mosquitto()
    if found is None:
        return Finding(
            "mosquitto",
            "warn",
            "not installed; `fleetmark broker` runs the slower embedded broker",
            "apt install mosquitto (and `systemctl disable --now mosquitto` if it should not "
            "run by itself)",
        )
    return Finding("mosquitto", "ok", f"{found.version} ({found.program})")


def _broker(settings: CollectorSettings) -> Finding:
    from fleetmark_collector.mqtt import Bus

    where = f"{settings.broker.host}:{settings.broker.port}"
    bus = Bus(settings.broker, f"fleetmark-doctor-{new_uuid()}")
    connected = threading.Event()
    bus.on_connect(connected.set)
    start_s = time.monotonic()
    bus.start()
    try:
        if connected.wait(CONNECT_S):
            took_ms = (time.monotonic() - start_s) * 1000
            return Finding("broker", "ok", f"{where} answers in {took_ms:.0f} ms")
    finally:
        bus.stop()
    return Finding(
        "broker",
        "missing",
        f"{where}: {bus.trouble or 'no answer'}",
        "start one with `fleetmark broker`, or correct broker.host, port, username, ca_file",
    )


def _collector(settings: CollectorSettings) -> Finding:
    registry = DeviceRegistry(settings.state_file)
    try:
        beat = registry.last_beat()
    finally:
        registry.close()
    if beat is None:
        return Finding("collector", "missing", "not running", "start it with `fleetmark collect`")
    if not beat.fresh(time.time_ns()):
        age_s = (time.time_ns() - beat.time_ns) / 1e9
        return Finding(
            "collector",
            "missing",
            f"no sign of life from pid {beat.pid} for {age_s:.0f} s",
            "start it again with `fleetmark collect`; its log says why it ended",
        )
    text = f"running (pid {beat.pid}), {beat.stats.get('records_written', 0):.0f} records written"
    if not beat.stats.get("store_available", True):
        return Finding("collector", "warn", f"{text}; the store does not take records", "see store")
    return Finding("collector", "ok", text)


def _store(settings: CollectorSettings) -> Iterator[Finding]:
    for found in stores.examine(settings):
        # All of them are about the store, and doctor has checks of other names.
        name = found.name if found.name == "store" else f"store {found.name}"
        yield replace(found, name=name)


def _dead_letters(settings: CollectorSettings) -> Finding:
    number = dead_letters.count(settings.dead_letter_file)
    if number:
        return Finding(
            "dead letters",
            "warn",
            f"{number} in {settings.dead_letter_file}",
            "read the reasons in it; delete the file when done. An agent of another version, or "
            "another program on our topics?",
        )
    return Finding("dead letters", "ok", "none")


def _identities(settings: CollectorSettings) -> Iterator[Finding]:
    from fleetmark_collector.enrolment import checking

    yield from checking.examine(settings)


def _devices(settings: CollectorSettings) -> Finding:
    registry = DeviceRegistry(settings.state_file)
    try:
        known = registry.list()
    finally:
        registry.close()
    if not known:
        return Finding(
            "devices", "warn", "none seen yet", "start `fleetmark-agent run` on a device"
        )
    online = sum(one.online for one in known)
    text = f"{len(known)} known, {online} online"
    strangers = {one.device: reason for one in known if (reason := mismatch(one)) is not None}
    if strangers:
        device, reason = next(iter(strangers.items()))
        return Finding(
            "devices",
            "warn",
            f"{text}; nothing is taken of {len(strangers)}, such as {device}: {reason}",
            "upgrade the centre first, then the devices, one minor version at a time; what they "
            "measured waits on them",
        )
    return Finding("devices", "ok", text)
