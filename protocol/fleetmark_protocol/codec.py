"""Bytes to messages and back; what cannot be read is said piece by piece, never half-believed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.messages import MAX_BATCH_RECORDS, MAX_PAYLOAD_BYTES, Batch, Envelope
from fleetmark_protocol.version import __version__, objection

M = TypeVar("M", bound=BaseModel)

_MANY_PROBLEMS = 100
_MAX_REASON = 500


@dataclass(frozen=True)
class BadRecord:
    """A piece of a batch that is no record; `seq` is None if unreadable or another's."""

    seq: int | None
    reason: str
    raw: str


@dataclass(frozen=True)
class DecodedBatch:
    """What a data message held: the good, and the bad beside it."""

    epoch: str
    records: list[Envelope]
    bad: list[BadRecord] = field(default_factory=list)
    agent_version: str | None = None
    """As the sender says; see `version.objection`."""


def encode(message: BaseModel) -> bytes:
    """Return the message as JSON in UTF-8, absent fields left out.

    Raises:
        ContractError: larger than a message may be; the other side would refuse it.
    """
    payload = message.model_dump_json(exclude_none=True).encode()
    _check_size(payload)
    return payload


def encode_batch(
    epoch: str, items: Iterable[tuple[int, bytes]], agent_version: str = __version__
) -> bytes:
    """Join records that are encoded already (`seq`, JSON) into a data message.

    The records were validated when they were made; parsing them again for each send would cost a
    Pi more than sending does.
    """
    joined = b",".join(b'{"seq":%d,"record":%s}' % (seq, raw) for seq, raw in items)
    version = json.dumps(agent_version).encode()
    return b'{"epoch":"%s","agent_version":%s,"records":[%s]}' % (epoch.encode(), version, joined)


def describe(error: ValidationError) -> str:
    """Return the first problems of a validation error in one short line, without the input itself.

    The line is fit for a log: names of fields are the sender's words, so it is cut and stripped
    of control characters.
    """
    if error.error_count() > _MANY_PROBLEMS:
        # Pydantic can only list all of them, and somebody may have sent a hundred thousand.
        return f"{error.error_count()} problems"
    parts = [
        f"{'.'.join(str(step)[:80] for step in problem['loc']) or 'message'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)[:3]
    ]
    line = "; ".join(parts)[:_MAX_REASON]
    return "".join(char if char.isprintable() else "?" for char in line)


def decode(kind: type[M], payload: bytes) -> M:
    """Return the message.

    Raises:
        ContractError: too large, not UTF-8 JSON, or not what `kind` says.
    """
    _check_size(payload)
    try:
        return kind.model_validate_json(payload, strict=True)
    except ValidationError as error:
        raise ContractError(f"not a valid {kind.__name__}: {describe(error)}") from error


def decode_batch(payload: bytes) -> DecodedBatch:
    """Return what can be read of a data message, the bad records apart with their reasons.

    No `seq` comes twice in the result: of records that claim the same one the first counts, and
    the others are bad without a `seq`, so that acknowledging the bad frees none of the good.

    Of a sender that does not go with this version, what cannot be read at all is none the less a
    batch, without records: it may be a lawful one where it comes from.

    Raises:
        ContractError: not even epoch and list of records can be read, or there are too many.
    """
    _check_size(payload)
    try:
        batch = Batch.model_validate_json(payload, strict=True)
    except ValidationError as error:
        return _salvage(payload, describe(error))
    if len({envelope.seq for envelope in batch.records}) < len(batch.records):
        return _salvage(payload, "a seq comes twice")
    return DecodedBatch(batch.epoch, list(batch.records), agent_version=batch.agent_version)


def _salvage(payload: bytes, reason: str) -> DecodedBatch:
    """Read a batch that failed as a whole record by record."""
    try:
        loose = json.loads(payload)
        head = Batch.model_validate({**loose, "records": ()}, strict=True)
        epoch, agent_version = head.epoch, head.agent_version
    except (ValueError, TypeError, RecursionError) as error:
        raise ContractError(f"not a valid Batch: {reason}") from error
    try:
        texts = [(item, json.dumps(item)) for item in _items(loose)]
    except (ValueError, TypeError, RecursionError) as error:
        if objection(agent=agent_version, collector=__version__):
            return DecodedBatch(epoch, [], agent_version=agent_version)
        raise ContractError(f"not a valid Batch: {reason}") from error
    good: dict[int, Envelope] = {}
    bad: list[BadRecord] = []
    for item, raw in texts:
        try:
            # From JSON text, as the whole batch was: the rules of Python input differ.
            envelope = Envelope.model_validate_json(raw, strict=True)
        except ValidationError as error:
            bad.append(BadRecord(_seq(item), describe(error), raw))
            continue
        if good.setdefault(envelope.seq, envelope) is not envelope:
            bad.append(BadRecord(None, f"seq {envelope.seq} came before in this batch", raw))
    claimed = set(good)
    for index, piece in enumerate(bad):
        if piece.seq in claimed:
            bad[index] = replace(piece, seq=None)
        elif piece.seq is not None:
            claimed.add(piece.seq)
    return DecodedBatch(epoch, list(good.values()), bad, agent_version)


def _items(loose: object) -> list[object]:
    """Return the records of a loosely parsed batch.

    Raises:
        ValueError: there is no list of them, or it is too long.
    """
    items = loose.get("records") if isinstance(loose, dict) else None
    if not isinstance(items, list) or len(items) > MAX_BATCH_RECORDS:
        raise ValueError("no list of records, or too many")
    return items


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
