"""One simulated device's connection: a paho client without a thread, driven by the loop.

Connecting is the one thing that paho does only by waiting (for the network and for TLS), so a few
threads do it for all devices; whatever comes after is the loop's.
"""

import random
import selectors
import socket
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, cast

import paho.mqtt.client as mqtt

from fleetmark_agent.brokerclient import RECONNECT_MIN_S, make_client, reconnect_max_s
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.conversation import Conversation
from fleetmark_agent.simulation.loop import Loop
from fleetmark_protocol import logs


@dataclass
class Network:
    """What the connections of one process share.

    Attributes:
        executor: runs what waits.
        accepted: connections that the broker took, since the start.
        trouble: what went wrong last, until a connection succeeds; said once in the log.
    """

    loop: Loop
    executor: Executor
    accepted: int = 0
    trouble: str | None = None

    def complain(self, trouble: str) -> None:
        """Say what is wrong, once for all devices."""
        if trouble != self.trouble:
            self.trouble = trouble
            logs.get("simulation").error("not_connected", reason=trouble)


class Connection:
    """Stays connected from `open` to `cut` or `close`, as an agent's link does."""

    def __init__(self, settings: AgentSettings, network: Network, rng: random.Random) -> None:
        """Prepare; see `bind` for who speaks over it.

        Args:
            settings: who the device is, where the broker is.
            network: shared with the other devices.
            rng: spreads reconnections.

        Raises:
            ConfigError: a certificate or password file cannot be read.
        """
        self._network = network
        self._loop = network.loop
        self._max_delay_s = reconnect_max_s(rng)
        self._delay_s = 0
        self._wanted = False
        self._connecting = False
        self._retrying = False
        self._dirty = False
        self._talk: Conversation | None = None
        self._last: mqtt.MQTTMessageInfo | None = None
        self._client = make_client(settings)
        broker = settings.broker
        self._client.connect_async(broker.host, broker.port, keepalive=broker.keepalive_s)
        self._client.on_connect = self._answered
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._received
        self._client.on_socket_close = self._closing

    def bind(self, talk: Conversation) -> None:
        """Let a conversation use this connection."""
        self._talk = talk
        topic, payload = talk.will()
        self._client.will_set(topic, payload, qos=1, retain=True)

    def open(self) -> None:
        """Connect, and again whenever the connection is lost."""
        self._wanted = True
        self._connect()

    def cut(self) -> None:
        """Lose the connection as a device without power does, and stay away."""
        self._wanted = False
        sock = self._socket()
        if sock is not None and not self._connecting:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                # The other side was first; the loop will hear of it.
                return

    def close(self) -> None:
        """Disconnect as one should; the loop must go round until `closed`."""
        self._wanted = False
        if not self._connecting:
            self._client.disconnect()
            self._write_soon()

    @property
    def closed(self) -> bool:
        """Whether there is no connection, nor one being made."""
        return not self._connecting and self._client.socket() is None

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> mqtt.MQTTMessageInfo:
        """Hand a message to the client, at QoS 1."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        self._last = info
        if self._client.want_write():
            self._write_soon()
        return info

    @property
    def confirmed(self) -> bool:
        """Whether the broker has confirmed what was published last."""
        try:
            return self._last is None or self._last.is_published()
        except (ValueError, RuntimeError):
            return True  # It was never sent, so nothing is to be waited for.

    def tend(self) -> None:
        """Keep the connection alive; to be called every few seconds."""
        if not self._connecting:
            self._client.loop_misc()

    # --- connecting ----------------------------------------------------------------------------

    def _connect(self) -> None:
        if not self._wanted or self._connecting or self._client.socket() is not None:
            return
        self._connecting = True
        self._network.executor.submit(self._try)

    def _try(self) -> None:
        """Connect, in a thread that may wait; the loop leaves the client alone meanwhile."""
        error: Exception | None = None
        try:
            self._client.reconnect()
        except Exception as problem:  # noqa: BLE001 - whatever it is, the loop must hear of it
            error = problem
        self._loop.from_thread(lambda: self._tried(error))

    def _tried(self, error: Exception | None) -> None:
        self._connecting = False
        sock = self._socket()
        if sock is None:
            if error is not None:
                self._network.complain(f"{type(error).__name__}: {error}")
            self._retry()
            return
        self._loop.watch(sock, self._ready)
        if self._wanted:
            self._write()
        else:
            self.cut()

    def _retry(self) -> None:
        """Try again later, in longer and longer steps, as paho's own thread does."""
        if not self._wanted or self._retrying:
            return
        self._retrying = True
        self._delay_s = min(2 * self._delay_s or RECONNECT_MIN_S, self._max_delay_s)
        self._loop.after(self._delay_s, self._retry_now)

    def _retry_now(self) -> None:
        self._retrying = False
        self._connect()

    # --- the socket ----------------------------------------------------------------------------

    def _socket(self) -> socket.socket | None:
        return cast("socket.socket | None", self._client.socket())

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_READ:
            self._read()
        if mask & selectors.EVENT_WRITE:
            self._client.loop_write()
        self._write()

    def _read(self) -> None:
        self._client.loop_read()
        # What TLS has decrypted already wakes nobody.
        while (pending := getattr(self._client.socket(), "pending", None)) and pending():
            self._client.loop_read()

    def _write_soon(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._loop.soon(self._write)

    def _write(self) -> None:
        """Write what waits; what the network does not take now goes when it does."""
        self._dirty = False
        if self._connecting:
            return
        if self._client.want_write():
            self._client.loop_write()
        sock = self._socket()
        if sock is not None:
            self._loop.want_write(sock, self._client.want_write())

    # --- paho's callbacks, all out of the calls above ------------------------------------------

    def _answered(self, client: mqtt.Client, _data: Any, _flags: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            self._network.complain(f"the broker refused us: {code}")
            return
        self._delay_s = 0
        self._network.accepted += 1
        self._network.trouble = None
        if self._talk is not None:
            client.subscribe(self._talk.subscriptions())
            self._talk.greet()

    def _received(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if self._talk is not None:
            self._talk.received(message.topic, bytes(message.payload))

    def _closing(self, _client: mqtt.Client, _data: Any, sock: Any) -> None:
        self._loop.unwatch(sock)

    def _disconnected(
        self, _client: mqtt.Client, _data: Any, _flags: Any, _code: Any, _props: Any
    ) -> None:
        if self._talk is not None:
            self._talk.lost()
        # Not from within paho's call, which goes on with the old socket.
        self._loop.soon(self._retry)
