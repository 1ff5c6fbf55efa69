"""The collector's settings: where its broker, its data and its store are."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fleetmark_protocol.logs import LogFormat, LogLevel
from fleetmark_protocol.settings import BrokerSettings, Section, Settings, load


def default_data_dir() -> Path:
    """Return where an unprivileged user's data lives (XDG)."""
    import os

    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "fleetmark"


class StoreSettings(Section):
    """The store that records are written to."""

    kind: Literal["sqlite"] = "sqlite"


class IngestSettings(Section):
    """How records are gathered before they are written: whichever limit comes first."""

    batch_records: Annotated[int, Field(ge=1, le=100_000)] = 5000
    batch_age_s: Annotated[float, Field(gt=0, le=60)] = 0.25
    queue_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Messages held while the store is slow; past it the network is no longer read."""


class CollectorSettings(Settings):
    """All of it; environment variables are FLEETMARK_DATA_DIR, FLEETMARK_BROKER__HOST, ..."""

    data_dir: Path = Field(default_factory=default_data_dir)
    broker: BrokerSettings = BrokerSettings()
    store: StoreSettings = StoreSettings()
    ingest: IngestSettings = IngestSettings()
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"

    @property
    def store_file(self) -> Path:
        """The embedded store (records)."""
        return self.data_dir / "store.db"

    @property
    def state_file(self) -> Path:
        """Devices, campaigns and jobs."""
        return self.data_dir / "state.db"

    @property
    def dead_letter_file(self) -> Path:
        """What could not be understood, one JSON object a line."""
        return self.data_dir / "dead_letters.jsonl"


def load_settings(file: Path | None, flags: dict[str, object] | None = None) -> CollectorSettings:
    """Return the settings.

    Raises:
        ConfigError: see `fleetmark_protocol.settings.load`.
    """
    return load(CollectorSettings, file, flags)
