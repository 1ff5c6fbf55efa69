"""Options that several commands of the agent share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fleetmark_agent.config import AgentSettings

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Settings file (TOML). Flags and FLEETMARK_... variables count more.",
        envvar="FLEETMARK_CONFIG",
    ),
]


def settings_from(config: Path | None, flags: dict[str, Any] | None = None) -> "AgentSettings":
    """Return the settings for a command.

    Raises:
        ConfigError: see `fleetmark_protocol.settings.load`.
    """
    from fleetmark_agent.config import load_settings

    return load_settings(config, flags)
