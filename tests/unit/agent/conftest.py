"""Fixtures of the agent's tests: a small model of the same bytes is read once for all of them."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fleetmark_agent.models import convert_2023, finding, formats, making, store
from fleetmark_agent.models.facts import ModelFacts

MAX_BYTES = 2**22
"""Larger ones are few, and hashing them takes as long."""

T = TypeVar("T")

_FACTS: dict[str, ModelFacts] = {}
_OBSTACLES: dict[str, str | None] = {}


@pytest.fixture(autouse=True)
def the_same_bytes_are_read_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spare the interpreter that reads a model where one has read the same bytes before.

    What is refused is always read again: its message names the file. The children themselves are
    tested by those who call `formats.inspect` and `convert_2023.obstacle`, or start the agent.
    """
    inspect = _once(formats.inspect, _FACTS)
    obstacle = _once(convert_2023.obstacle, _OBSTACLES)
    with monkeypatch.context() as patched:
        for module in (finding, making, store):
            patched.setattr(module, "inspect", inspect)
        patched.setattr(convert_2023, "obstacle", obstacle)
        yield


def _once(read: Callable[[Path], T], known: dict[str, T]) -> Callable[[Path], T]:
    def remembered(path: Path) -> T:
        digest = _digest(path)
        if digest is None:
            return read(path)
        if digest not in known:
            known[digest] = read(path)
        return known[digest]

    return remembered


def _digest(path: Path) -> str | None:
    """Return what tells a model's bytes; None where it is no model, or a large one."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if not all(file.is_file() for file in files):
        return None
    if sum(file.stat().st_size for file in files) > MAX_BYTES:
        return None
    told = hashlib.sha256(str(path.is_dir()).encode())
    for file in files:
        told.update(f"{file.name if path.is_dir() else ''}/{file.stat().st_size}/".encode())
        told.update(file.read_bytes())
    return told.hexdigest()
