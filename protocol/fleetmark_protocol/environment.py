"""Reads settings out of environment variables: FLEETMARK_BROKER__PORT is `port` of `broker`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from fleetmark_protocol.errors import ConfigError

PREFIX = "FLEETMARK_"
BETWEEN = "__"


@dataclass(frozen=True)
class Environment:
    """What the environment says.

    Attributes:
        values: nested by table, not validated yet.
        variables: path of each value, and the variable it came from.
    """

    values: dict[str, Any]
    variables: dict[tuple[str, ...], str]

    def variables_of(self, path: tuple[int | str, ...]) -> list[str]:
        """Return the variables that said something about the value or the table at `path`."""
        return [
            name
            for known, name in self.variables.items()
            if all(step == other for step, other in zip(path, known, strict=False))
        ]


def read(kind: type[BaseModel], environ: Mapping[str, str]) -> Environment:
    """Return the settings that are in the environment.

    A variable whose first word is no setting of `kind` is not ours to judge: the agent and the
    collector on one machine share the prefix.

    Args:
        kind: the settings class.
        environ: all variables.

    Raises:
        ConfigError: the value of a list or a table is no JSON.
    """
    found = Environment({}, {})
    # In order of name, so that FLEETMARK_BROKER comes before FLEETMARK_BROKER__PORT, which is
    # the more precise.
    for name in sorted(environ):
        path = tuple(name.removeprefix(PREFIX).lower().split(BETWEEN))
        if not name.startswith(PREFIX) or path[0] not in kind.model_fields:
            continue
        value: Any = environ[name]
        if _is_nested(_annotation(kind, path)):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise ConfigError(
                    f"{name}: {'.'.join(path)}: not JSON: {error}",
                    hint='variables of lists and tables are JSON, such as ["a", "b"]',
                ) from error
        table = found.values
        for step in path[:-1]:
            inner = table.get(step)
            table[step] = table = inner if isinstance(inner, dict) else {}
        table[path[-1]] = value
        found.variables[path] = name
    return found


def _annotation(kind: type[BaseModel], path: tuple[str, ...]) -> Any:
    """Return the type of the setting at `path`, or None where there is none."""
    here: Any = kind
    for step in path:
        info = getattr(here, "model_fields", {}).get(step)
        here = getattr(info, "annotation", None)
    return here


def _is_nested(annotation: Any) -> bool:
    """Whether a value of this type is written as JSON."""
    origin = get_origin(annotation) or annotation
    if origin in (Union, UnionType):
        return any(_is_nested(choice) for choice in get_args(annotation))
    nested = (BaseModel, Mapping, dict, tuple, list, set, frozenset)
    return isinstance(origin, type) and issubclass(origin, nested)
