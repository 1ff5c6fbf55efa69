"""Says what to install where a command needs a part of fleetmark that was left out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(extra: str) -> Iterator[None]:
    """Run a command, or end the program with code 1 and a hint where a package is missing.

    Nothing is installed in vain: a device takes fleetmark's `agent` extra alone, the centre
    `collector` alone, but the scripts of both come with either.

    Args:
        extra: what the command's packages come with.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing.startswith("fleetmark"):
            raise
        sys.exit(
            f"this command needs fleetmark[{extra}]: the Python package {missing} is missing\n"
            f"  hint: pip install 'fleetmark[{extra}]'"
        )
