"""Why a device does not show up: looks at each step of the way to the broker, and names the first
that fails."""

import socket
import time
from collections.abc import Callable, Iterator

from fleetmark_agent.brokerclient import make_client
from fleetmark_agent.brokerprobe import Heard, ask_broker
from fleetmark_agent.centre import refusal_of
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.findings import Finding
from fleetmark_protocol.brokertrouble import date, explain, own_certificate
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.settings import BrokerSettings
from fleetmark_protocol.tls import client_context
from fleetmark_protocol.version import FIRST_VERSION

BUILT_NS = 1_767_225_600 * 10**9
"""2026-01-01: a clock before it has never been set."""


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
            f"clock: it says {date(now_ns)}",
            "set it (timedatectl; systemd-timesyncd or chrony keep it): certificates and "
            "measurements go by it",
        )
    yield from _own_certificate(broker, now_ns)
    try:
        # Password and certificate files, before anybody is asked.
        make_client(settings, "-doctor")
        with _reach(broker, timeout_s) as plain:
            _secure(broker, plain)
        heard = ask_broker(settings, timeout_s)
    except ConfigError as error:
        yield Finding("bad", f"{where}: {error.message}", error.hint)
    except OSError as error:
        trouble = explain(error, broker, now_ns)
        yield Finding("bad", f"{where}: {trouble.reason}", trouble.hint)
    else:
        yield from _judge(heard, settings, where, running_boot_id)


def _own_certificate(broker: BrokerSettings, now_ns: int) -> Iterator[Finding]:
    """Find one that has ended or will soon: then the broker lets us in no more."""
    own = own_certificate(broker)
    if own is None:
        return
    what, renew = "our own certificate", "make a new one in the centre: `fleetmark enroll`"
    clock = f"this machine's clock says {date(now_ns)}: is that right?"
    phase = own.phase(now_ns)
    if phase == "expired":
        yield Finding("bad", f"{what} ended on {date(own.ends_ns)}", f"{renew}; {clock}")
    elif phase == "not yet valid":
        yield Finding("bad", f"{what} begins on {date(own.begins_ns)}", clock)
    else:
        ends = f"{what} ends on {date(own.ends_ns)}, in {own.days_left(now_ns)} days"
        soon = phase == "ends soon"
        yield Finding("warn" if soon else "ok", ends, renew if soon else None)


# --- the network ---------------------------------------------------------------------------------


def _reach(broker: BrokerSettings, timeout_s: float) -> socket.socket:
    """Connect.

    Raises:
        OSError: the name is not known, or nobody answers.
    """
    return socket.create_connection((broker.host, broker.port), timeout_s)


# --- TLS -----------------------------------------------------------------------------------------


def _secure(broker: BrokerSettings, plain: socket.socket) -> None:
    """Shake hands as the agent would.

    Raises:
        ssl.SSLError: the two do not agree.
        OSError: the connection broke.
    """
    context = client_context(broker)
    if context is None:
        return
    with context.wrap_socket(plain, server_hostname=broker.host) as secured:
        secured.settimeout(0.3)
        try:
            # What TLS 1.3 has against our own certificate comes after the handshake.
            secured.recv(1)
        except TimeoutError:
            return


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
    yield Finding("ok", f"{where} accepts us{' over TLS' if broker.uses_tls else ''}")
    if heard.may_speak is False:
        yield Finding(
            "bad",
            f"{where}: its rules (ACL) do not let {broker.username or 'us'} speak as "
            f"{settings.device_id!r} in fleet {settings.fleet!r}",
            "the user name must be the device_id, and the fleet that of its identity "
            "(`fleetmark identities` in the centre), unless the broker has rules of its own",
        )
    if heard.may_speak and running_boot_id and heard.status is None:
        yield Finding(
            "bad",
            f"{where}: what the agent here says of itself does not come back",
            "the broker's rules (ACL) must let a device read its own status, ack and jobs",
        )
    if heard.may_speak:
        yield _collector(heard.collector)
    yield from _clash(heard, settings, running_boot_id)


def _collector(answer: Ack | None) -> Finding:
    """Say whether somebody takes our records: an agent that nobody hears is no device to anyone."""
    if answer is None:
        return Finding(
            "warn",
            "no collector answers there",
            "does one run on the same broker, and can it write? `fleetmark doctor` in the centre",
        )
    reason = refusal_of(answer)
    if reason is not None:
        return Finding(
            "bad",
            f"the collector refuses this agent: {reason}",
            "what is measured waits here until then",
        )
    version = answer.collector_version or FIRST_VERSION
    return Finding("ok", f"a collector, version {version}, takes our records")


def _clash(heard: Heard, settings: AgentSettings, running_boot_id: str | None) -> Iterator[Finding]:
    """Find another agent of our name: the two throw each other off the broker, again and again."""
    status = heard.status
    if status is None or not status.online or status.boot_id == running_boot_id:
        return
    other = f"an agent {status.agent_version}, started {date(status.started_ns)}"
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
