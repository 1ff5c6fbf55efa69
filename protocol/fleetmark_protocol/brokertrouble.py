"""Why the broker cannot be reached, in words that say what to do; the same on a device and in the
centre."""

import socket
import ssl
import time
from dataclasses import dataclass

from fleetmark_protocol.certificate import Validity, read_validity
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import BrokerSettings

NO_TLS = (
    "no TLS is spoken there: check broker.port (8883 is usual for TLS, 1883 without); in a network "
    "that you trust, broker.tls = false speaks none"
)

# Of OpenSSL's x509_vfy.h, as `SSLCertVerificationError.verify_code` has them.
NOT_YET_VALID, EXPIRED, WRONG_NAME, WRONG_ADDRESS = 9, 10, 62, 64


@dataclass(frozen=True)
class Trouble:
    """What went wrong, and what to do about it."""

    reason: str
    hint: str


def explain(error: OSError, broker: BrokerSettings, now_ns: int) -> Trouble:
    """Return what an attempt to connect failed of.

    Args:
        error: what it raised.
        broker: where it went to.
        now_ns: this machine's clock: certificates go by it.
    """
    if isinstance(error, ssl.SSLError):
        return Trouble(f"TLS: {_reason(error)}", _tls_hint(error, broker, now_ns))
    return Trouble(str(error), _network_hint(error, broker))


def explain_hang_up(said: object, broker: BrokerSettings, now_ns: int) -> Trouble:
    """Return why a broker may have hung up before it had us.

    With TLS 1.3 it looks at our certificate when the handshake is over for us.

    Args:
        said: the MQTT client's reason.
        broker: where it went to.
        now_ns: this machine's clock.
    """
    clock = f"this machine's clock says {date(now_ns)}: is that right?"
    if broker.cert_file is not None:
        hint = _refused_certificate(broker, now_ns, clock)
    elif broker.uses_tls:
        hint = "is it an MQTT broker, and does it ask for a certificate (broker.cert_file)?"
    else:
        hint = "is it an MQTT broker, and does it expect TLS (broker.ca_file)?"
    return Trouble(f"it hung up ({said})", hint)


def own_certificate(broker: BrokerSettings) -> Validity | None:
    """Return from when to when our own certificate counts; None where there is none to read."""
    if broker.cert_file is None:
        return None
    try:
        return read_validity("broker.cert_file", broker.cert_file)
    except ConfigError:
        return None


def date(time_ns: int) -> str:
    """Return a moment as messages have it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time_ns // 10**9))


def _network_hint(error: OSError, broker: BrokerSettings) -> str:
    if isinstance(error, socket.gaierror):
        return "check broker.host, and whether this machine has a name server (DNS)"
    if isinstance(error, TimeoutError):
        return (
            f"nothing comes back: is the machine on, does a firewall or security group on the way "
            f"let TCP port {broker.port} through, is there a route?"
        )
    if isinstance(error, ConnectionRefusedError):
        # Other machines are asked for TLS where nobody says, and that is another port.
        unasked = broker.uses_tls and broker.tls is None and broker.ca_file is None
        plain = "; if it speaks no TLS: broker.tls = false" if unasked else ""
        return (
            f"the machine is there, but nothing listens on port {broker.port}: is the broker "
            "running (`fleetmark broker`), does it listen to the network, is broker.port right?"
            f"{plain}"
        )
    if isinstance(error, ConnectionResetError):
        return NO_TLS if broker.uses_tls else "it hung up: does it expect TLS (broker.ca_file)?"
    return "is this machine's network up?"


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()


def _tls_hint(error: ssl.SSLError, broker: BrokerSettings, now_ns: int) -> str:
    clock = f"this machine's clock says {date(now_ns)}: is that right?"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == NOT_YET_VALID:
            return f"the broker's certificate begins later; {clock}"
        if error.verify_code == EXPIRED:
            return f"the broker needs a new certificate, unless the clock is wrong; {clock}"
        if error.verify_code in (WRONG_NAME, WRONG_ADDRESS):
            return f"broker.host must be one of the certificate's names; {broker.host!r} is none"
        if broker.ca_file is None:
            return "no CA that this system believes in signed it: set broker.ca_file"
        return f"{broker.ca_file} is not the CA that signed the broker's certificate"
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"):
        return NO_TLS
    if "ALERT" in reason or "CERTIFICATE_REQUIRED" in reason:
        return _refused_certificate(broker, now_ns, clock)
    return "check broker.ca_file and the port"


def _refused_certificate(broker: BrokerSettings, now_ns: int, clock: str) -> str:
    own = own_certificate(broker)
    phase = None if own is None else own.phase(now_ns)
    if own is not None and phase == "expired":
        return f"our own certificate ended on {date(own.ends_ns)}: it needs a new one; {clock}"
    if own is not None and phase == "not yet valid":
        return f"our own certificate begins on {date(own.begins_ns)}; {clock}"
    return (
        "the broker does not take our certificate (expired, revoked, of another CA, or none "
        "given): check broker.cert_file and key_file"
    )
