"""The broker's users: Mosquitto's password file, kept without handing a password to a program.

As `keep`, the standard library of Python 3.9 alone.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetmark_collector.enrolment.keep import Keep

COLLECTOR = "fleetmark-collector"
"""The collector's user; the ACL knows it by this name."""

HASH_ROUNDS = 101
"""Mosquitto's own default. More would buy nothing: our passwords are 256 random bits."""

FILE = "broker/passwords"


def users(keep: Keep) -> dict[str, str]:
    """Return user -> hashed password."""
    if not keep.has(FILE):
        return {}
    lines = keep.read(FILE).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def set_user(keep: Keep, user: str, password: str) -> None:
    """Let a user in with a password."""
    known = users(keep)
    if user not in known or not _matches(known[user], password):
        known[user] = _hashed(password, os.urandom(12))
        _write(keep, known)
        keep.say(f"{user}: now among the broker's users")


def drop_users(keep: Keep, gone: Iterable[str]) -> None:
    """Let users in no more; who is none already is passed over."""
    known = users(keep)
    left = {user: text for user, text in known.items() if user not in set(gone)}
    if left != known:
        _write(keep, left)


def _write(keep: Keep, known: dict[str, str]) -> None:
    keep.write(FILE, "".join(f"{user}:{text}\n" for user, text in known.items()))


def _hashed(password: str, salt: bytes, rounds: int = HASH_ROUNDS) -> str:
    """Return what `mosquitto_passwd` would write: PBKDF2 with SHA-512."""
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def _matches(entry: str, password: str) -> bool:
    try:
        _, kind, rounds, salt, _ = entry.split("$")
        return kind == "7" and entry == _hashed(password, base64.b64decode(salt), int(rounds))
    except ValueError:
        return False
