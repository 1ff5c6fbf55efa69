"""Llamafiles for tests: programs that nobody but their digest makes trusted."""

import hashlib
import os
from pathlib import Path

from fakes.fake_llamafile import write_llamafile
from fleetmark_agent.backends.settings import EnginesSettings


def stand_in_llamafile(directory: Path, version: str, weights: Path | None = None) -> Path:
    """Return the stand-in for a version of llamafile, with weights inside if there are any."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"llamafile-{version}{'-with-weights' if weights else ''}"
    # Others may be running it.
    new = file.with_suffix(f".new{os.getpid()}")
    write_llamafile(new, version, weights)
    return new.rename(file)


def trusting(*files: Path, bare: Path | None = None) -> EnginesSettings:
    """Return the settings of an owner who trusts these llamafiles."""
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return EnginesSettings.model_validate(
        {"llamafile": {"executable": bare, "trusted_sha256": digests}}
    )
