"""The keys of a campaign file that say which devices take part: `targets`."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from fleetmark_collector.campaigns.bounds import MAX_COUNT
from fleetmark_collector.campaigns.shapes import OneOrMany, Part
from fleetmark_collector.campaigns.where import MAX_CHARACTERS, NotAnExpression, Where, parse
from fleetmark_protocol.ids import Name

Selection = Literal["snapshot", "continuous"]


@dataclass(frozen=True)
class Sample:
    """How many of the devices that fit take part: a number, or a share in percent."""

    count: int | None = None
    percent: Decimal | None = None

    def of(self, devices: int) -> int:
        """Return how many of so many devices that is; a share is rounded up."""
        if self.count is not None:
            return self.count
        return math.ceil(devices * (self.percent or Decimal(0)) / 100)


SHARE_PATTERN = r"^(?!0+(\.0+)?%$)(0?\d{1,2}(\.\d+)?|100(\.0+)?)%$"
"""What editors are told: more than 0 % and at most 100 %."""
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)%", re.ASCII)


def _sample(value: object) -> Sample:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_COUNT:
        return Sample(count=value)
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is not None and 0 < Decimal(found[1]) <= 100:
        return Sample(percent=Decimal(found[1]))
    raise ValueError(
        f"should be a number of devices from 1, or a share such as 10% (got {value!r})"
    )


def _where(text: str) -> Where:
    try:
        return parse(text)
    except NotAnExpression as error:
        context = {"text": str(error), "offset": error.offset}
        raise PydanticCustomError("within", "{text}", context) from error


SampleValue = Annotated[
    Any,
    PlainValidator(_sample),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_COUNT},
                {"type": "string", "pattern": SHARE_PATTERN},
            ]
        }
    ),
]
WhereText = Annotated[
    Any,
    PlainValidator(lambda value: _where(value) if isinstance(value, str) else _not_text(value)),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS}),
]


def _not_text(value: object) -> Where:
    raise ValueError(f"should be an expression over tags, as text (got {value!r})")


class Targets(Part):
    """Which devices the campaign runs on: each one that any of devices, tags, fleets names."""

    devices: Annotated[tuple[Name, ...], OneOrMany()] = Field(default=(), description="Device ids.")
    tags: Annotated[tuple[Name, ...], OneOrMany()] = Field(
        default=(), description="Devices that have any of these tags."
    )
    fleets: Annotated[tuple[Name, ...], OneOrMany()] = Field(
        default=(), description="All devices of these fleets."
    )
    all: bool = Field(default=False, description="All devices that the collector knows.")
    where: WhereText = Field(
        default=None,
        description="Of these (of all, where none is named) only those whose tags fit: names of "
        "tags with and, or, not and parentheses, such as `pi4 and not (bench or slow)`.",
    )
    sample: SampleValue = Field(
        default=None,
        description="Of these only so many, drawn by the campaign's `seed`: a number, or a share "
        "such as 10%.",
    )
    selection: Selection = Field(
        default="snapshot",
        description="`snapshot`: the devices that are known at the start. `continuous`: devices "
        "that join later, or get a tag later, take part too, until the campaign's time is up.",
    )

    @model_validator(mode="after")
    def _some(self) -> "Targets":
        named = self.devices or self.tags or self.fleets or self.all
        if not (named or self.where is not None):
            raise ValueError(
                "names no device: give devices, tags, fleets or where, or say `all: true`"
            )
        return self
