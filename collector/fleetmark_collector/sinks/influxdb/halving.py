"""Finds the lines that a server refuses among those it takes, by halves: in few requests."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from fleetmark_collector.sinks.influxdb.answers import Verdict

MAX_REQUESTS = 500
"""For one write: enough to find some 30 bad lines scattered over 5000, or 500 in a row at once.
Lines that are not reached are left for the next time; what was found then is out of the way."""

MAX_BODY_BYTES = 4 * 2**20
"""Of one request at first: below what InfluxDB 1 (25 MB) and 3 (10 MB) take by default."""

Send = Callable[[bytes], Verdict]


@dataclass
class Outcome:
    """What became of lines, by position.

    Attributes:
        accepted: durable, each by a request of which all lines were.
        rejected: can never be written -> the server's reason.
        deferred: not taken now -> why.
    """

    accepted: list[int] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    deferred: dict[int, str] = field(default_factory=dict)


class Halving:
    """Sends lines in as few requests as may be; several threads may use one.

    A half of which a server says that it dropped all is not divided further, so a run of a
    thousand bad lines costs no more than one of them.
    """

    def __init__(self, send: Send, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        """Begin.

        Args:
            send: sends lines, joined by newlines.
            max_body_bytes: of one request; lowered when the server finds one too large.
        """
        self._send = send
        self._max_body_bytes = max_body_bytes

    def write(self, lines: Sequence[bytes]) -> Outcome:
        """Send all lines; whatever `send` raises goes through, and then nothing is promised."""
        outcome = Outcome()
        todo = self._pieces(lines)
        for _ in range(MAX_REQUESTS):
            if not todo:
                return outcome
            start, end = todo.pop()
            body = b"\n".join(lines[start:end])
            verdict = self._send(body)
            if verdict.kind == "accepted":
                outcome.accepted += range(start, end)
                continue
            if verdict.kind == "too_large" and end - start > 1:
                self._max_body_bytes = min(self._max_body_bytes, len(body) // 2)
            # A limit counts the lines of a request, not the series they begin: InfluxDB 1 refuses
            # ten lines of one new series where there is room for nine, and takes them one by one.
            all_refused = not verdict.is_limit and (verdict.dropped or 0) >= end - start
            if end - start == 1 or all_refused:
                found = outcome.deferred if verdict.is_limit else outcome.rejected
                found.update(dict.fromkeys(range(start, end), verdict.reason or verdict.kind))
            else:
                middle = (start + end) // 2
                todo += [(middle, end), (start, middle)]
        for start, end in todo:
            reason = "too many lines of one write were refused to look at all"
            outcome.deferred.update(dict.fromkeys(range(start, end), reason))
        return outcome

    def _pieces(self, lines: Sequence[bytes]) -> list[tuple[int, int]]:
        """Divide lines by the size of a request; the first piece is the last of the list."""
        ends = list(accumulate(len(line) + 1 for line in lines))
        pieces: list[tuple[int, int]] = []
        start = sent = 0
        while start < len(lines):
            end = max(bisect_right(ends, sent + self._max_body_bytes), start + 1)
            pieces.append((start, end))
            start, sent = end, ends[end - 1]
        return pieces[::-1]
