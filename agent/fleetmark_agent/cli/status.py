"""`fleetmark-agent status` and `reload`: ask the agent that runs here, and give it new settings."""

import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetmark_agent.cli.options import ConfigOption, settings_from
from fleetmark_protocol.errors import FleetmarkError, StoreUnavailable

if TYPE_CHECKING:
    from fleetmark_agent.config import AgentSettings

RELOAD_S = 60.0
"""How long an agent may take to park its trial and begin again."""

StateDirOption = Annotated[
    Path | None, typer.Option(help="Of the agent to ask. Default: as the settings say.")
]


def status(
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
) -> None:
    """Say what the agent on this device is doing.

    Exit code 0 where it runs, the broker has it and no collector refuses it, 1 where not.
    """
    said = _ask(settings_from(config, {"state_dir": state_dir}))
    typer.echo(json.dumps(said, indent=2) if json_output else _in_words(said))
    if not said["connected"] or said.get("collector_refusal"):
        raise typer.Exit(1)


def reload(config: ConfigOption = None, state_dir: StateDirOption = None) -> None:
    """Have the agent on this device read its settings again.

    They are checked first. The trial under way is made again, nothing is lost. The same as SIGHUP.
    """
    settings = settings_from(config, {"state_dir": state_dir})
    before = _ask(settings)
    try:
        os.kill(before["pid"], signal.SIGHUP)
    except PermissionError as error:
        raise FleetmarkError(
            f"this user may not signal the agent (pid {before['pid']})",
            hint="run this as root, or as the agent's user",
        ) from error
    deadline_s = time.monotonic() + RELOAD_S
    while time.monotonic() < deadline_s:
        time.sleep(0.2)
        after = _ask(settings)
        if after["settings_ns"] != before["settings_ns"]:
            typer.echo("the agent runs with the new settings")
            return
        if after["refusals"] != before["refusals"]:
            raise FleetmarkError(f"the agent keeps its settings: {after['refused_settings']}")
    raise FleetmarkError(f"the agent did not answer within {RELOAD_S:g} s", hint="see its log")


def _ask(settings: "AgentSettings") -> dict[str, Any]:
    from fleetmark_agent.statelock import holder
    from fleetmark_agent.statussocket import ask

    where = settings.state_dir
    try:
        said = ask(where)
        pid = None if said else holder(where)
    except PermissionError as error:
        raise StoreUnavailable(
            f"state_dir {where}: this user may not look into it",
            hint="run this as root, or as the agent's user",
        ) from error
    except (OSError, ValueError) as error:
        raise StoreUnavailable(f"the agent of {where} does not answer: {error}") from error
    if said is not None:
        return said
    if pid is not None:
        raise FleetmarkError(
            f"the agent (pid {pid}) of state_dir {where} begins, ends or hangs",
            hint="ask again; then see its log",
        )
    raise FleetmarkError(
        f"no agent runs with state_dir {where}",
        hint="`fleetmark-agent run` starts one; --config or --state-dir choose another",
    )


def _in_words(said: dict[str, Any]) -> str:
    connected = "connected" if said["connected"] else "NOT CONNECTED"
    lines = {
        "device": f"{said['fleet']}/{said['device']}",
        "agent": f"{said['version']}, pid {said['pid']}, since {_when(said['started_ns'])}",
        "settings": f"read {_when(said['settings_ns'])}",
        "refused": said["refused_settings"],
        "broker": f"{said['broker']}, {connected}",
        "certificate": _certificate(said.get("certificate_ends_ns"), time.time_ns()),
        "job": said["job_id"] or "none",
        "outbox": f"{said['outbox_records']} records wait, {said['outbox_bytes']} bytes "
        f"({said['outbox_used_percent']:.1f} % of its cap)",
        "collector": said.get("collector_version") or "none has answered yet",
        "refuses": said.get("collector_refusal"),
        "last ack": _when(said["last_ack_ns"]),
        "last problem": _when(said["last_problem_ns"])
        + (f": {said['last_problem']}" if said["last_problem"] else ""),
    }
    return "\n".join(f"{name:<13}{value}" for name, value in lines.items() if value is not None)


def _certificate(ends_ns: int | None, now_ns: int) -> str | None:
    from fleetmark_protocol.certificate import DAY_NS, WARN_DAYS

    if ends_ns is None:
        return None
    days = (ends_ns - now_ns) // DAY_NS
    if days < 0:
        return f"HAS ENDED on {_when(ends_ns)}: the broker takes it no more"
    ends = f"ends {_when(ends_ns)}, in {days} days"
    return f"{ends}: MAKE A NEW ONE" if days < WARN_DAYS else ends


def _when(time_ns: int | None) -> str:
    if time_ns is None:
        return "none yet"
    return f"{datetime.fromtimestamp(time_ns / 1e9, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
