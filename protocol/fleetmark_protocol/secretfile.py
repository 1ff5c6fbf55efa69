"""Files that hold a secret: read whole, checked for what is a mistake, never said in a message."""

import os
import stat
from pathlib import Path

from pydantic import SecretStr

from fleetmark_protocol.errors import ConfigError

MAX_BYTES = 16 * 1024
"""A password or a token is shorter; what is longer is another file."""


def read_secret(field: str, file: Path) -> SecretStr:
    """Return the one line that a file holds.

    Args:
        field: the setting or flag that named the file.
        file: where it is.

    Raises:
        ConfigError: it cannot be read, is open to everybody, or does not hold one line of text.
    """
    check_private(field, file)
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
        text = raw.decode("utf-8").strip()
    except OSError as error:
        raise _unreadable(field, file, error) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{field}: {file} is not UTF-8 text") from error
    if not text:
        raise ConfigError(f"{field}: {file} is empty")
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{field}: {file} is too long for a secret")
    if not text.isprintable():
        raise ConfigError(f"{field}: {file} holds more than one line, or unprintable characters")
    return SecretStr(text)


def check_private(field: str, file: Path) -> None:
    """Refuse a file that every user of this machine may read; a group may, as services need it.

    Who cannot get through a directory above it cannot read it, whatever its own mode is.

    Raises:
        ConfigError: it is open to everybody, or cannot be looked at.
    """
    try:
        place = file.resolve(strict=True)
        found = place.stat()
        way = all(above.stat().st_mode & stat.S_IXOTH for above in place.parents)
    except (OSError, RuntimeError) as error:
        raise _unreadable(field, file, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{field}: {file} is a directory, not a file")
    if found.st_mode & stat.S_IROTH and way:
        raise ConfigError(
            f"{field}: every user of this machine may read {file}", hint=f"chmod o= {file}"
        )


def check_readable(field: str, file: Path) -> None:
    """Refuse a file that this process cannot read, by its setting's name.

    Raises:
        ConfigError: says why.
    """
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise _unreadable(field, file, error) from error


def _unreadable(field: str, file: Path, error: OSError | RuntimeError) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) else "a link in circles"
    hint = None
    if isinstance(error, PermissionError):
        hint = f"this process runs as user {os.geteuid()}, group {os.getegid()}: `ls -l {file}`"
    return ConfigError(f"{field}: {file}: {reason or error}", hint=hint)
