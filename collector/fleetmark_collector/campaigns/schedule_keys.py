"""The keys of a campaign file that say when it runs again and again: `schedule`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from fleetmark_collector.campaigns.apart import readable
from fleetmark_collector.campaigns.bounds import written_now
from fleetmark_collector.campaigns.recurrence import (
    LAST_NS,
    MAX_CRON_CHARACTERS,
    NotACron,
    Recurrence,
    check_cron,
    moment,
    zone_named,
)
from fleetmark_collector.campaigns.shapes import Part

Overlap = Literal["skip", "queue", "replace"]
Missed = Literal["skip", "once"]

_MAX_CHARACTERS = 64


def _cron(text: str, info: ValidationInfo) -> str:
    try:
        check_cron(text, large_steps=not written_now(info))
    except NotACron as error:
        context = {"text": str(error), "offset": error.offset}
        raise PydanticCustomError("within", "{text}", context) from error
    return text


def _zone(text: str) -> str:
    zone_named(text)
    return text


class ScheduleKeys(Part):
    """When the campaign runs, once `fleetmark campaign schedule` has registered it."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(
        max_length=MAX_CRON_CHARACTERS,
        description="Five fields: minute, hour, day of month, month, day of week.",
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC",
        max_length=_MAX_CHARACTERS,
        description="IANA time zone that the expression, start and end are about.",
    )
    start: str | None = Field(
        default=None,
        max_length=_MAX_CHARACTERS,
        description="No run before this date or time.",
    )
    end: str | None = Field(
        default=None,
        max_length=_MAX_CHARACTERS,
        description="No run after this date, or at this time or later.",
    )
    overlap: Overlap = Field(
        default="skip",
        description="When the run before has not ended: skip this one, queue it (one at most), or "
        "replace the one before, which is canceled.",
    )
    missed: Missed = Field(
        default="skip",
        description="Runs that came due while no collector was at work: skip them, or run once.",
    )

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> "ScheduleKeys":
        zone = zone_named(self.time_zone)
        times: dict[str, int | None] = {}
        for key, text in (("start", self.start), ("end", self.end)):
            try:
                times[key] = None if text is None else moment(text, zone, through=key == "end")
            except ValueError as error:
                raise _at(key, f"{error} (got {text!r})") from error
        start_ns, end_ns = times["start"], times["end"]
        if written_now(info):
            if start_ns is not None and start_ns >= LAST_NS:
                raise _at("start", f"is later than any time that can be kept (got {self.start!r})")
            if end_ns is not None and end_ns <= 0:
                raise _at("end", f"is before 1970: it would never run (got {self.end!r})")
        if start_ns is None or end_ns is None:
            return self
        if end_ns <= start_ns:
            raise _at("end", f"is not after start ({self.start})")
        # A kept one may have had times only where none are kept any more.
        if written_now(info) and self.recurrence.next(start_ns - 1) is None:
            raise _at("cron", "does not run once between start and end")
        return self

    @property
    def recurrence(self) -> Recurrence:
        """The times it runs at."""
        zone = zone_named(self.time_zone)
        return Recurrence(
            self.cron,
            zone,
            None if self.start is None else moment(self.start, zone),
            None if self.end is None else moment(self.end, zone, through=True),
        )


def read_keys(name: str, text: str) -> ScheduleKeys:
    """Return the keys of a schedule as they were kept.

    Raises:
        StoreError: this version cannot read them.
    """
    with readable(f"schedule {name}"):
        return ScheduleKeys.model_validate_json(text)


def _at(key: str, text: str) -> PydanticCustomError:
    return PydanticCustomError("campaign", "{text}", {"text": text, "key": key})
