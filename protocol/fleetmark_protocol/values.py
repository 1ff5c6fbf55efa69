"""The plain values that records and messages are made of, each with its bounds."""

import re
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import core_schema

MAX_SCALARS = 64
"""Unknown fields a record may have, and options, labels or data."""

MAX_TEXT = 4096

NO_NUL = r"^[^\x00]*$"
"""Databases and C libraries end a string at NUL: two texts would become one."""


class _OneError:
    """One problem for a value that fits no member of a union, instead of one per member."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = cast(core_schema.UnionSchema, handler(source))
        return {
            **schema,
            "custom_error_type": "plain_value",
            "custom_error_message": "Input should be a plain number, short text or truth value",
        }


Key = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,64}$")]
ScalarText = Annotated[str, Field(max_length=512, pattern=NO_NUL)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=MAX_TEXT, pattern=NO_NUL)]
Label = Annotated[str, Field(max_length=256, pattern=NO_NUL)]
Scalar = (
    Annotated[
        Annotated[int, Field(ge=-(2**63), lt=2**63)] | bool | Finite | ScalarText, _OneError()
    ]
    | None
)
"""A plain value; a whole number beyond 64 bits becomes a float."""

Scalars = Annotated[dict[Key, Scalar], Field(max_length=MAX_SCALARS)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
MAX_TOKEN_IDS = 1024
Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
TimeNs = Annotated[int, Field(ge=0, lt=2**63)]

_UNPRINTABLE = re.compile("[\x00\ud800-\udfff]")


def clip(text: str, length: int = MAX_TEXT) -> str:
    """Return foreign text (an engine's output, an exception's message) as `Text` takes it.

    NULs and lone surrogates become U+FFFD; what is longer than `length` characters is cut.
    """
    return _UNPRINTABLE.sub("\ufffd", text[:length])


T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(fail_fast=True)]
"""Any number; the first wrong item is the end of it, a million wrong ones are not listed."""

TokenIds = Annotated[Many[Count], Field(max_length=MAX_TOKEN_IDS)]
