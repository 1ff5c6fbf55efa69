"""An observer that remembers what it was told, or fails as a test wants."""

from collections.abc import Sequence

from fleetmark_collector.sinks.base import Point


class FakeObserver:
    """Raises `trouble` while there is one, which no real observer does."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.calls = 0
        self.trouble: Exception | None = None
        self.closed = False

    def observe(self, points: Sequence[Point]) -> None:
        self.calls += 1
        if self.trouble is not None:
            raise self.trouble
        self.points += points

    def close(self) -> None:
        self.closed = True

    def of(self, measurement: str) -> list[Point]:
        return [point for point in self.points if point.measurement == measurement]

    def take(self) -> list[Point]:
        """Return what came since the last time."""
        points, self.points = self.points, []
        return points
