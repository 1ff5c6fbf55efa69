"""How fast a campaign spreads over its devices: few at first, more while it goes well."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from fleetmark_collector.campaigns.bounds import Count, PerMinute
from fleetmark_collector.campaigns.shapes import Part

NS = 1_000_000_000
MINUTE_S = 60.0
BURST_S = 5.0
"""Jobs that the rate lets through are sent together if a tick came late, but never more than so
many seconds' worth: a pause or a night without an open window saves nothing up."""


class Growth(Part):
    """Makes the rate of a roll-out larger while jobs succeed."""

    factor: Annotated[float, Field(gt=1, le=100)] = Field(
        default=2.0, description="The rate becomes so many times as high ..."
    )
    after_successes: Count = Field(description="... each time so many more jobs have SUCCEEDED ...")
    jobs_per_minute_max: PerMinute = Field(description="... up to this rate.")


class Rollout(Part):
    """How fast jobs are sent."""

    jobs_per_minute: PerMinute | None = Field(
        default=None, description="Jobs sent in a minute, over all devices, evenly spread."
    )
    devices_at_once: Count | None = Field(
        default=None, description="Devices that have a job of the campaign at the same time."
    )
    growth: Growth | None = Field(
        default=None, description="Makes `jobs_per_minute` larger while jobs succeed."
    )

    @model_validator(mode="after")
    def _agrees(self) -> "Rollout":
        if self.jobs_per_minute is None and self.devices_at_once is None:
            raise ValueError("says nothing: give jobs_per_minute or devices_at_once")
        if self.growth is not None:
            if self.jobs_per_minute is None:
                raise ValueError("growth needs a jobs_per_minute to grow from")
            if self.growth.jobs_per_minute_max < self.jobs_per_minute:
                raise ValueError("jobs_per_minute_max is lower than jobs_per_minute")
        return self

    def rate(self, successes: int) -> float | None:
        """Return the jobs per minute after so many have SUCCEEDED; None without a limit."""
        if self.jobs_per_minute is None or self.growth is None:
            return self.jobs_per_minute
        top = self.growth.jobs_per_minute_max
        rate = self.jobs_per_minute
        for _ in range(successes // self.growth.after_successes):
            rate *= self.growth.factor
            if rate >= top:
                return top
        return rate

    def due(self, sent_ns: Sequence[int], successes: int, now_ns: int) -> int | None:
        """Return how many jobs the rate lets through now; None without a limit.

        All that it needs is in the rows of the jobs, so that a restart changes nothing.

        Args:
            sent_ns: when jobs were sent so far, in any order; later than now counts as never, or
                a clock that is put back would stop everything until it is there again.
            successes: how many have SUCCEEDED.
            now_ns: the centre's clock.
        """
        rate = self.rate(successes)
        if rate is None:
            return None
        sent_ns = [one for one in sent_ns if one <= now_ns]
        if not sent_ns:
            return 1
        step_s = MINUTE_S / rate
        idle_s = (now_ns - max(sent_ns)) / NS
        # In whole nanoseconds, so that six seconds are enough for ten a minute.
        fits = int(round(min(idle_s, max(BURST_S, step_s)) * NS) // round(step_s * NS))
        minute = sum(now_ns - one < MINUTE_S * NS for one in sent_ns)
        return max(0, min(fits, math.ceil(rate) - minute))

    def next_ns(self, sent_ns: Sequence[int], successes: int, now_ns: int) -> int | None:
        """Return when the next job is due; None if none was sent yet, or there is no rate."""
        rate = self.rate(successes)
        sent_ns = [one for one in sent_ns if one <= now_ns]
        if rate is None or not sent_ns:
            return None
        return max(sent_ns) + round(MINUTE_S / rate * NS)
