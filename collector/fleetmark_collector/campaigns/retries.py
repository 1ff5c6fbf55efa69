"""Which jobs that went wrong a campaign runs again by itself, how often, and after what wait."""

import random
import re
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from fleetmark_collector.campaigns.bounds import MAX_S, Seconds, written_now
from fleetmark_collector.campaigns.shapes import OneOrMany, Part
from fleetmark_protocol.errors import (
    BrokerFailed,
    CampaignAborted,
    CampaignTimedOut,
    Canceled,
    GrafanaFailed,
    LeadershipLost,
    ProcessFailed,
    all_errors,
)
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure
from fleetmark_protocol.settings import suggestion

NS = 1_000_000_000
SPREAD = 0.25
"""So much of a wait at most is taken off, so that devices that failed together, on the same server
or network, do not all come back together."""

WORTH_ONE = (JobState.FAILED, JobState.TIMED_OUT, JobState.REJECTED)
"""Ends that may be worth another try; CANCELED is what somebody wanted."""

_NUMBER = re.compile(r"\.r(\d+)$", re.ASCII)


NEVER_WORTH_ONE = frozenset(
    {
        Canceled.code,
        CampaignTimedOut.code,
        CampaignAborted.code,
        LeadershipLost.code,
        BrokerFailed.code,
        ProcessFailed.code,
        GrafanaFailed.code,
    }
)
"""Errors that no job ends with, or none that is run again: somebody or something stopped it."""
CODES = tuple(code for code in all_errors() if code not in NEVER_WORTH_ONE)
STATES = tuple(str(state) for state in WORTH_ONE)
WORDS = ["retryable", *STATES, *CODES]


def _known(word: str, info: ValidationInfo) -> str:
    if word in WORDS:
        return word
    if word in NEVER_WORTH_ONE:
        # What an older version kept does no harm: it is in a new file that it is a mistake.
        if not written_now(info):
            return word
        raise ValueError(
            f"no job that may be run again ends with {word!r}: write retryable, a state "
            f"({', '.join(STATES)}) or another code"
        )
    hint = suggestion(word, WORDS)
    if "did you mean" not in hint:
        hint = suggestion(word.upper(), WORDS)
    raise ValueError(
        f"{word!r} is neither retryable, nor one of the states {', '.join(STATES)}, nor the "
        f"code of an error that a job ends with{hint}"
    )


Worth = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": WORDS})]


class Retries(Part):
    """When a job that went wrong is run again within the campaign."""

    max: Annotated[int, Field(ge=0, le=100)] = Field(
        description="How often one job may be run again."
    )
    backoff_s: Annotated[Seconds, Field(ge=0)] = Field(
        default=30.0, description="Wait before the first retry, in seconds."
    )
    backoff_factor: Annotated[float, Field(ge=1, le=100)] = Field(
        default=2.0, description="Each further wait is so many times as long."
    )
    backoff_max_s: Annotated[Seconds, Field(ge=0)] = Field(
        default=3600.0, description="Longest wait, in seconds."
    )
    on: Annotated[tuple[Worth, ...], OneOrMany()] = Field(
        default=("retryable",),
        description="What is worth a retry: `retryable` (errors that may go away by themselves), "
        "codes of errors, or the states FAILED, TIMED_OUT, REJECTED.",
    )

    def worth(self, state: JobState, failure: Failure | None) -> bool:
        """Whether a job that ended so is run again, if it has been run again seldom enough."""
        if state not in WORTH_ONE:
            return False
        if state in self.on:
            return True
        if failure is None:
            return False
        return failure.code in self.on or (failure.retryable and "retryable" in self.on)

    def wait_ns(self, number: int, job_id: str) -> int:
        """Return how long to wait before a retry.

        Args:
            number: which retry of its job, from 1.
            job_id: of the retry; draws how much of the wait is taken off.
        """
        # Beyond a hundred steps any factor above 1 has reached any lawful longest wait.
        whole_s = min(self.backoff_s * self.backoff_factor ** min(number - 1, 100), MAX_S)
        drawn = random.Random(job_id).uniform(1 - SPREAD, 1)  # noqa: S311 - a wait, not a secret
        return int(min(whole_s, self.backoff_max_s) * drawn * NS)


def next_id(job_id: str) -> str:
    """Return the id of the job that runs a job again: `NAME`, `NAME.r1`, `NAME.r2`..."""
    found = _NUMBER.search(job_id)
    if found is None:
        return f"{job_id}.r1"
    return f"{job_id[: found.start()]}.r{int(found[1]) + 1}"
