"""Records a soak's results while its next request runs: it is not to pause for a disk."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

MAX_WAITING = 50
"""Results that may wait for a disk; beyond it the soak does, too."""


class Behind:
    """Used by the runner's thread; what is handed over is done in order, by a thread of its own."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "behind")
        self._waiting: deque[Future[None]] = deque()

    def do(self, write: Callable[[], None]) -> None:
        """Have something written soon.

        Raises:
            Whatever writing an earlier result has raised.
        """
        self._waiting.append(self._executor.submit(write))
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > MAX_WAITING):
            self._waiting.popleft().result()

    def catch_up(self) -> None:
        """Wait until all is written.

        Raises:
            Whatever writing has raised first.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Wait until all is written; whatever it raises was raised before, or matters no more."""
        self._executor.shutdown(wait=True)
