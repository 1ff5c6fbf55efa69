"""Keeps records off the network inside timed windows, those that are just about to go included."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_S = 0.2
"""How long a window waits for what is being sent as it begins: a stuck network must not stop it."""


class Hush:
    """Every method may be called from any thread."""

    def __init__(self) -> None:
        """Start with no window."""
        self._changed = threading.Condition()
        self._held = 0
        self._sending = 0

    @property
    def held(self) -> bool:
        """Whether it is inside a window."""
        return self._held > 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let nothing be sent inside; what is being sent is waited for first, but not for long."""
        with self._changed:
            self._held += 1
            self._changed.wait_for(lambda: not self._sending, WAIT_S)
        try:
            yield
        finally:
            with self._changed:
                self._held -= 1

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """Send inside, if it yields True; no window begins meanwhile."""
        with self._changed:
            may = not self._held
            self._sending += may
        try:
            yield may
        finally:
            with self._changed:
                self._sending -= may
                self._changed.notify_all()
