"""A store whose every write does what the test says next; past that it takes everything."""

import threading
from collections.abc import Sequence

from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.records import Record


class FakeWriter:
    """Remembers what it has; an exception in `plan` is raised by the write it stands for."""

    def __init__(self, plan: Sequence[Exception | None] = (), threads: int = 1) -> None:
        self.plan = list(plan)
        self.threads = threads
        self.written: list[Stored[Record]] = []
        self.calls: list[int] = []
        """Records in each call, refused ones too."""
        self.gate = threading.Event()
        """Cleared, it holds writes up."""
        self.gate.set()
        self.entered = threading.Event()

    def write(self, items: Sequence[Stored[Record]]) -> None:
        self.calls.append(len(items))
        self.entered.set()
        self.gate.wait()
        step = self.plan.pop(0) if self.plan else None
        if step is not None:
            accepted = getattr(step, "accepted", [])
            self.written += [items[at] for at in accepted]
            raise step
        self.written += items

    def close(self) -> None:
        pass
