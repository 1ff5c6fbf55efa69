"""Waits until the machine has cooled down, so that each measurement begins at one temperature."""

import time
from collections.abc import Callable
from typing import Literal

from fleetmark_agent.telemetry.sampler import Sample
from fleetmark_protocol.errors import Canceled
from fleetmark_protocol.messages import CoolDown

POLL_S = 0.5
FIRST_SAMPLE_S = 5.0
"""How long a first sample is waited for, before the machine counts as one that tells nothing."""


def wait_until_cool(
    rule: CoolDown,
    latest: Callable[[], Sample | None],
    stopped: Callable[[], bool],
    *,
    at_most_s: float = float("inf"),
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool | None:
    """Wait for the temperature; return whether it was reached, None where there is none to see.

    Args:
        rule: which temperature, and for how long to wait.
        latest: returns the newest sample.
        stopped: asked while waiting.
        at_most_s: what is left for waiting by other rules.
        clock_s: a monotonic clock.
        sleep: waits.

    Raises:
        Canceled: `stopped` said so.
    """
    begin_s = clock_s()
    limit_s = min(rule.timeout_s, at_most_s)
    while True:
        waited_s = clock_s() - begin_s
        sample = latest()
        temperature = None if sample is None else sample.values.get("temperature_c")
        if isinstance(temperature, (int, float)):
            if temperature <= rule.temperature_c:
                return True
            if waited_s >= limit_s:
                return False
        elif sample is not None or waited_s >= min(FIRST_SAMPLE_S, limit_s):
            return None
        if stopped():
            raise Canceled("canceled while the machine cooled down")
        sleep(POLL_S)


class Cooler:
    """Waits where a job wants it, and knows how that came out."""

    def __init__(
        self,
        rule: CoolDown | None,
        latest: Callable[[], Sample | None],
        stopped: Callable[[], bool],
        absent: Callable[[], None],
    ) -> None:
        """Prepare.

        Args:
            rule: the job's; None to wait for nothing.
            latest: returns the newest sample.
            stopped: asked while waiting.
            absent: called once, if the machine has no temperature to go by.
        """
        self._rule = rule
        self._latest = latest
        self._stopped = stopped
        self._absent = absent
        self._told = False
        self.cooled: bool | None = None
        """Whether the machine had cooled down where it was to last; None where it was not to, or
        where that cannot be told."""

    def before(self, what: Literal["job", "repetition"], at_most_s: float = float("inf")) -> None:
        """Wait, if this is where to wait.

        Raises:
            Canceled: asked to stop.
        """
        if self._rule is None or self._rule.before != what:
            return
        self.cooled = wait_until_cool(
            self._rule, self._latest, self._stopped, at_most_s=max(0.0, at_most_s)
        )
        if self.cooled is None and not self._told:
            self._told = True
            self._absent()

    def skip(self) -> None:
        """Note that what comes now is not waited for, as warm-ups are not."""
        if self._rule is not None and self._rule.before == "repetition":
            self.cooled = None
