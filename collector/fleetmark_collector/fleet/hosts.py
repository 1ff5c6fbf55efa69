"""Reads which devices to install: ssh destinations, as words or in a file with one a line."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.ids import is_name

_USER = r"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]*@)?"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_IPV6 = r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?"
# No word begins with `-`, and none holds what the shell of a ProxyCommand would read as more than a
# name.
_DESTINATION = re.compile(rf"{_USER}(?:{_NAME}|{_IPV6})")
_URL = re.compile(rf"ssh://{_USER}(?:{_NAME}|\[{_IPV6}\])(?::[0-9]{{1,5}})?")
_WITH_PORT = re.compile(rf"{_USER}{_NAME}:[0-9]{{1,5}}")


@dataclass(frozen=True)
class Target:
    """A device to install."""

    destination: str
    """What ssh is given: `pi@10.0.0.5`, a name of the ssh configuration, `ssh://user@host:port`."""
    device: str | None
    """The id it shall have; None: what it is called already, or its host name."""
    tags: tuple[str, ...]
    place: str
    """Where the user wrote it."""


def read_targets(words: Iterable[str]) -> tuple[Target, ...]:
    """Return the devices that HOSTS name, in their order.

    Raises:
        ConfigError: no destination, none at all, the same one twice, or a file that cannot be read.
    """
    targets = tuple(target for word in words for target in _of_word(word))
    if not targets:
        raise ConfigError("HOSTS: no device is named")
    for what in ("destination", "device"):
        places: dict[str, str] = {}
        for target in targets:
            value = getattr(target, what)
            if value is None:
                continue
            if value in places:
                raise ConfigError(f"{target.place}: {value} is named before, by {places[value]}")
            places[value] = target.place
    return targets


def _of_word(word: str) -> Iterator[Target]:
    if word.startswith("@"):
        yield from _of_file(Path(word[1:]))
    else:
        yield Target(_destination(word, "HOSTS"), None, (), "HOSTS")


def _of_file(file: Path) -> Iterator[Target]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"@{file}: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            yield _of_line(words, f"{file}:{number}")


def _of_line(words: list[str], place: str) -> Target:
    if len(words) > 3:
        raise ConfigError(
            f"{place}: {len(words)} words",
            hint="a line is: destination, device id, tags; tags are joined by commas",
        )
    destination = _destination(words[0], place)
    device = words[1] if len(words) > 1 else None
    if device is not None and not is_name(device):
        raise ConfigError(
            f"{place}: {device!r} is no device id",
            hint="small letters, digits, - and _, at most 63, not beginning with - or _",
        )
    tags = tuple(words[2].split(",")) if len(words) > 2 else ()
    for tag in tags:
        if not is_name(tag):
            raise ConfigError(f"{place}: {tag!r} is no tag", hint="tags are written as ids are")
    return Target(destination, device, tags, place)


def _destination(word: str, place: str) -> str:
    if _DESTINATION.fullmatch(word) or _URL.fullmatch(word):
        return word
    if _WITH_PORT.fullmatch(word):
        raise ConfigError(f"{place}: {word!r}", hint=f"with a port it is written ssh://{word}")
    raise ConfigError(
        f"{place}: {word!r} is no destination for ssh",
        hint="pi@10.0.0.5, a host's name, or ssh://user@host:port; @FILE reads a file of them",
    )
