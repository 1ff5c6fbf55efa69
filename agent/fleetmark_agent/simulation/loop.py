"""One thread's clock and sockets: runs what is due, and whom the network has something for."""

import heapq
import itertools
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

Action = Callable[[], None]
OnReady = Callable[[int], None]
"""Takes a mask of `selectors.EVENT_READ` and `selectors.EVENT_WRITE`."""


class Loop:
    """Used by one thread, except `from_thread`, which any may call."""

    def __init__(
        self,
        clock_s: Callable[[], float] = time.monotonic,
        selector: selectors.BaseSelector | None = None,
    ) -> None:
        """Prepare.

        Args:
            clock_s: a monotonic clock.
            selector: what waits for sockets, and for the clock meanwhile.
        """
        self.clock_s = clock_s
        self.late_s = 0.0
        """By how much the latest action of all came after its time: the loop had more to do."""
        self._selector = selector or selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._soon: deque[Action] = deque()
        self._thread = threading.get_ident()
        self._waker, self._woken = socket.socketpair()
        for end in (self._waker, self._woken):
            end.setblocking(False)
        self.watch(self._woken, self._drop_wakes)

    def at(self, time_s: float, action: Action) -> None:
        """Run an action at a time of the clock, after those that were given for the same time."""
        heapq.heappush(self._timers, (time_s, next(self._order), action))

    def after(self, delay_s: float, action: Action) -> None:
        """Run an action so much later."""
        self.at(self.clock_s() + delay_s, action)

    def soon(self, action: Action) -> None:
        """Run an action before the next wait."""
        self._soon.append(action)

    def from_thread(self, action: Action) -> None:
        """Run an action soon, whichever thread asks, or a signal's handler."""
        self._soon.append(action)
        with suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def watch(self, sock: socket.socket, on_ready: OnReady) -> None:
        """Have `on_ready` called whenever there is something to read."""
        self._selector.register(sock, selectors.EVENT_READ, on_ready)

    def want_write(self, sock: socket.socket, wanted: bool) -> None:
        """Have `on_ready` called, or not, whenever something can be written."""
        key = self._selector.get_key(sock)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        if key.events != events:
            self._selector.modify(sock, events, key.data)

    def unwatch(self, sock: socket.socket) -> None:
        """Forget a socket that is about to be closed; one that is not known is no matter."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def run_until(self, over: Callable[[], bool]) -> None:
        """Run until `over()`, which is asked once a round."""
        while not over():
            self.round()

    def round(self, max_wait_s: float = 1.0) -> None:
        """Wait for a socket or a time, and run what is due."""
        for key, mask in self._selector.select(self._wait_s(max_wait_s)):
            key.data(mask)
        self._run_soon()
        now_s = self.clock_s()
        while self._timers and self._timers[0][0] <= now_s:
            due_s, _, action = heapq.heappop(self._timers)
            self.late_s = max(self.late_s, now_s - due_s)
            action()
            self._run_soon()

    def close(self) -> None:
        """Release what the loop itself holds."""
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def _wait_s(self, max_wait_s: float) -> float:
        if self._soon:
            return 0.0
        if not self._timers:
            return max_wait_s
        return min(max_wait_s, max(0.0, self._timers[0][0] - self.clock_s()))

    def _run_soon(self) -> None:
        # Only those that are there now: what they ask for comes after the network's turn.
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def _drop_wakes(self, _mask: int) -> None:
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
