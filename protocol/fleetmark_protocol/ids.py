"""Identifiers on the wire: their alphabets, and how new ones are made."""

import re
import uuid
from typing import Annotated

from pydantic import StringConstraints

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
JOB_ID_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,159}$"
TRIAL_ID_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,254}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Device ids, fleet names, tags, campaign ids: safe in a topic, a file name and a tag set."""

JobId = Annotated[str, StringConstraints(pattern=JOB_ID_PATTERN)]
"""`{campaign_id}.{device}.{number}`: unique over all campaigns, one topic level long.

Long enough for the longest campaign id, the longest device id and a number.
"""

TrialId = Annotated[str, StringConstraints(pattern=TRIAL_ID_PATTERN)]
"""`{job_id}.{workload}.{repetition}.{prompt}`: the same trial has the same id in every attempt."""

Sha256 = Annotated[str, StringConstraints(pattern=SHA256_PATTERN)]
"""Lower-case hexadecimal SHA-256 digest."""

Uuid = Annotated[str, StringConstraints(pattern=UUID_PATTERN)]
"""Lower-case UUID, as `uuid.uuid4()` prints it."""

_NAME = re.compile(NAME_PATTERN)
_JOB_ID = re.compile(JOB_ID_PATTERN)


def is_name(text: str) -> bool:
    """Whether `text` may serve as a device id, fleet, tag or campaign id."""
    # fullmatch: `$` alone would let a trailing newline through.
    return _NAME.fullmatch(text) is not None


def is_job_id(text: str) -> bool:
    """Whether `text` may serve as a job id."""
    return _JOB_ID.fullmatch(text) is not None


def device_of_job(job_id: str) -> str | None:
    """Return the device that a job is for, which its id names; None for an id of another make."""
    parts = job_id.split(".")
    return parts[1] if len(parts) > 2 else None


def new_uuid() -> str:
    """Return a random UUID (version 4) for an epoch or a boot."""
    return str(uuid.uuid4())
