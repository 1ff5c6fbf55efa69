"""When a certificate begins and ends, read from its file: a device's own is nobody else's to watch.

The standard library tells the dates of a peer's certificate alone. They stand near the beginning of
every X.509 certificate (RFC 5280, 4.1), so a few steps through its DER lead to them.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fleetmark_protocol.errors import ConfigError

DAY_NS = 86_400 * 10**9
WARN_DAYS = 30
"""So long before a certificate ends, its owner is told."""

_INTEGER, _SEQUENCE, _VERSION = 0x02, 0x30, 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"

Phase = Literal["ok", "ends soon", "expired", "not yet valid"]


@dataclass(frozen=True)
class Validity:
    """From when to when a certificate counts, in nanoseconds since 1970."""

    begins_ns: int
    ends_ns: int

    def phase(self, now_ns: int) -> Phase:
        """Return how it stands at a moment."""
        if now_ns < self.begins_ns:
            return "not yet valid"
        if now_ns > self.ends_ns:
            return "expired"
        return "ends soon" if self.days_left(now_ns) < WARN_DAYS else "ok"

    def days_left(self, now_ns: int) -> int:
        """Return whole days until its end; negative after it."""
        return (self.ends_ns - now_ns) // DAY_NS


def read_validity(field: str, file: Path) -> Validity:
    """Return the dates of the first certificate in a PEM file.

    Args:
        field: the setting that named the file.
        file: where it is.

    Raises:
        ConfigError: it cannot be read, or holds no certificate.
    """
    try:
        text = file.read_text("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"{field}: {file}: {error.strerror or error}") from error
    begin, end = text.find(_BEGIN), text.find(_END)
    if not 0 <= begin < end:
        raise ConfigError(f"{field}: {file} holds no certificate in PEM")
    try:
        return validity(ssl.PEM_cert_to_DER_cert(text[begin : end + len(_END)]))
    except ValueError as error:
        raise ConfigError(f"{field}: {file}: not a certificate ({error})") from error


def validity(der: bytes) -> Validity:
    """Return the dates of a certificate.

    Raises:
        ValueError: it is none.
    """
    certificate, _ = _take(der, _SEQUENCE)
    fields, _ = _take(certificate, _SEQUENCE)
    if fields[:1] == bytes([_VERSION]):
        _, fields = _take(fields, _VERSION)
    _, fields = _take(fields, _INTEGER)  # serial number
    _, fields = _take(fields, _SEQUENCE)  # algorithm of the signature
    _, fields = _take(fields, _SEQUENCE)  # issuer
    dates, _ = _take(fields, _SEQUENCE)
    begins_ns, dates = _take_time(dates)
    ends_ns, _ = _take_time(dates)
    return Validity(begins_ns, ends_ns)


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the content of the element that data begins with, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError("its structure is another one")
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        # More than four bytes of length would be more than any file.
        if not 2 < start <= 6 or len(data) < start:
            raise ValueError("its structure is another one")
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("it is cut short")
    return data[start : start + length], data[start + length :]


def _take_time(data: bytes) -> tuple[int, bytes]:
    tag = data[0] if data else 0
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("its structure is another one")
    content, rest = _take(data, tag)
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        # Two digits of the year: from 1950 to 2049 (RFC 5280, 4.1.2.5.1).
        text = ("19" if text[:2] >= "50" else "20") + text
    when = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return int(when.timestamp()) * 10**9, rest
