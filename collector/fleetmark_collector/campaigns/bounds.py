"""How large the numbers of a campaign file may be: none makes a time that no clock can tell."""

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo

MAX_S = 315_576_000.0
"""Ten years. Far below what nanoseconds in a database's integers can hold, with sums of them."""
MAX_COUNT = 1_000_000_000
MIN_PER_MINUTE = 1e-6
"""Less than once in two years is no rate."""
MAX_PER_MINUTE = 100_000.0
MAX_USD = 1e12


def written_now(info: ValidationInfo) -> bool:
    """Whether a value is in a file that a person gives now, who can be told of a mistake in it.

    What is kept was right by the rules of the version that kept it, and nobody is there to correct
    it. A row is read without a context, a text that is kept with one that says so.
    """
    return info.context is not None and not info.context.get("kept", False)


def _kept(value: object, info: ValidationInfo, low: float, high: float) -> object:
    """Bring a number that is kept within the bounds: an older version may have taken any."""
    if written_now(info) or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return low if 0 < value < low else min(value, type(value)(high))


UP_TO_TEN_YEARS = Field(le=MAX_S)
KEPT_UP_TO_TEN_YEARS = BeforeValidator(lambda value, info: _kept(value, info, 0, MAX_S))
Seconds = Annotated[float, UP_TO_TEN_YEARS, KEPT_UP_TO_TEN_YEARS]
"""A time in the file; whether it may be 0 its key says."""
Count = Annotated[
    int,
    Field(ge=1, le=MAX_COUNT),
    BeforeValidator(lambda value, info: _kept(value, info, 1, MAX_COUNT)),
]
PerMinute = Annotated[
    float,
    Field(ge=MIN_PER_MINUTE, le=MAX_PER_MINUTE),
    BeforeValidator(lambda value, info: _kept(value, info, MIN_PER_MINUTE, MAX_PER_MINUTE)),
]
Usd = Annotated[
    float,
    Field(ge=0, le=MAX_USD),
    BeforeValidator(lambda value, info: _kept(value, info, 0, MAX_USD)),
]
