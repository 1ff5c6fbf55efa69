"""One device in full: hardware, engines and what they lack, models."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from fleetmark_collector.devices import Device
    from fleetmark_protocol.messages import BackendInfo, Hardware, ModelInfo

MIB = 2**20


def print_device(device: "Device", out: "Console") -> None:
    """Print all that a device has said of itself; a dash is what it does not tell."""
    from rich.text import Text

    from fleetmark_collector.campaigns.skew import mismatch

    out.print(Text(f"{device.device} in {device.fleet}", style="bold"))
    if device.status is not None:
        out.print(Text(f"  agent: {device.status.agent_version}"))
    reason = mismatch(device)
    if reason is not None:
        out.print(Text(f"  nothing of it is taken: {reason}", style="red"))
    inventory = device.inventory
    if inventory is None:
        out.print(Text("it has not said yet what it has"))
        return
    for name, value in _facts(inventory.hardware):
        out.print(Text(f"  {name}: {value}"))
    out.print(Text("Engines", style="bold"))
    for info in inventory.backends:
        out.print(Text(f"  {_engine(info)}", style="" if info.available else "dim"))
        for line in _details(info):
            out.print(Text(f"      {line}", style="" if info.available else "dim"))
    out.print(Text("Models", style="bold"))
    for model in inventory.models:
        out.print(Text(f"  {_model(model)}"))
    if not inventory.models:
        out.print(Text("  none"))


def _facts(hardware: "Hardware") -> Iterator[tuple[str, str]]:
    yield "board", hardware.board or "-"
    yield "CPU", hardware.cpu_model or hardware.arch
    yield "system", f"{hardware.os}, kernel {hardware.kernel}, {hardware.arch}"


def _engine(info: "BackendInfo") -> str:
    if info.available:
        return f"{info.name} {info.version or '(no version told)'}"
    return f"{info.name}: not available: {info.reason or 'no reason given'}"


def _details(info: "BackendInfo") -> Iterator[str]:
    if not info.available:
        if info.hint:
            yield f"to have it: {info.hint}"
        return
    for title, values in (
        ("built with", info.features),
        ("reads", info.formats),
        ("honours", info.takes),
    ):
        if values:
            yield f"{title}: {', '.join(values)}"


def _model(model: "ModelInfo") -> str:
    bits = "" if model.bits_per_weight is None else f", {model.bits_per_weight:.2f} bits per weight"
    size = f"{model.bytes / MIB:,.1f} MiB"
    return f"{model.name}: {model.format}, {model.quantization or '-'}{bits}, {size}"
