"""A program in the place of ssh: notes what it was given, then does what the test wants."""

from pathlib import Path


def fake_ssh_program(directory: Path, then: str) -> Path:
    """Return the program; `argv` (a word a line) and `stdin` are left beside it.

    Args:
        directory: for it and its notes.
        then: what it does after that, for `sh`.
    """
    program = directory / "ssh"
    program.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{directory}/argv\n{then}\n",
        "utf-8",
    )
    program.chmod(0o755)
    return program
