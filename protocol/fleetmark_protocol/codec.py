"""Bytes to messages and back; what cannot be read is said piece by piece, never half-believed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES, Batch, Envelope

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class BadRecord:
    """A piece of a batch that is no record; `seq` is None where not even that could be read."""

    seq: int | None
    reason: str
    raw: str


@dataclass(frozen=True)
class DecodedBatch:
    """What a data message held: the good, and the bad beside it."""

    epoch: str
    records: list[Envelope]
    bad: list[BadRecord] = field(default_factory=list)


def encode(message: BaseModel) -> bytes:
    """Return the message as JSON in UTF-8, absent fields left out."""
    return message.model_dump_json(exclude_none=True).encode()


def encode_batch(epoch: str, items: Iterable[tuple[int, bytes]]) -> bytes:
    """Join records that are encoded already (`seq`, JSON) into a data message.

    The records were validated when they were made; parsing them again for each send would cost a
    Pi more than sending does.
    """
    joined = b",".join(b'{"seq":%d,"record":%s}' % (seq, raw) for seq, raw in items)
    return b'{"epoch":"%s","records":[%s]}' % (epoch.encode(), joined)


def describe(error: ValidationError) -> str:
    """Return the first problems of a validation error in one line, without the input itself."""
    parts = [
        f"{'.'.join(str(step) for step in problem['loc']) or 'message'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)[:3]
    ]
    return "; ".join(parts)


def decode(kind: type[M], payload: bytes) -> M:
    """Return the message.

    Raises:
        ContractError: too large, not UTF-8 JSON, or not what `kind` says.
    """
    _check_size(payload)
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        raise ContractError(f"not a valid {kind.__name__}: {describe(error)}") from error


def decode_batch(payload: bytes) -> DecodedBatch:
    """Return what can be read of a data message, the bad records apart with their reasons.

    Raises:
        ContractError: not even epoch and list of records can be read.
    """
    _check_size(payload)
    try:
        batch = Batch.model_validate_json(payload)
    except ValidationError as error:
        return _salvage(payload, describe(error))
    return DecodedBatch(batch.epoch, list(batch.records))


def _salvage(payload: bytes, reason: str) -> DecodedBatch:
    """Read a batch that failed as a whole record by record."""
    try:
        loose = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"not a valid Batch: {reason}") from error
    items = loose.get("records") if isinstance(loose, dict) else None
    try:
        epoch = Batch.model_validate({**loose, "records": []}).epoch
    except (ValidationError, TypeError) as error:
        raise ContractError(f"not a valid Batch: {reason}") from error
    if not isinstance(items, list):
        raise ContractError(f"not a valid Batch: {reason}")
    good: list[Envelope] = []
    bad: list[BadRecord] = []
    for item in items:
        raw = json.dumps(item)
        try:
            # From JSON text, as the whole batch was: the lax rules of Python input differ.
            good.append(Envelope.model_validate_json(raw))
        except ValidationError as error:
            bad.append(BadRecord(_seq(item), describe(error), raw))
    return DecodedBatch(epoch, good, bad)


def _seq(item: object) -> int | None:
    seq = item.get("seq") if isinstance(item, dict) else None
    return seq if type(seq) is int and 1 <= seq < 2**63 else None


def _check_size(payload: bytes) -> None:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ContractError(f"message of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES}")


def to_ranges(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Fold sequence numbers into sorted, disjoint, inclusive ranges."""
    ranges: list[tuple[int, int]] = []
    for seq in sorted(set(seqs)):
        if ranges and seq == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
    return ranges
