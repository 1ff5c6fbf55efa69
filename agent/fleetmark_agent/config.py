"""The agent's settings: who the device is, what its owner allows, where things are kept."""

import ipaddress
import os
import platform
import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_agent.timezones import check_name
from fleetmark_protocol.ids import Name
from fleetmark_protocol.logs import LogFormat, LogLevel
from fleetmark_protocol.settings import BrokerSettings, Section, Settings, load

TimeZone = Annotated[str, AfterValidator(check_name)]


PLACE = re.compile(
    r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[1-9]\d{0,4}))?"
)
"""A host with a port or without."""


def _host_or_network(word: str) -> str:
    if PLACE.fullmatch(word) is None:
        try:
            ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise ValueError("is neither a host's name nor an address nor a network") from None
    return word


PrivateHost = Annotated[str, AfterValidator(_host_or_network)]


def _base_url(url: str) -> str:
    try:
        place = _place(url)
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None
    if urlsplit(url).scheme not in ("http", "https") or PLACE.fullmatch(place) is None:
        raise ValueError(f"{url!r} is no URL, such as https://mirror.example:8443")
    return url


def _place(url: str) -> str:
    """Return host and port of a URL; a ValueError where it has none that can be."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    usual = 443 if parts.scheme == "https" else 80
    return f"{host}:{usual if parts.port is None else parts.port}"


BaseUrl = Annotated[str, AfterValidator(_base_url)]

HUB = "https://huggingface.co"
GIB = 2**30
MIB = 2**20


def default_device_id() -> str:
    """Return the host name as far as it makes a device id."""
    name = re.sub(r"[^a-z0-9_-]+", "-", platform.node().lower()).strip("-_")[:63]
    return name or "device"


def default_state_dir() -> Path:
    """Return where an unprivileged user's state lives (XDG)."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "fleetmark-agent"


class TelemetrySettings(Section):
    """How often the device is sampled."""

    interval_s: Annotated[float, Field(ge=0.1, le=3600)] = 1.0
    trial_interval_s: Annotated[float, Field(ge=0.1, le=60)] = 0.2
    """During trials; kept in memory until the timed window is over."""
    sensor_root: Path = Path("/")
    """Where `sys` and `proc` are looked for; another one is for tests."""


class ModelSettings(Section):
    """The model store, and what may come into it."""

    dir: Path | None = None
    """Default: `models` in the state directory."""
    quota_bytes: Annotated[int, Field(ge=0)] = 50 * GIB
    allow_sources: tuple[str, ...] = ("path:", "pypi://", "hf://", "https://")
    """Prefixes of model references that a job may name; `remote:`, a model of an engine's own
    server, is none of the defaults: it may cost money."""
    require_sha256: bool = True
    """Refuse to download what comes without a digest (a PyPI file has its wheel's)."""
    allow_convert: bool = True
    """Let a job ask for another quantization of a model that is here."""
    allow_private_hosts: tuple[PrivateHost, ...] = ()
    """What models may be downloaded from inside private networks, this machine included: names
    and addresses, with a port or without (`mirror.lan:8443`), and networks (`10.1.0.0/16`). By
    default they come from the Internet alone."""
    hf_endpoint: BaseUrl = HUB
    """What `hf://` stands for; may be in a private network without being named there."""
    pypi_index: str | None = None
    """Another index than pip's own settings name."""

    @property
    def private_places(self) -> tuple[str, ...]:
        """All that the owner lets downloads connect to although it is private."""
        if self.hf_endpoint == HUB:
            return self.allow_private_hosts
        return (*self.allow_private_hosts, _place(self.hf_endpoint))


class OutboxSettings(Section):
    """The on-disk buffer of records not yet acknowledged."""

    max_bytes: Annotated[int, Field(ge=MIB)] = 256 * MIB
    """Near it old telemetry is thinned; measured results are never dropped for newer telemetry."""


class RunnerSettings(Section):
    """Limits for jobs."""

    allow_backends: tuple[str, ...] = ("*",)
    """Names of backends that a job may ask for; `*` allows every one installed."""
    max_backend_bytes: Annotated[int, Field(ge=MIB)] | None = None
    """Kill a backend whose process tree holds more memory (PSS); default: only the kernel does."""
    max_job_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600.0
    """Longest that one attempt of a job may hold the device, its model's download and all waiting
    included; after a restart or a retry it begins anew. A job that asks for more is rejected."""
    max_context_tokens: Annotated[int, Field(ge=8)] | None = None
    """Largest context that a job may ask for, over all that its engine serves at once; default:
    what fits in memory."""
    lock_file: Path | None = None
    """Held while a job runs, so that two agents on one machine never measure at once; default: a
    file every user of the machine shares."""


class AgentSettings(Settings):
    """All of it; environment variables are FLEETMARK_DEVICE_ID, FLEETMARK_BROKER__HOST, ..."""

    device_id: Name = Field(default_factory=default_device_id)
    fleet: Name = "default"
    tags: tuple[Name, ...] = ()
    time_zone: TimeZone | None = None
    """Name in the IANA database (`Europe/Berlin`); default: the system's."""
    state_dir: Path = Field(default_factory=default_state_dir)
    broker: BrokerSettings = BrokerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    models: ModelSettings = ModelSettings()
    outbox: OutboxSettings = OutboxSettings()
    runner: RunnerSettings = RunnerSettings()
    engines: EnginesSettings = EnginesSettings()
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"

    @model_validator(mode="after")
    def _llamafile_in_store(self) -> Self:
        program = self.engines.llamafile.executable
        if program is not None and (self.models_dir / program).parent != self.models_dir:
            raise ValueError(
                f"engines.llamafile.executable {str(program)!r}: llamafiles are executed out of the"
                " model store alone; bring it in by `fleetmark-agent model add` and give its name"
            )
        return self

    @property
    def engines_here(self) -> EnginesSettings:
        """What is set for engines, with the path of the bare llamafile in the model store."""
        llamafile = self.engines.llamafile
        if llamafile.executable is None:
            return self.engines
        found = llamafile.model_copy(update={"executable": self.models_dir / llamafile.executable})
        return self.engines.model_copy(update={"llamafile": found})

    @property
    def models_dir(self) -> Path:
        """The model store."""
        return self.models.dir or self.state_dir / "models"

    @property
    def outbox_file(self) -> Path:
        """The outbox and the job log."""
        return self.state_dir / "outbox.db"


def load_settings(file: Path | None, flags: dict[str, object] | None = None) -> AgentSettings:
    """Return the settings.

    Raises:
        ConfigError: see `fleetmark_protocol.settings.load`.
    """
    return load(AgentSettings, file, flags)
