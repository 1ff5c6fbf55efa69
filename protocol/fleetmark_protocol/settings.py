"""How both sides read their settings: defaults < TOML file < environment < flags."""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from fleetmark_protocol import environment
from fleetmark_protocol.environment import Environment
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.secretfile import read_secret

Port = Annotated[int, Field(ge=1, le=65535)]

TLS_PORT = 8883
"""Where brokers speak TLS, by custom."""


def _check_host(host: str) -> str:
    """Refuse what no resolver takes: it would fail again and again where it is connected to."""
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{host!r} is no host name or address") from error
    numeric = ":" not in host or is_address(host)
    if not host or not host.isprintable() or set(host) & set(" /@[]") or not numeric:
        raise ValueError(f"{host!r} is no host name or address, such as centre.example")
    return host


Host = Annotated[str, AfterValidator(_check_host)]


class Section(BaseModel):
    """A table of a settings file; unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerSettings(Section):
    """How to reach the MQTT broker."""

    host: Host = "127.0.0.1"
    username: str | None = None
    password_file: Path | None = None
    """File with the password alone; never the password itself, which would end up in backups."""
    tls: bool | None = None
    """Whether to speak TLS; None: if the broker is on another machine, or `ca_file` is set."""
    ca_file: Path | None = None
    """The CA that signed the broker's certificate; without it, those that the system believes."""
    cert_file: Path | None = None
    key_file: Path | None = None
    port: Port = Field(default_factory=lambda given: TLS_PORT if _uses_tls(given) else 1883)
    """Where nobody says: 8883 with TLS, else 1883."""
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.username is not None and not self.uses_tls and not is_loopback(self.host):
            raise ValueError(
                f"would send a password to {self.host} in clear; leave tls out, and set ca_file"
            )
        if not self.uses_tls and (self.ca_file or self.cert_file):
            raise ValueError("ca_file and cert_file are for TLS, which is off: set tls = true")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        if self.password_file is not None and self.username is None:
            raise ValueError(
                "password_file is not used without username: username and password_file go together"
            )
        return self

    @property
    def uses_tls(self) -> bool:
        """Whether TLS is spoken with the broker."""
        return _uses_tls({"host": self.host, "tls": self.tls, "ca_file": self.ca_file})

    def password(self) -> SecretStr | None:
        """Read the password.

        Raises:
            ConfigError: the file cannot be read, is open to everybody, or holds no password.
        """
        if self.password_file is None:
            return None
        return read_secret("broker.password_file", self.password_file)


def _uses_tls(given: Mapping[str, Any]) -> bool:
    """Decide about TLS; a value that was wrong is missing, and is told by itself."""
    tls = given.get("tls")
    if tls is None:
        return given.get("ca_file") is not None or not is_loopback(given.get("host", "localhost"))
    return bool(tls)


def is_address(host: str) -> bool:
    """Whether it is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, without asking any name server."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Settings(Section):
    """Base of the agent's and the collector's settings."""


S = TypeVar("S", bound=Settings)


def load(
    kind: type[S],
    file: Path | None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> S:
    """Return the settings.

    Args:
        kind: the settings class.
        file: TOML file, or None for none.
        flags: values from the command line, nested by table; None values count as not given.
        environ: environment variables; default: this process's.

    Raises:
        ConfigError: file missing or no TOML (with line), unknown key (with a suggestion), wrong
            value (with the field and where it came from).
    """
    in_file = {} if file is None else _read_toml(file)
    in_environment = environment.read(kind, os.environ if environ is None else environ)
    given = _given(flags or {})
    try:
        return kind.model_validate(_over(_over(in_file, in_environment.values), given))
    except ValidationError as error:
        lines = []
        for problem in map(dict, error.errors(include_url=False)):
            where = _origin(problem, given, in_environment, in_file, file)
            lines.append(f"{where}: {_explain(kind, problem)}")
        raise ConfigError("\n".join(lines)) from error


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two sources, table by table; what is above counts more."""
    out = dict(below)
    for key, value in above.items():
        under = out.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            value = _over(under, value)
        out[key] = value
    return out


def _read_toml(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what was not given, so that it does not hide the environment or the file."""
    out: dict[str, Any] = {}
    for key, value in flags.items():
        kept = _given(value) if isinstance(value, Mapping) else value
        if kept is not None and kept != {}:
            out[key] = kept
    return out


def _explain(kind: type[BaseModel], problem: Mapping[str, Any]) -> str:
    loc: tuple[int | str, ...] = problem["loc"]
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        text = "unknown key" + suggestion(str(loc[-1]), _keys(kind, loc))
    elif problem["type"] not in ("missing", "value_error"):
        text += f" (got {problem['input']!r})"
    return f"{'.'.join(str(step) for step in loc)}: {text}"


def _origin(
    problem: Mapping[str, Any],
    given: Mapping[str, Any],
    in_environment: Environment,
    in_file: Mapping[str, Any],
    file: Path | None,
) -> str:
    """Return where a value came from; a table may have come from several places."""
    loc = problem["loc"]
    found = []
    if _holds(given, loc):
        # Both commands name their flags so: --broker-port sets broker.port.
        found.append("--" + "-".join(map(str, loc)).replace("_", "-"))
    if _holds(in_environment.values, loc):
        found += reversed(in_environment.variables_of(loc))
    if _holds(in_file, loc):
        found.append(str(file))
    if isinstance(problem["input"], Mapping):
        return ", ".join(found) or "settings"
    return found[0] if found else "settings"


def _holds(values: Any, loc: tuple[int | str, ...]) -> bool:
    for step in loc:
        if not isinstance(values, Mapping):
            break
        if step not in values:
            return False
        values = values[step]
    return True


def _keys(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that would have been known at `loc`."""
    here: Any = kind
    for step in loc[:-1]:
        info = getattr(here, "model_fields", {}).get(str(step))
        here = getattr(info, "annotation", None)
    return list(getattr(here, "model_fields", {}))


def suggestion(word: str, known: list[str]) -> str:
    """Return ' (did you mean ...?)' where a known word is close, else the known words."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(sorted(known))})" if known else ""
