"""What of a record becomes its tags, and what `rest` must hold so that nothing of it is lost."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from fleetmark_collector.plain import AnyRecord
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.influxdb.schema import FREE_TAGS, MAX_OPTIONS_TAG, TAGS
from fleetmark_protocol.records import Record
from fleetmark_protocol.values import Scalar


def tags_of(item: Stored[AnyRecord]) -> dict[str, str]:
    """Return the tags of a record, as they are written; one without a value is left out."""
    record = item.record
    values: dict[str, Any] = {"fleet": item.fleet, "device": item.device}
    for name in TAGS[record.kind][2:]:
        value = getattr(record, name)
        values[name] = options_text(value) if name == "options" else value
    return {name: tag_text(value) for name, value in values.items() if value}


def rest_of(record: Record) -> dict[str, Any]:
    """Return what has no exact place elsewhere: the field `rest`, as an object.

    Its keys: `tags` (values that a tag cannot hold exactly), `options` (with their types), `extra`
    and `failure_extra` (fields that this version does not know).
    """
    rest: dict[str, Any] = {}
    values = record.__dict__
    inexact = {
        name: value
        for name in FREE_TAGS
        if name in TAGS[record.kind]
        and (value := values[name]) is not None
        and (not value or tag_text(value) != value)
    }
    if inexact:
        rest["tags"] = inexact
    if values.get("options"):
        rest["options"] = values["options"]
    failure = values.get("failure")
    for name, model in (("extra", record), ("failure_extra", failure)):
        extra = {} if model is None else model.__pydantic_extra__ or {}
        known = {key: value for key, value in extra.items() if value is not None}
        if known:
            rest[name] = known
    return rest


def options_text(options: Mapping[str, Scalar]) -> str:
    """Return options as the tag `options` has them: `context_tokens=512 threads=2`; "" for none."""
    text = " ".join(f"{name}={_option(value)}" for name, value in sorted(options.items()))
    if len(text) <= MAX_OPTIONS_TAG:
        return text
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
    return f"{text[: MAX_OPTIONS_TAG - 9]}~{digest}"


def _option(value: Scalar) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def tag_text(value: str) -> str:
    """Return a value as a tag can hold it on every server: printable, and without backslashes."""
    if value.isprintable() and "\\" not in value and "\ufffd" not in value:
        return value
    return "".join(one if one.isprintable() and one not in "\\\ufffd" else "_" for one in value)
