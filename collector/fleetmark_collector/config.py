"""The collector's settings: where its broker, its data and its store are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from fleetmark_protocol.logs import LogFormat, LogLevel
from fleetmark_protocol.secretfile import read_secret
from fleetmark_protocol.settings import BrokerSettings, Section, Settings, is_loopback, load


def default_data_dir() -> Path:
    """Return where an unprivileged user's data lives (XDG)."""
    import os

    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "fleetmark"


@dataclass(frozen=True)
class InfluxSettings:
    """How to reach a time-series server; made of `[store]`, with its secrets read.

    Attributes:
        url: without a slash at its end; a path in it is put before all of the server's own.
        bucket: as given.
        org: of InfluxDB 2; empty where the server has none.
        token: of InfluxDB 2 and 3, or of a proxy.
        username: of InfluxDB 1; None where nobody asks for one.
        password: goes with `username`.
        ca_file: the CA that signed an https server's certificate; None for the system's.
        timeout_s: how long one request may take.
    """

    url: str
    bucket: str
    org: str = ""
    token: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    timeout_s: float = 10.0

    @property
    def database(self) -> str:
        """The database of InfluxDB 1 and 3: what is before a slash in `bucket`."""
        return self.bucket.partition("/")[0]

    @property
    def retention_policy(self) -> str:
        """The retention policy of InfluxDB 1: what is after it; empty for the default one."""
        return self.bucket.partition("/")[2]

    @property
    def on_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")


class StoreSettings(Section):
    """The store that records are written to; all but `kind` is for `kind = "influxdb"`."""

    kind: Literal["sqlite", "influxdb"] = "sqlite"
    url: str = "http://127.0.0.1:8086"
    """Of InfluxDB 1, 2 or 3 Core, or of VictoriaMetrics; which it is, is found out."""
    bucket: Annotated[str, Field(min_length=1, max_length=200)] = "fleetmark"
    """InfluxDB 2: the bucket; 1: DATABASE or DATABASE/RETENTION_POLICY; 3: the database."""
    org: Annotated[str, Field(max_length=200)] = ""
    """The organization; InfluxDB 2 only."""
    token_file: Path | None = None
    """File with the token alone; InfluxDB 2 and 3."""
    username: Annotated[str, Field(min_length=1)] | None = None
    """InfluxDB 1, if it asks for one."""
    password_file: Path | None = None
    """File with the password alone; goes with `username`."""
    ca_file: Path | None = None
    """The CA that signed the server's certificate, if the system does not know it; https only."""
    timeout_s: Annotated[float, Field(ge=1, le=300)] = 10.0
    """How long one request may take."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an address such as http://127.0.0.1:8086")
        if parts.username is not None or parts.password is not None:
            raise ValueError("no user or password in the address; see username and password_file")
        if parts.query or parts.fragment or not url.isprintable():
            raise ValueError("an address without ? and #")
        _ = parts.port  # raises ValueError where it is none
        return url.rstrip("/")

    @field_validator("bucket")
    @classmethod
    def _is_bucket(cls, bucket: str) -> str:
        database, slash, policy = bucket.partition("/")
        if not bucket.isprintable() or not database or "/" in policy or (slash and not policy):
            raise ValueError("not BUCKET, DATABASE or DATABASE/RETENTION_POLICY")
        return bucket

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kind == "sqlite":
            if others := sorted(self.model_fields_set - {"kind"}):
                raise ValueError(f'{", ".join(others)}: for kind = "influxdb" only')
            return self
        if self.token_file is not None and self.username is not None:
            raise ValueError("token_file or username, not both")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        parts = urlsplit(self.url)
        if parts.scheme == "http":
            if self.ca_file is not None:
                raise ValueError("ca_file is for an https url")
            secret = "token" if self.token_file else "password" if self.password_file else ""
            if secret and not is_loopback(parts.hostname or ""):
                raise ValueError(f"would send a {secret} to {parts.hostname} in clear; use https")
        return self

    def influxdb(self) -> InfluxSettings:
        """Read the secrets.

        Raises:
            ConfigError: a file cannot be read, or holds no secret.
        """
        return InfluxSettings(
            url=self.url,
            bucket=self.bucket,
            org=self.org,
            token=_secret("store.token_file", self.token_file),
            username=self.username,
            password=_secret("store.password_file", self.password_file),
            ca_file=self.ca_file,
            timeout_s=self.timeout_s,
        )


def _secret(field: str, file: Path | None) -> SecretStr | None:
    return None if file is None else read_secret(field, file)


class IngestSettings(Section):
    """How records are gathered before they are written: whichever limit comes first."""

    batch_records: Annotated[int, Field(ge=1, le=100_000)] = 5000
    batch_age_s: Annotated[float, Field(gt=0, le=60)] = 0.25
    queue_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Messages held while the store is slow; past it the network is no longer read."""


class PatienceSettings(Section):
    """How long a job's device is waited for before the centre ends the job itself, in seconds."""

    cancel_offline_s: Annotated[float, Field(ge=0, le=604_800)] = 60.0
    """For a device that is gone to answer a cancellation."""
    cancel_online_s: Annotated[float, Field(ge=0, le=604_800)] = 600.0
    """For one that is there."""
    job_s: Annotated[float, Field(ge=0, le=604_800)] = 60.0
    """Past the job's own limit, for a device that is gone."""
    trials_s: Annotated[float, Field(gt=0, le=604_800)] = 600.0
    """For trials that a device says it recorded, from the last that came."""


class HttpSettings(Section):
    """Where the collector answers for itself: `/healthz` and `/metrics`."""

    listen: Annotated[str, Field(max_length=300)] = "127.0.0.1:9108"
    """ADDRESS:PORT; port 0 or an empty text turns it off. No password and no TLS protect it."""

    @field_validator("listen")
    @classmethod
    def _is_address(cls, listen: str) -> str:
        if listen:
            _host_and_port(listen)
        return listen

    @property
    def address(self) -> tuple[str, int] | None:
        """Where to listen; None where nobody is to."""
        host, port = _host_and_port(self.listen) if self.listen else ("", 0)
        return (host, port) if port else None

    @property
    def is_default(self) -> bool:
        """Whether nobody has asked for just this address."""
        return "listen" not in self.model_fields_set


def _host_and_port(listen: str) -> tuple[str, int]:
    problem = "not ADDRESS:PORT, such as 127.0.0.1:9108 or [::1]:9108"
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(problem) from error
    if host is None or port is None or parts.netloc != listen or "@" in listen:
        raise ValueError(problem)
    return host, port


class CollectorSettings(Settings):
    """All of it; environment variables are FLEETMARK_DATA_DIR, FLEETMARK_BROKER__HOST, ..."""

    data_dir: Path = Field(default_factory=default_data_dir)
    broker: BrokerSettings = BrokerSettings()
    store: StoreSettings = StoreSettings()
    ingest: IngestSettings = IngestSettings()
    patience: PatienceSettings = PatienceSettings()
    http: HttpSettings = HttpSettings()
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
