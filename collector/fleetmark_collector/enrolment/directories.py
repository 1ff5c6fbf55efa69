"""Where the identities of a centre lie; light, for every command looks there."""

from pathlib import Path

CENTRE = Path("/etc/fleetmark")
"""Where `deploy/install-centre.sh` puts a centre's."""

NAMES = "names"
COLLECTOR_SETTINGS = "collector.toml"


def own_directory(data_dir: Path) -> Path:
    """Return where the identities of a centre lie that no script has set up."""
    return data_dir / "identities"


def default_directory(data_dir: Path) -> Path:
    """Return where identities lie on this machine."""
    return CENTRE if _there(CENTRE / NAMES) else own_directory(data_dir)


def broker_directory(data_dir: Path) -> Path | None:
    """Return the identities that `fleetmark broker` goes by; None where nobody is enrolled."""
    directory = own_directory(data_dir)
    return directory if _there(directory / NAMES) else None


def collector_settings(data_dir: Path) -> Path | None:
    """Return the collector's settings that `fleetmark enroll` has made; None where it has not."""
    file = own_directory(data_dir) / COLLECTOR_SETTINGS
    return file if _there(file) else None


def set_up_by_script(directory: Path) -> bool:
    """Whether `deploy/setup_centre.py` has made the directory and looks after its names."""
    return _there(directory / "influxdb")


def _there(file: Path) -> bool:
    try:
        return file.exists()
    except PermissionError:
        return False
