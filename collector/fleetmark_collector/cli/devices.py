"""`fleetmark devices`: who is out there, and how it is doing."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_json,
    settings_from,
)
from fleetmark_collector.cli.completion import complete_device

if TYPE_CHECKING:
    from fleetmark_collector.devices import Device
    from fleetmark_protocol.records import TelemetryRecord

GIB = 2**30


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(devices)


def devices(
    device: Annotated[
        str | None,
        typer.Argument(
            metavar="[DEVICE]",
            help="One device: its hardware, engines (what is missing, and what would install it) "
            "and models.",
            autocompletion=complete_device,
        ),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """List the devices the collector knows, with what they are and how busy they are.

    CPU and memory in use are the newest sample in the store; a device that is offline keeps its
    last one. A dash is something the device does not tell. --json has all of it.
    """
    from fleetmark_collector.cli.device_detail import print_device
    from fleetmark_collector.devices import DeviceRegistry
    from fleetmark_collector.sinks.stores import open_reader
    from fleetmark_protocol.errors import StoreUnavailable

    settings = settings_from(config, data_dir)
    registry = DeviceRegistry(settings.state_file)
    reader = open_reader(settings)
    try:
        known = registry.list()
        alive = registry.collector_alive()
        try:
            samples = reader.latest_telemetry()
        except StoreUnavailable:
            if known:
                samples = {}
            else:
                raise
    finally:
        registry.close()
        reader.close()
    if device is not None:
        known = _chosen(known, device)
    if as_json:
        print_json([describe(one, samples.get((one.fleet, one.device))) for one in known])
        return
    if device is not None:
        for one in known:
            print_device(one, console())
        return
    if not known:
        typer.echo(f"no device has been seen yet (data in {settings.data_dir})")
    else:
        _print_table(known, samples)
        _print_mismatches(known)
    if not alive:
        typer.echo("no collector is running on this data: `fleetmark collect` starts one", err=True)


def _chosen(known: "list[Device]", device: str) -> "list[Device]":
    """Return the devices of a name: one in each fleet that has it.

    Raises:
        ConfigError: there is none.
    """
    from fleetmark_protocol.errors import ConfigError
    from fleetmark_protocol.settings import suggestion

    found = [one for one in known if one.device == device]
    if not found:
        hint = suggestion(device, sorted({one.device for one in known}))
        raise ConfigError(f"no device {device!r} has been seen{hint}")
    return found


def describe(device: "Device", sample: "TelemetryRecord | None") -> dict[str, Any]:
    """Return what is known of a device as plain data; what is not known is None."""
    from fleetmark_collector.campaigns.skew import mismatch

    inventory = device.inventory
    return {
        "device": device.device,
        "fleet": device.fleet,
        "online": device.online,
        "last_seen_ns": device.last_seen_ns,
        "agent_version": None if device.status is None else device.status.agent_version,
        "version_problem": mismatch(device),
        "tags": [] if inventory is None else list(inventory.tags),
        "hardware": None if inventory is None else inventory.hardware.model_dump(exclude_none=True),
        "backends": []
        if inventory is None
        else [one.model_dump(exclude_none=True) for one in inventory.backends],
        "models": []
        if inventory is None
        else [one.model_dump(exclude_none=True) for one in inventory.models],
        "telemetry": None if sample is None else sample.model_dump(exclude_none=True),
    }


def _print_table(known: "list[Device]", samples: "dict[tuple[str, str], TelemetryRecord]") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("DEVICE", "FLEET", "ONLINE", "SEEN"):
        table.add_column(title, no_wrap=True)
    for title in ("TAGS", "BOARD / CPU", "BACKENDS"):
        table.add_column(title, overflow="fold")
    for title in ("CORES, RAM", "CPU", "MEM"):
        table.add_column(title, no_wrap=True, justify="right")
    now_ns = time.time_ns()
    for one in known:
        inventory = one.inventory
        hardware = None if inventory is None else inventory.hardware
        sample = samples.get((one.fleet, one.device))
        # As Text: a name in brackets is no markup.
        cells = (
            one.device,
            one.fleet,
            "yes" if one.online else "no",
            "-" if one.last_seen_ns is None else ago(now_ns - one.last_seen_ns),
            "-" if inventory is None else ", ".join(inventory.tags) or "-",
            "-" if hardware is None else hardware.board or hardware.cpu_model or hardware.arch,
            "-"
            if inventory is None
            else ", ".join(b.name for b in inventory.backends if b.available) or "none",
            "-"
            if hardware is None
            else f"{hardware.cores_logical or '-'}, {gib(hardware.mem_total_bytes)}",
            "-" if sample is None else percent(sample.cpu_percent),
            "-" if sample is None else percent(sample.mem_used_percent),
        )
        table.add_row(*(Text(cell) for cell in cells), style=None if one.online else "dim")
    out = console()
    if not out.is_terminal:
        # A pipe has no width; 80 columns would break words for a grep to miss.
        out.width = max(out.width, 160)
    out.print(table)


def _print_mismatches(known: "list[Device]") -> None:
    """Say below the table whose records are not taken, and which side to upgrade."""
    from rich.text import Text

    from fleetmark_collector.campaigns.skew import mismatch

    for one in known:
        reason = mismatch(one)
        if reason is not None:
            text = f"{one.device} ({one.fleet}): nothing of it is taken: {reason}"
            console().print(Text(text, style="red"), soft_wrap=True)


def ago(elapsed_ns: int) -> str:
    """Return a time span as people say it."""
    seconds = max(0, elapsed_ns) // 10**9
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def gib(size_bytes: int | None) -> str:
    """Return a size in GiB, or a dash."""
    return "-" if size_bytes is None else f"{size_bytes / GIB:.1f} GiB"


def percent(value: float | None) -> str:
    """Return a percentage, or a dash."""
    return "-" if value is None else f"{value:.0f}%"
