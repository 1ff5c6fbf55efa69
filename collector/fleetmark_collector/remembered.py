"""Makes things of texts, and makes them again only where the texts have changed."""

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")


class Remembered(Generic[K, T, V]):
    """For what is asked for every second and is nearly always the same; any thread may ask."""

    def __init__(self, make: Callable[[K, T], V]) -> None:
        """Remember nothing yet.

        Args:
            make: returns what a key's text means; what it raises goes to the caller.
        """
        self._make = make
        self._lock = threading.Lock()
        self._known: dict[K, tuple[T, V]] = {}

    def all(self, texts: Mapping[K, T]) -> dict[K, V]:
        """Return what the texts mean, in their order; what is not among them is forgotten."""
        with self._lock:
            known: dict[K, tuple[T, V]] = {}
            for key, text in texts.items():
                found = self._known.get(key)
                if found is None or found[0] != text:
                    found = (text, self._make(key, text))
                known[key] = found
            self._known = known
            return {key: value for key, (_, value) in known.items()}
