"""The directory of secrets: who may read it, and how files get into it."""

import os
import secrets
import sys
from pathlib import Path


class Wrong(Exception):
    """What the operator must mend."""


def say(text: str) -> None:
    """Tell the operator; never a secret."""
    print(text, file=sys.stderr)


class Keep:
    """Files that their owner may change, one group may read, and nobody else sees."""

    def __init__(self, directory: Path, group: int) -> None:
        """Make nothing yet.

        Args:
            directory: where everything lies.
            group: number of the group that the servers run in.
        """
        self.directory = directory
        self.group = group

    def path(self, name: str) -> Path:
        """Return where a file is, or would be."""
        return self.directory / name

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return self.path(name).exists()

    def read(self, name: str) -> str:
        """Return what is in a file, without white space around it."""
        return self.path(name).read_text("ascii").strip()

    def make_directory(self, name: str, mode: int) -> None:
        """Make a directory, or give it the right mode."""
        directory = self.path(name)
        directory.mkdir(parents=True, exist_ok=True)
        os.chown(directory, -1, self.group)
        directory.chmod(mode)

    def write(self, name: str, text: str, mode: int = 0o640) -> None:
        """Put a file in place at once and whole; nobody else may read it even for a moment."""
        file = self.path(name)
        new = file.with_name(f".{file.name}.new")
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(text)
            out.flush()
            os.fchown(handle, -1, self.group)
            os.fchmod(handle, mode)
            os.fsync(handle)
        new.replace(file)

    def secret(self, name: str) -> str:
        """Return a secret; made of 256 random bits where there is none yet."""
        if not self.has(name):
            self.write(name, secrets.token_hex(32) + "\n")
            say(f"made {self.path(name)}")
        return self.read(name)
