"""What the device is: hardware as its kernel describes it, and the message that says it all."""

import hashlib
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from fleetmark_agent.config import AgentSettings
from fleetmark_protocol.messages import (
    BackendInfo,
    Hardware,
    Inventory,
    KnownJob,
    ModelInfo,
    SensorInfo,
)
from fleetmark_protocol.version import __version__

N = TypeVar("N", int, float)

_LABEL_CHARS = 256
_NO_LIMIT = 2**63
_ARM = "0x41"
_PARTS = {
    (_ARM, "0xd03"): "Cortex-A53",
    (_ARM, "0xd04"): "Cortex-A35",
    (_ARM, "0xd05"): "Cortex-A55",
    (_ARM, "0xd07"): "Cortex-A57",
    (_ARM, "0xd08"): "Cortex-A72",
    (_ARM, "0xd09"): "Cortex-A73",
    (_ARM, "0xd0a"): "Cortex-A75",
    (_ARM, "0xd0b"): "Cortex-A76",
    (_ARM, "0xd0c"): "Neoverse-N1",
    (_ARM, "0xd40"): "Neoverse-V1",
    (_ARM, "0xd41"): "Cortex-A78",
    (_ARM, "0xd44"): "Cortex-X1",
    (_ARM, "0xd46"): "Cortex-A510",
    (_ARM, "0xd47"): "Cortex-A710",
    (_ARM, "0xd49"): "Neoverse-N2",
    (_ARM, "0xd4f"): "Neoverse-V2",
    (_ARM, "0xd80"): "Cortex-A520",
    (_ARM, "0xd81"): "Cortex-A720",
    (_ARM, "0xd84"): "Neoverse-V3",
    ("0xc0", "0xac3"): "Ampere-1",
}
"""Names of the cores of usual boards and servers: arm64 kernels give numbers only."""


def hardware(root: Path = Path("/")) -> Hardware:
    """Return what this device is; a field is absent where the device does not say.

    Args:
        root: where `proc`, `sys` and `etc` are looked for; sizes are the running machine's.
    """
    return Hardware(
        arch=platform.machine() or "unknown",
        os=_os_name(root / "etc/os-release"),
        kernel=platform.release() or "unknown",
        hostname=platform.node() or "unknown",
        cpu_model=_cpu_model(_text(root / "proc/cpuinfo")),
        board=_board(root),
        cores_physical=psutil.cpu_count(logical=False),
        cores_logical=psutil.cpu_count(),
        mem_total_bytes=psutil.virtual_memory().total,
        machine_id=_machine_digest(root),
    )


def make_inventory(
    *,
    settings: AgentSettings,
    boot_id: str,
    time_ns: int,
    hardware: Hardware,
    backends: Iterable[BackendInfo],
    models: Iterable[ModelInfo],
    sensors: Iterable[SensorInfo],
    jobs: Iterable[KnownJob],
    time_zone: str | None = None,
) -> Inventory:
    """Return the message, out of what the parts of the agent say of themselves.

    Args:
        settings: they may name another time zone than the system does.
        boot_id: of this start.
        time_ns: now.
        hardware: see the function of that name.
        backends: what each engine says.
        models: of the store.
        sensors: what the sampler reads.
        jobs: as the job log knows them.
        time_zone: the system's; None where it does not say.
    """
    return Inventory(
        boot_id=boot_id,
        time_ns=time_ns,
        agent_version=__version__,
        python_version=platform.python_version(),
        tags=settings.tags,
        hardware=hardware,
        backends=tuple(backends),
        models=tuple(models),
        sensors=tuple(sensors),
        allowed_backends=settings.runner.allow_backends,
        allowed_sources=settings.models.allow_sources,
        jobs=tuple(jobs),
        time_zone=settings.time_zone or time_zone,
        max_job_s=_sayable(settings.runner.max_job_s),
        max_context_tokens=_sayable(settings.runner.max_context_tokens),
    )


def _sayable(limit: N | None) -> N | None:
    """Return a limit that a message can hold; larger ones are none."""
    return limit if limit is not None and limit < _NO_LIMIT else None


def _cpu_model(cpuinfo: str) -> str | None:
    """Return what the processor is called; of unlike cores, each kind with its number."""
    lines = [(key.strip(), value.strip()) for key, _, value in _pairs(cpuinfo)]
    parts = _arm_parts(lines)
    if parts:
        kinds = Counter(parts)
        if len(kinds) == 1:
            return parts[0]
        return " + ".join(f"{count}x {name}" for name, count in kinds.items())[:_LABEL_CHARS]
    for wanted in ("model name", "Model Name", "cpu model", "cpu"):
        for key, value in lines:
            if key == wanted and value:
                return value[:_LABEL_CHARS]
    return None


def _arm_parts(lines: Sequence[tuple[str, str]]) -> list[str]:
    """Return the name of each arm core."""
    found, implementer = [], _ARM
    for key, value in lines:
        if key == "CPU implementer":
            implementer = value.lower()
        elif key == "CPU part" and value.startswith("0x"):
            unknown = f"arm core {implementer}/{value}"
            found.append(_PARTS.get((implementer, value.lower()), unknown))
    return found


def _board(root: Path) -> str | None:
    """Return the board's or the virtual machine's type."""
    tree = _text(root / "proc/device-tree/model").strip("\0 \n")
    if tree:
        return tree[:_LABEL_CHARS]
    dmi = root / "sys/class/dmi/id"
    names = [_text(dmi / name).strip() for name in ("sys_vendor", "product_name")]
    if any(names):
        return " ".join(name for name in names if name)[:_LABEL_CHARS]
    for key, _, value in _pairs(_text(root / "proc/cpuinfo")):
        if key.strip() == "Model" and value.strip():
            return value.strip()[:_LABEL_CHARS]
    return None


def _machine_digest(root: Path) -> str | None:
    """Return a digest of the machine's id, which itself is confidential and stays here."""
    for file in (root / "etc/machine-id", root / "var/lib/dbus/machine-id"):
        raw = _text(file).strip()
        if raw and raw != "uninitialized":
            return hashlib.sha256(f"fleetmark machine id {raw}".encode()).hexdigest()[:32]
    return None


def _os_name(release: Path) -> str:
    for key, _, value in _pairs(_text(release), "="):
        if key == "PRETTY_NAME":
            return value.strip().strip("\"'")[:_LABEL_CHARS]
    return platform.system() or "unknown"


def _pairs(text: str, between: str = ":") -> list[tuple[str, str, str]]:
    return [line.partition(between) for line in text.splitlines()]


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
