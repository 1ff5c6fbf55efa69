"""`fleetmark simulate`: as many devices as wanted, without the devices."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.common import ConfigOption, print_json, settings_from
from fleetmark_protocol.errors import ConfigError

if TYPE_CHECKING:
    from fleetmark_protocol.settings import BrokerSettings

STARTS_PER_S = 100
"""Devices that start in a second, unless told otherwise: a broker takes them one by one."""

MEMORY_FILES = Path("/dev/shm")  # noqa: S108 - directories in it are made by mkdtemp
ROOM_BYTES = 2**20
"""For each device's outbox; a temporary one is kept in memory where there is so much room."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)


def simulate(
    devices: Annotated[int, typer.Option(min=1, metavar="N", help="How many devices.")],
    rate: Annotated[
        float,
        typer.Option(min=0.001, max=1000, metavar="R", help="Samples per second and device."),
    ] = 1.0,
    duration: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="S", help="Seconds for which each device samples; else till Ctrl-C."
        ),
    ] = None,
    ramp: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="S", help="Seconds over which the devices start (default: N / 100)."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=64, metavar="K", help="Processes that share the devices.")
    ] = 1,
    fleet: Annotated[str, typer.Option(metavar="NAME", help="Fleet they belong to.")] = "simulated",
    prefix: Annotated[
        str, typer.Option(metavar="NAME", help="Their names are PREFIX-00000 and so on.")
    ] = "sim",
    seed: Annotated[int, typer.Option(help="The same seed makes the same figures up.")] = 0,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the outboxes here, and go on with those that are there "
            "(default: a temporary directory).",
        ),
    ] = None,
    outbox_max_bytes: Annotated[
        int | None,
        typer.Option(
            min=2**20, metavar="BYTES", help="Cap of each outbox; near it samples are thinned."
        ),
    ] = None,
    flaky: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Share of the devices that lose their connection "
            "again and again, without a goodbye.",
        ),
    ] = 0.0,
    offline_s: Annotated[
        float,
        typer.Option(
            "--offline-s",
            min=0.1,
            metavar="S",
            help="How long those stay away, on average; in between they stay connected as long.",
        ),
    ] = 20.0,
    run_jobs: Annotated[
        bool,
        typer.Option("--run-jobs", help="Take the jobs of campaigns, and make the results up."),
    ] = False,
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Engines to pretend to have, with commas between them; with "
            "--run-jobs (default: all that fleetmark knows).",
        ),
    ] = None,
    trial_s: Annotated[
        float,
        typer.Option(
            "--trial-s", min=0.001, metavar="S", help="How long a made-up trial takes, roughly."
        ),
    ] = 1.0,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG[:ENGINES]",
            help="Devices in turn pretend to be of these kinds: tag, and engines if they differ "
            "(pi400:llama_cpp+ollama). Give it once for each kind.",
        ),
    ] = None,
    drain: Annotated[
        float,
        typer.Option(
            min=0, metavar="S", help="Seconds to wait at the end for what is not acknowledged."
        ),
    ] = 20.0,
    forget: Annotated[
        bool, typer.Option("--forget", help="Have broker and collector forget the devices after.")
    ] = False,
    broker_host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The broker (default: broker.host).")
    ] = None,
    broker_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="PORT", help="Its port (default: broker.port)."),
    ] = None,
    log_level: Annotated[
        str,
        typer.Option(metavar="LEVEL", help="What the devices log: debug, info, warning, error."),
    ] = "error",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, on standard output.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Simulate a fleet: the real protocol and real outboxes, but no engines and no sensors.

    Every device has its own connection, its own outbox on disk, and delivers as a real agent does:
    what it makes up comes into the store, is acknowledged, and is sent again if it is not. It shows
    how much broker, collector and store can bear. Its figures say nothing about any machine.

    Ctrl-C ends it and waits for what is not acknowledged; Ctrl-C again does not wait. Exit code 1
    means that a record is unaccounted for: neither acknowledged, nor waiting, nor thinned.
    """
    from fleetmark_collector.cli.simulate_output import shown, summary, summary_lines
    from fleetmark_collector.cli.simulate_processes import running, shares

    if processes > devices:
        raise ConfigError(f"--processes {processes}: more than the {devices} devices")
    if backends is not None and not run_jobs:
        raise ConfigError("--backends goes with --run-jobs")
    if any(":" in one for one in kind or ()) and not run_jobs:
        raise ConfigError("the engines of --kind go with --run-jobs")
    settings = settings_from(config, None, broker={"host": broker_host, "port": broker_port})
    with _outboxes(state_dir, devices) as directory, running() as group:
        common = _flags(
            state_dir=directory,
            total=devices,
            rate=rate,
            duration=duration,
            ramp=devices / STARTS_PER_S if ramp is None else ramp,
            prefix=prefix,
            seed=seed,
            flaky=flaky,
            offline_s=offline_s,
            drain=drain,
            backends=(backends or "*") if run_jobs else None,
            trial_s=trial_s,
            outbox_max_bytes=outbox_max_bytes,
            fleet=fleet,
            log_level=log_level,
            **_broker(settings.broker),
        )
        common += [part for one in kind or () for part in ("--kind", one)]
        common += ["--forget"] if forget else []
        common += ["--discard"] if state_dir is None else []
        with shown(devices) as tell:
            for first, count in shares(devices, processes):
                # One after the other: what is wrong with one is wrong with all, and is said once.
                group.start([*common, *_flags(first=first, count=count)])
                group.follow(tell, group.heard)
            group.follow(tell, lambda: False)
        if group.failed():
            group.close()
        code, total = group.code(), group.total()
    if total["unaccounted"] is None:
        raise typer.Exit(code or 1)
    asked = {"fleet": fleet, "processes": processes, "rate_hz": rate, "seed": seed}
    found = summary(total, asked, state_dir)
    if as_json:
        print_json(found)
    else:
        for line in summary_lines(found):
            typer.echo(line)
    raise typer.Exit(code)


@contextmanager
def _outboxes(state_dir: Path | None, devices: int) -> Iterator[Path]:
    """Give the directory of the outboxes; one that nobody named is removed in the end."""
    if state_dir is not None:
        yield state_dir.expanduser().absolute()
        return
    # Each device has a disk of its own in the field; here they would all wait for one.
    memory = MEMORY_FILES.is_dir() and shutil.disk_usage(MEMORY_FILES).free > devices * ROOM_BYTES
    where = str(MEMORY_FILES) if memory and os.access(MEMORY_FILES, os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix="fleetmark-simulate-", dir=where, ignore_cleanup_errors=True
    ) as made:
        yield Path(made)


def _broker(broker: "BrokerSettings") -> dict[str, object]:
    """Return the settings of the broker as flags: its password is in a file, and stays there."""
    return {f"broker_{name}": getattr(broker, name) for name in type(broker).model_fields}


def _flags(**values: object) -> list[str]:
    """Return flags of a command line; what is None was not given."""
    return [
        part
        for name, value in values.items()
        if value is not None
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
