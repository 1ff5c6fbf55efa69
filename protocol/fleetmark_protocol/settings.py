"""How both sides read their settings: defaults < TOML file < environment < flags."""

import difflib
import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from fleetmark_protocol.errors import ConfigError

ENV_PREFIX = "FLEETMARK_"

Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A table of a settings file; unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerSettings(Section):
    """How to reach the MQTT broker."""

    host: str = "127.0.0.1"
    port: Port = 1883
    username: str | None = None
    password_file: Path | None = None
    """File with the password alone; never the password itself, which would end up in backups."""
    ca_file: Path | None = None
    """Turns TLS on; the CA that signed the broker's certificate."""
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30

    @model_validator(mode="after")
    def _no_password_in_clear(self) -> Self:
        if self.username is not None and self.ca_file is None and not is_loopback(self.host):
            raise ValueError(
                f"would send a password to {self.host} in clear; set ca_file to turn TLS on"
            )
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self

    def password(self) -> SecretStr | None:
        """Read the password.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self.password_file is None:
            return None
        try:
            return SecretStr(self.password_file.read_text("utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"broker.password_file: {error}") from error


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, without asking any name server."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Settings(BaseSettings):
    """Base of the agent's and the collector's settings."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )
    file_values: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags come as init values; the file's values are the lowest source."""
        file_source = InitSettingsSource(settings_cls, init_kwargs=dict(cls.file_values))
        return init_settings, env_settings, file_source


S = TypeVar("S", bound=Settings)


def load(kind: type[S], file: Path | None, flags: Mapping[str, Any] | None = None) -> S:
    """Return the settings.

    Args:
        kind: the settings class.
        file: TOML file, or None for none.
        flags: values from the command line, nested by table; None values count as not given.

    Raises:
        ConfigError: file missing or no TOML (with line), unknown key (with a suggestion), wrong
            value (with the field and where it came from).
    """
    values = {} if file is None else _read_toml(file)
    # A class of its own for this file: the sources are chosen per class, and a file's values in a
    # shared class would leak into the next load.
    bound: type[S] = type(
        kind.__name__, (kind,), {"file_values": values, "__module__": kind.__module__}
    )
    try:
        return bound(**_given(flags or {}))
    except ValidationError as error:
        raise ConfigError(_explain(kind, error, file)) from error
    except SettingsError as error:
        raise ConfigError(
            f"environment: {error}", hint=f"{ENV_PREFIX}... variables of lists and tables are JSON"
        ) from error


def _read_toml(file: Path) -> dict[str, Any]:
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


def _explain(kind: type[BaseModel], error: ValidationError, file: Path | None) -> str:
    where = str(file) if file else "settings"
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(step) for step in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            text = "unknown key" + suggestion(str(problem["loc"][-1]), _keys(kind, problem["loc"]))
        elif problem["type"] not in ("missing", "value_error"):
            text += f" (got {problem['input']!r})"
        lines.append(f"{where}: {path}: {text}")
    lines.append(f"(environment variables {ENV_PREFIX}... and flags count too)")
    return "\n".join(lines)


def _keys(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that would have been known at `loc`."""
    here: Any = kind
    for step in loc[:-1]:
        info = getattr(here, "model_fields", {}).get(str(step))
        here = getattr(info, "annotation", None)
    return list(getattr(here, "model_fields", {}))


def suggestion(word: str, known: list[str]) -> str:
    """Return ' (did you mean ...?)' where a known word is close, else the known words."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(sorted(known))})" if known else ""
