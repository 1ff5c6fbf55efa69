"""When a campaign stops by itself because it goes wrong on too many devices."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from fleetmark_collector.campaigns.bounds import Count
from fleetmark_collector.campaigns.shapes import Part
from fleetmark_protocol.jobs import JobState

DeviceKey = tuple[str, str]

_COUNTED = {
    "failed": frozenset({JobState.FAILED}),
    "rejected": frozenset({JobState.REJECTED}),
    "timed_out": frozenset({JobState.TIMED_OUT}),
    "unsuccessful": frozenset({JobState.FAILED, JobState.REJECTED, JobState.TIMED_OUT}),
}


class AbortRule(Part):
    """Stops the campaign when too large a share of the devices that have ended went wrong."""

    of: Literal["failed", "rejected", "timed_out", "unsuccessful"] = Field(
        default="unsuccessful",
        description="Devices that count: with a job that ended FAILED, REJECTED or TIMED_OUT; "
        "unsuccessful is any of the three.",
    )
    share_percent: Annotated[float, Field(gt=0, le=100)] = Field(
        description="The campaign stops when they are so many percent, or more, of the devices "
        "that have ended."
    )
    after_devices: Count = Field(default=1, description="Not before so many devices have ended.")

    def broken(self, ends: Sequence[frozenset[JobState]]) -> str | None:
        """Return in words how the rule is broken; None if it is not.

        Args:
            ends: of each device that has ended, the states its jobs ended in.
        """
        if len(ends) < self.after_devices:
            return None
        bad = sum(not states.isdisjoint(_COUNTED[self.of]) for states in ends)
        if not bad or 100 * bad < self.share_percent * len(ends):
            return None
        word = self.of.replace("_", " ")
        return (
            f"{word} on {bad} of the {len(ends)} devices that have ended "
            f"({100 * bad / len(ends):.0f} %); the campaign's rule: stop at "
            f"{self.share_percent:g} % after {self.after_devices}"
        )


def ended_devices(
    jobs: Iterable[tuple[DeviceKey, JobState]],
) -> list[frozenset[JobState]]:
    """Return of each device whose jobs have all ended the states that they ended in.

    Args:
        jobs: device and state of each job; of a job that was run again only the newest.
    """
    states: defaultdict[DeviceKey, set[JobState]] = defaultdict(set)
    for device, state in jobs:
        states[device].add(state)
    return [frozenset(one) for one in states.values() if all(state.terminal for state in one)]
