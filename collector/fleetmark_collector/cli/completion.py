"""Names for the shell to complete: campaigns, jobs, devices ..., read from the state file alone.

A shell waits for this at every press of a key, so nothing heavy is loaded, nothing is written, and
whatever goes wrong there are just no names.
"""

import os
from pathlib import Path
from typing import Any

import typer

MAX_NAMES = 200
"""A terminal full is no help."""


def complete_campaign(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids of campaigns, the newest first."""
    query = "SELECT campaign_id FROM campaigns ORDER BY created_ns DESC"
    return _names(ctx, query, incomplete)


def complete_schedule(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return names of schedules."""
    return _names(ctx, "SELECT name FROM schedules ORDER BY name", incomplete)


def complete_job(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids of jobs, those that changed last first."""
    return _names(ctx, "SELECT job_id FROM jobs ORDER BY updated_ns DESC, job_id", incomplete)


def complete_device(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids of devices."""
    return _names(ctx, "SELECT DISTINCT device FROM device ORDER BY device", incomplete)


def complete_tag(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return tags that a device has."""
    query = (
        "SELECT DISTINCT tag.value FROM device, json_each(device.inventory, '$.tags') AS tag "
        "WHERE device.inventory IS NOT NULL ORDER BY tag.value"
    )
    return _names(ctx, query, incomplete)


def _names(ctx: typer.Context, query: str, incomplete: str) -> list[str]:
    from fleetmark_collector.sqlitefile import connect

    try:
        db = connect(_data_dir(ctx.params) / "state.db", "ro")
        try:
            found = (str(row[0]) for row in db.execute(query))
            fitting = [name for name in found if name.startswith(incomplete)]
        finally:
            db.close()
    except Exception:  # noqa: BLE001 - a traceback in the middle of somebody's typing helps nobody
        return []
    return fitting[:MAX_NAMES]


def _data_dir(given: dict[str, Any]) -> Path:
    """Return the data directory as the settings would have it, without loading what reads them."""
    if given.get("data_dir"):
        return Path(given["data_dir"]).expanduser()
    if os.environ.get("FLEETMARK_DATA_DIR"):
        return Path(os.environ["FLEETMARK_DATA_DIR"]).expanduser()
    config = given.get("config") or os.environ.get("FLEETMARK_CONFIG")
    if config:
        import tomllib

        named = tomllib.loads(Path(config).expanduser().read_text("utf-8")).get("data_dir")
        if named:
            return Path(named).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "fleetmark"
