"""Why a device does not show up: looks at each step of the way to the broker, and names the first
that fails."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator

from fleetmark_agent.brokerclient import make_client
from fleetmark_agent.brokerprobe import Heard, ask_broker
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.findings import Finding
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import BrokerSettings

BUILT_NS = 1_767_225_600 * 10**9
"""2026-01-01: a clock before it has never been set."""

NO_TLS = "no TLS is spoken there: check broker.port (8883 is usual for TLS, 1883 without)"

# Of OpenSSL's x509_vfy.h, as `SSLCertVerificationError.verify_code` has them.
NOT_YET_VALID, EXPIRED, WRONG_NAME, WRONG_ADDRESS = 9, 10, 62, 64


def examine_broker(
    settings: AgentSettings,
    running_boot_id: str | None = None,
    timeout_s: float = 5.0,
    clock_ns: Callable[[], int] = time.time_ns,
) -> Iterator[Finding]:
    """Yield what stands between this device and its broker; what was found first explains the rest.

    Args:
        settings: who we are, and where the broker is.
        running_boot_id: of the agent that runs here, if one does.
        timeout_s: for each step.
        clock_ns: this device's clock.
    """
    broker = settings.broker
    where = f"broker {broker.host}:{broker.port}"
    now_ns = clock_ns()
    if now_ns < BUILT_NS:
        yield Finding(
            "bad",
            f"clock: it says {_date(now_ns)}",
            "set it (timedatectl; systemd-timesyncd or chrony keep it): certificates and "
            "measurements go by it",
        )
    try:
        # Password and certificate files, before anybody is asked.
        make_client(settings, "-doctor")
        with _reach(broker, timeout_s) as plain:
            _secure(broker, plain)
        heard = ask_broker(settings, timeout_s)
    except ConfigError as error:
        yield Finding("bad", f"{where}: {error.message}", error.hint)
    except ssl.SSLError as error:
        yield Finding("bad", f"{where}: TLS: {_reason(error)}", _tls_hint(error, broker, now_ns))
    except OSError as error:
        yield Finding("bad", f"{where}: {error}", _network_hint(error, broker))
    else:
        yield from _judge(heard, settings, where, running_boot_id)


# --- the network ---------------------------------------------------------------------------------


def _reach(broker: BrokerSettings, timeout_s: float) -> socket.socket:
    """Connect.

    Raises:
        OSError: the name is not known, or nobody answers.
    """
    return socket.create_connection((broker.host, broker.port), timeout_s)


def _network_hint(error: OSError, broker: BrokerSettings) -> str:
    if isinstance(error, socket.gaierror):
        return "check broker.host, and whether this device has a name server (DNS)"
    if isinstance(error, TimeoutError):
        return (
            f"nothing comes back: is the machine on, does a firewall or security group on the way "
            f"let TCP port {broker.port} through, is there a route?"
        )
    if isinstance(error, ConnectionRefusedError):
        return (
            f"the machine is there, but nothing listens on port {broker.port}: is the broker "
            "running (`fleetmark broker`), does it listen to the network, is broker.port right?"
        )
    if isinstance(error, ConnectionResetError):
        return NO_TLS if broker.ca_file else "it hung up: does it expect TLS (broker.ca_file)?"
    return "is this device's network up?"


# --- TLS -----------------------------------------------------------------------------------------


def _secure(broker: BrokerSettings, plain: socket.socket) -> None:
    """Shake hands as the agent would.

    Raises:
        ssl.SSLError: the two do not agree.
        OSError: the connection broke.
    """
    if broker.ca_file is None:
        return
    context = ssl.create_default_context(cafile=str(broker.ca_file))
    if broker.cert_file is not None:
        context.load_cert_chain(broker.cert_file, broker.key_file)
    with context.wrap_socket(plain, server_hostname=broker.host) as secured:
        secured.settimeout(0.3)
        try:
            # What TLS 1.3 has against our own certificate comes after the handshake.
            secured.recv(1)
        except TimeoutError:
            return


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()


def _tls_hint(error: ssl.SSLError, broker: BrokerSettings, now_ns: int) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        clock = f"this device's clock says {_date(now_ns)}: is that right?"
        if error.verify_code == NOT_YET_VALID:
            return f"the broker's certificate begins later; {clock}"
        if error.verify_code == EXPIRED:
            return f"the broker needs a new certificate, unless the clock is wrong; {clock}"
        if error.verify_code in (WRONG_NAME, WRONG_ADDRESS):
            return f"broker.host must be one of the certificate's names; {broker.host!r} is none"
        return f"{broker.ca_file} is not the CA that signed the broker's certificate"
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"):
        return NO_TLS
    if "ALERT" in reason or "CERTIFICATE_REQUIRED" in reason:
        return (
            "the broker does not take this device's certificate (expired, revoked, of another CA, "
            "or none given): check broker.cert_file and key_file"
        )
    return "check broker.ca_file and the port"


def _date(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time_ns // 10**9))


# --- MQTT ----------------------------------------------------------------------------------------


def _judge(
    heard: Heard, settings: AgentSettings, where: str, running_boot_id: str | None
) -> Iterator[Finding]:
    broker = settings.broker
    if heard.refusal is not None:
        yield Finding(
            "bad", f"{where}: it refused us: {heard.refusal}", "check username and password_file"
        )
        return
    if not heard.answered:
        yield Finding(
            "bad",
            f"{where}: no answer",
            "is it an MQTT broker that listens there? Does it expect TLS (broker.ca_file)?",
        )
        return
    yield Finding("ok", f"{where} accepts us{' over TLS' if broker.ca_file else ''}")
    if heard.may_speak is False:
        yield Finding(
            "bad",
            f"{where}: its rules (ACL) do not let {broker.username or 'us'} speak as "
            f"{settings.device_id!r}",
            "the user name must be the device_id, unless the broker has rules of its own",
        )
    if heard.may_speak and running_boot_id and heard.status is None:
        yield Finding(
            "bad",
            f"{where}: what the agent here says of itself does not come back",
            "the broker's rules (ACL) must let a device read its own status, ack and jobs",
        )
    yield from _clash(heard, settings, running_boot_id)


def _clash(heard: Heard, settings: AgentSettings, running_boot_id: str | None) -> Iterator[Finding]:
    """Find another agent of our name: the two throw each other off the broker, again and again."""
    status = heard.status
    if status is None or not status.online or status.boot_id == running_boot_id:
        return
    other = f"an agent {status.agent_version}, started {_date(status.started_ns)}"
    who = f"{settings.fleet}/{settings.device_id}"
    if running_boot_id is not None:
        yield Finding(
            "bad",
            f"device_id: {other}, elsewhere uses {who} as well",
            "give each device a device_id of its own; they throw each other off the broker",
        )
    else:
        yield Finding(
            "warn",
            f"device_id: {other}, is online as {who}, and none runs on this state_dir",
            "if that is another device, give this one a device_id of its own before it starts",
        )
