"""Shapes that keys of a campaign file share: closed mappings, one-or-many, twins of the wire."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fleetmark_collector.campaigns.bounds import KEPT_UP_TO_TEN_YEARS, UP_TO_TEN_YEARS

_CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True)


class Part(BaseModel):
    """A mapping of the file; unknown keys are mistakes, and text in quotes is no number."""

    model_config = _CLOSED


def at_key(key: str | int, text: str) -> PydanticCustomError:
    """Return a mistake of one key of a mapping, which pydantic would blame as a whole.

    Args:
        key: where; empty for the mapping itself; of a list the place, from 0, but not 0.
        text: what is wrong.
    """
    return PydanticCustomError("campaign", "{text}", {"text": text, "key": key})


@dataclass(frozen=True)
class OneOrMany:
    """Marks a tuple that may be written as one value, or as a list of different ones.

    Attributes:
        by_name: whether two mappings of one `name` count as the same.
    """

    by_name: bool = True

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Wrap one value, and look at many."""
        several = core_schema.no_info_before_validator_function(_as_tuple, handler(source))
        different = _different_names if self.by_name else _different
        return core_schema.no_info_after_validator_function(different, several)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Tell editors both ways of writing it."""
        array = {**handler(schema), "minItems": 1}
        return {"anyOf": [array["items"], array]}


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,)


def _different_names(values: tuple[object, ...]) -> tuple[object, ...]:
    _different(tuple(getattr(value, "name", value) for value in values))
    return values


def _different(values: tuple[object, ...]) -> tuple[object, ...]:
    if not values:
        raise ValueError("empty list: name at least one")
    for index, value in enumerate(values):
        if value in values[:index]:
            text = f"entry {index + 1} is the same as entry {values.index(value) + 1}"
            if isinstance(value, str | int | float | None):
                shown = repr(value) if isinstance(value, str) else json.dumps(value)
                text = f"given twice: {shown}"
            raise at_key(index, text)
    return values


class NameAlone:
    """Marks a mapping that may be written as just its `name`."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Make a mapping of a text."""
        return core_schema.no_info_before_validator_function(_as_mapping, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Tell editors both ways of writing it."""
        mapping = handler(schema)
        return {"anyOf": [handler.resolve_ref_schema(mapping)["properties"]["name"], mapping]}


def _as_mapping(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def twin(
    wire: type[BaseModel],
    name: str,
    doc: str,
    help_texts: Mapping[str, str],
    *,
    matrix: bool = False,
    more: Mapping[str, Any] | None = None,
) -> Any:
    """Return a closed model with the limits and defaults of a wire model, never repeated here.

    Args:
        wire: the model that the fields named in `help_texts` are taken over from.
        name: of the new model, as the published schema shows it.
        doc: what the mapping is for, as the published schema shows it.
        help_texts: field -> what it means.
        matrix: whether each field takes a list of values as well.
        more: fields of its own: name -> (type, default).
    """
    fields: dict[str, Any] = {}
    for field, text in help_texts.items():
        info = wire.model_fields[field]
        kind: Any = info.annotation
        if field.endswith("_s"):
            kind = Annotated[kind, UP_TO_TEN_YEARS]
        for limit in info.metadata:
            kind = Annotated[kind, limit]
        if field.endswith("_s"):
            kind = Annotated[kind, KEPT_UP_TO_TEN_YEARS]
        needed = info.is_required()
        shown = text if needed or info.default is None else f"{text} Default: {info.default}."
        if matrix:
            fields[field] = (
                Annotated[tuple[kind, ...], OneOrMany()],
                Field(default=(), description=shown),
            )
        else:
            default = ... if needed else info.default
            fields[field] = (kind, Field(default=default, description=shown))
    return create_model(name, __config__=_CLOSED, __doc__=doc, **fields, **(more or {}))
