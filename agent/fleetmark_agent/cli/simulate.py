"""`fleetmark-agent simulate`: one process of `fleetmark simulate`, which starts it."""

from pathlib import Path
from typing import Annotated

import typer

from fleetmark_agent.cli.options import ConfigOption, settings_from


def simulate(
    state_dir: Annotated[Path, typer.Option(help="A directory for each device is made in it.")],
    total: Annotated[int, typer.Option(min=1, help="Devices of the whole simulation.")],
    count: Annotated[int | None, typer.Option(min=1, help="Devices of this process.")] = None,
    first: Annotated[int, typer.Option(min=0, help="Number of its first device.")] = 0,
    rate: Annotated[
        float, typer.Option(min=0.001, max=1000, help="Samples per second and device.")
    ] = 1.0,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds for which each device samples.")
    ] = None,
    ramp: Annotated[float, typer.Option(min=0, help="Seconds over which devices start.")] = 0.0,
    prefix: Annotated[str, typer.Option(help="Of the devices' names.")] = "sim",
    seed: Annotated[int, typer.Option(help="Of all that is made up.")] = 0,
    flaky: Annotated[
        float, typer.Option(min=0, max=1, help="Share of devices that come and go.")
    ] = 0.0,
    offline_s: Annotated[float, typer.Option(min=0.1, help="How long they stay away.")] = 20.0,
    drain: Annotated[float, typer.Option(min=0, help="Seconds to wait at the end.")] = 20.0,
    forget: Annotated[bool, typer.Option(help="Have the centre forget them at the end.")] = False,
    discard: Annotated[bool, typer.Option(help="Remove the directories at the end.")] = False,
    backends: Annotated[
        str, typer.Option(help="Names, with commas, for which jobs are answered; *: all known.")
    ] = "",
    trial_s: Annotated[float, typer.Option(min=0.001, help="What a trial takes.")] = 1.0,
    kind: Annotated[
        list[str] | None, typer.Option(help="TAG or TAG:BACKEND+BACKEND, devices in turn.")
    ] = None,
    outbox_max_bytes: Annotated[int | None, typer.Option(help="Cap of each outbox.")] = None,
    fleet: Annotated[str | None, typer.Option(help="The fleet they belong to.")] = None,
    broker_host: Annotated[str | None, typer.Option(help="Where the MQTT broker is.")] = None,
    broker_port: Annotated[int | None, typer.Option(help="The broker's port.")] = None,
    broker_username: Annotated[str | None, typer.Option(help="One user for all.")] = None,
    broker_password_file: Annotated[Path | None, typer.Option(help="Its password.")] = None,
    broker_ca_file: Annotated[Path | None, typer.Option(help="Turns TLS on.")] = None,
    broker_cert_file: Annotated[Path | None, typer.Option(help="One for all.")] = None,
    broker_key_file: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    broker_keepalive_s: Annotated[int | None, typer.Option(help="Seconds.")] = None,
    parent_pid: Annotated[int | None, typer.Option(help="End when this process does.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    config: ConfigOption = None,
) -> None:
    """Simulate devices: real protocol, real outboxes, no engine; progress as JSON lines.

    `fleetmark simulate` starts as many of these as it is told to, and adds up what they say.
    """
    from fleetmark_agent.simulation.plan import Plan, kinds_of
    from fleetmark_agent.simulation.run import simulate as run
    from fleetmark_protocol import logs

    settings = settings_from(
        config,
        {
            "fleet": fleet,
            "broker": {
                "host": broker_host,
                "port": broker_port,
                "username": broker_username,
                "password_file": broker_password_file,
                "ca_file": broker_ca_file,
                "cert_file": broker_cert_file,
                "key_file": broker_key_file,
                "keepalive_s": broker_keepalive_s,
            },
            "outbox": {"max_bytes": outbox_max_bytes},
            "log_level": log_level,
        },
    )
    logs.configure(settings.log_level, settings.log_format)
    plan = Plan(
        total=total,
        first=first,
        count=total - first if count is None else count,
        rate_hz=rate,
        duration_s=duration,
        ramp_s=ramp,
        prefix=prefix,
        seed=seed,
        state_dir=state_dir.expanduser().absolute(),
        flaky=flaky,
        offline_s=offline_s,
        drain_s=drain,
        forget=forget,
        discard=discard,
        backends=_names(backends),
        trial_s=trial_s,
        kinds=kinds_of(kind or ()),
    )
    raise typer.Exit(run(plan, settings, parent_pid))


def _names(backends: str) -> tuple[str, ...]:
    from fleetmark_agent.backends import registry

    names = tuple(name.strip() for name in backends.split(",") if name.strip())
    return tuple(registry.names()) if names == ("*",) else names
