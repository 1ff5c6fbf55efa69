"""A clock that stands still until somebody waits, and the selector that makes it move."""

import selectors


class FakeTime:
    """Seconds; `selector` is what a loop waits with."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.selector = _Selector(self)

    def __call__(self) -> float:
        return self.now_s


class _Selector(selectors.SelectSelector):
    """Sockets are real and are asked without waiting; where none has anything, time passes."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            self._time.now_s += timeout
        return ready
