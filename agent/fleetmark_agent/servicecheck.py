"""Finds out for the doctor whether an agent runs here, where one should: a service that has ended
with a mistake in its settings is not started again, and its device just never shows up."""

from pathlib import Path

from fleetmark_agent import statelock
from fleetmark_agent.findings import Finding

SERVICE = "fleetmark-agent"
SETTINGS = Path("/etc/fleetmark/agent.toml")
"""The service's own; who names other settings looks at another agent."""
UNITS = tuple(
    Path(directory) / f"{SERVICE}.service"
    # The script's, the package's, and the package's where /lib is not in /usr.
    for directory in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
)


def units_of(config: Path | None) -> tuple[Path, ...]:
    """Return where the unit would be that starts the agent with this settings file, if any would.

    Args:
        config: as the user named it.
    """
    return UNITS if config is not None and config.absolute() == SETTINGS else ()


def examine_agent(state_dir: Path, units: tuple[Path, ...]) -> Finding:
    """Return whether an agent runs on a state directory; `bad` where its service should run one.

    Args:
        state_dir: the agent's.
        units: where its unit would be. One that is masked is no file.
    """
    try:
        pid = statelock.holder(state_dir)
    except OSError as error:
        return Finding(
            "warn",
            f"cannot see whether an agent runs on this state_dir: {error.strerror}",
            "run the doctor as the user that the agent runs as",
        )
    if pid is not None:
        return Finding("info", f"an agent (pid {pid}) runs on this state_dir")
    if any(unit.is_file() for unit in units):
        return Finding(
            "bad",
            "the service does not run: no agent runs on this state_dir",
            f"why: journalctl -u {SERVICE}; when that is mended: systemctl start {SERVICE}",
        )
    return Finding(
        "info", "no agent runs on this state_dir", "start it: fleetmark-agent run [-c FILE]"
    )
