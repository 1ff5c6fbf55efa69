"""Reads data messages at a third of the price: telemetry checked as ever, but left as values.

Nearly all records are telemetry, and ingest only passes them on: it needs no `TelemetryRecord` of
each. A message of nothing but telemetry is read by a faster parser, under the rules that the
record itself states. Whatever that one does not take (another kind, a field that this version does
not know, anything wrong) is read by `codec.decode_batch`, so the outcome is always the codec's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta
from pydantic import TypeAdapter, ValidationError

from fleetmark_protocol import codec
from fleetmark_protocol.ids import JobId, TrialId, Uuid
from fleetmark_protocol.messages import MAX_BATCH_RECORDS, MAX_PAYLOAD_BYTES
from fleetmark_protocol.records import Record, TelemetryRecord
from fleetmark_protocol.values import Label


class PlainTelemetry(msgspec.Struct, frozen=True):
    """A sample whose values are valid; what a device did not observe is None.

    It has the fields of a `TelemetryRecord`, in the order of `TELEMETRY_FIELDS`.
    """

    kind: Literal["telemetry"]
    time_ns: int

    def record(self) -> TelemetryRecord:
        """Make the record of it."""
        return TelemetryRecord.model_validate(msgspec.to_builtins(self), strict=True)

    def as_json(self) -> bytes:
        """Return the JSON of the record."""
        return msgspec.json.encode(self)


AnyRecord = Record | PlainTelemetry


@dataclass(frozen=True)
class PlainBatch:
    """What a data message held, as in `codec.DecodedBatch`; `seqs` goes with `records`."""

    epoch: str
    seqs: list[int]
    records: list[AnyRecord]
    bad: list[codec.BadRecord] = field(default_factory=list)
    agent_version: str | None = None


def decode_batch(payload: bytes) -> PlainBatch:
    """Return what can be read of a data message; see `codec.decode_batch`.

    Raises:
        ContractError: not even epoch and list of records can be read, or there are too many.
    """
    return _telemetry_only(payload) or _anything(payload)


def _anything(payload: bytes) -> PlainBatch:
    decoded = codec.decode_batch(payload)
    return PlainBatch(
        decoded.epoch,
        [one.seq for one in decoded.records],
        [one.record for one in decoded.records],
        decoded.bad,
        decoded.agent_version,
    )


def _telemetry_only(payload: bytes) -> PlainBatch | None:
    """Return a message of lawful telemetry; None where it is anything else."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        return None
    try:
        batch = _DECODER.decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    seqs = [item.seq for item in batch.records]
    records = [item.record for item in batch.records]
    if len(set(seqs)) < len(seqs) or not _lawful("epoch", batch.epoch):
        return None
    version = batch.agent_version
    if version is not None and not _lawful("agent_version", version):
        return None
    for name in _TEXTS_OF_TELEMETRY:
        # Few are there, most often one: each is looked at once for all records.
        for text in {getattr(record, name) for record in records}:
            if text is not None and not _lawful(name, text):
                return None
    return PlainBatch(batch.epoch, seqs, records, agent_version=version)


_LONGEST = 256


def _lawful(name: str, text: str) -> bool:
    """Whether a text is what the field of this name takes."""
    # What is too long anyway is not worth remembering, nor would so much fit.
    return len(text) <= _LONGEST and _looked_at(name, text)


@lru_cache(maxsize=100_000)
def _looked_at(name: str, text: str) -> bool:
    # The same few come again and again.
    try:
        _TEXTS[name].validate_python(text, strict=True)
    except ValidationError:
        return False
    return True


_TEXTS_OF_TELEMETRY: dict[str, TypeAdapter[str]] = {
    "boot_id": TypeAdapter(Uuid),
    "job_id": TypeAdapter(JobId),
    "trial_id": TypeAdapter(TrialId),
}
_TEXTS: dict[str, TypeAdapter[str]] = {
    "epoch": TypeAdapter(Uuid),
    "agent_version": TypeAdapter(Label),
    **_TEXTS_OF_TELEMETRY,
}
"""Texts of a message and of a sample: a pattern is checked once for each of them."""


def _telemetry() -> type[PlainTelemetry]:
    """Return the faster parser's idea of a sample, made of the schema that the record states."""
    # `kind` not as the parser's own tag of a struct: that one may be left out.
    required: list[tuple[str, Any]] = []
    optional = []
    for name, schema in TelemetryRecord.model_json_schema()["properties"].items():
        if name == "kind":
            continue
        kinds = [one for one in schema.get("anyOf", [schema]) if one["type"] != "null"]
        (kind,) = (_kind(name, one) for one in kinds)
        if TelemetryRecord.model_fields[name].is_required():
            required.append((name, kind))
        elif {"type": "null"} in schema["anyOf"] and schema["default"] is None:
            optional.append((name, kind | None, None))
        else:
            raise TypeError(f"{name}: absent, it is not None: teach plain.py")
    made = msgspec.defstruct(
        "Telemetry",
        [*required, *optional],
        bases=(PlainTelemetry,),
        frozen=True,
        module=__name__,
        forbid_unknown_fields=True,
        omit_defaults=True,
        repr_omit_defaults=True,
        gc=False,
    )
    return cast(type[PlainTelemetry], made)


def _kind(name: str, schema: Mapping[str, Any]) -> Any:
    """Return the type with the bounds of a JSON Schema.

    Raises:
        TypeError: it states something that nobody has thought of here.
    """
    stated = {key: value for key, value in schema.items() if key not in ("title", "default")}
    found: Any
    match stated.pop("type"):
        case "array":
            items: Any = _kind(name, stated.pop("items"))
            found = Annotated[tuple[items, ...], Meta(max_length=stated.pop("maxItems"))]
        case "number":
            least, most = stated.pop("minimum", None), stated.pop("maximum", None)
            found = Annotated[float, Meta(ge=least, le=most)]
        case "integer":
            beyond = stated.pop("exclusiveMaximum", None)
            most = stated.pop("maximum") if beyond is None else int(beyond) - 1
            found = Annotated[int, Meta(ge=int(stated.pop("minimum")), le=int(most))]
        case "string" if stated.pop("pattern") == _TEXTS[name].json_schema()["pattern"]:
            found = str
        case kind:
            raise TypeError(f"{name}: no rule for {kind}: teach plain.py")
    if stated:
        raise TypeError(f"{name}: no rule for {stated}: teach plain.py")
    return found


def _decoder(telemetry: type[PlainTelemetry]) -> Any:
    seq = Annotated[int, Meta(ge=1, le=2**63 - 1)]
    item: Any = msgspec.defstruct(
        "Item",
        [("seq", seq), ("record", telemetry)],
        forbid_unknown_fields=True,
        gc=False,
    )
    records = Annotated[list[item], Meta(max_length=MAX_BATCH_RECORDS)]
    # An unknown field of a message is ignored, and that goes the longer way as well.
    batch = msgspec.defstruct(
        "Batch",
        [("epoch", str), ("records", records), ("agent_version", str | None, None)],
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(batch)


_TELEMETRY = _telemetry()
_DECODER = _decoder(_TELEMETRY)

TELEMETRY_FIELDS = _TELEMETRY.__struct_fields__
"""Names of the values of a sample, in the order of `msgspec.structs.astuple`."""
