"""Hypothesis strategies made from the wire models themselves, so that a new field is tested too."""

import types
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fleetmark_protocol.messages import SeqRange
from fleetmark_protocol.values import NO_NUL

JSON_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
JSON_VALUES = st.recursive(
    JSON_SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
"""Any JSON value; numbers as hostile as JSON allows come from the tests that name them."""

EXTRAS = st.dictionaries(
    st.from_regex(r"x_[a-z0-9_]{1,12}", fullmatch=True),
    st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    max_size=4,
)
"""Fields that a newer agent might add to a record."""


def instances(kind: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Return lawful instances of a model, optional fields present or absent."""
    required, optional = {}, {}
    for name, info in kind.model_fields.items():
        strategy = _of(info.annotation, info.metadata)
        (required if info.is_required() else optional)[name] = strategy
    return st.fixed_dictionaries(required, optional=optional).map(kind.model_validate)


def _of(annotation: Any, metadata: Iterable[Any]) -> st.SearchStrategy[Any]:
    """Return values of an annotation within its constraints."""
    limits = _limits(metadata)
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation == SeqRange:
        bound = st.integers(min_value=1, max_value=2**63 - 1)
        return st.tuples(bound, bound).map(lambda pair: (min(pair), max(pair)))
    if origin is Annotated:
        return _of(args[0], [*args[1:], *metadata])
    if origin in (Union, types.UnionType):
        return st.one_of(*(_of(arg, metadata) for arg in args))
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[-1] is ...:
        low = limits.get("min_length", 0)
        return st.lists(_of(args[0], ()), min_size=low, max_size=low + 3).map(tuple)
    if origin is tuple:
        return st.tuples(*(_of(arg, ()) for arg in args))
    if origin is dict:
        return st.dictionaries(_of(args[0], ()), _of(args[1], ()), max_size=3)
    return _plain(annotation, limits)


def _plain(kind: Any, limits: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind is type(None):
        return st.none()
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(limits.get("ge"), limits["lt"] - 1 if "lt" in limits else limits["le"])
    if kind is float:
        return st.floats(
            min_value=limits.get("ge", limits.get("gt")),
            max_value=limits.get("le"),
            exclude_min="gt" in limits,
            allow_nan=False,
            allow_infinity=False,
        )
    if kind is str:
        return _text(limits)
    if issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    if issubclass(kind, BaseModel):
        return instances(kind)
    raise TypeError(f"no strategy for {kind!r}: teach tests/strategies.py")


def _text(limits: dict[str, Any]) -> st.SearchStrategy[str]:
    pattern = limits.get("pattern")
    if pattern is None or pattern == NO_NUL:
        alphabet = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
        return st.text(alphabet, max_size=min(limits.get("max_length", 30), 30))
    # `$` would let Python's own regex put a newline at the end.
    return st.from_regex(pattern.removesuffix("$"), fullmatch=True).filter(
        lambda text: "\0" not in text and text.isprintable()
    )


def _limits(metadata: Iterable[Any]) -> dict[str, Any]:
    """Collect ge, le, lt, pattern, ... from whatever pydantic keeps them in."""
    found: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found.update(_limits(item.metadata))
        elif not isinstance(item, type) and isinstance(item, Iterable):
            found.update(_limits(item))
        else:
            values = getattr(item, "__dict__", None) or {
                slot: getattr(item, slot) for slot in getattr(type(item), "__slots__", ())
            }
            found.update({key: value for key, value in values.items() if value is not None})
    return found
