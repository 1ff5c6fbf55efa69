"""The embedded broker: amqtt, in pure Python, for demos and first steps on one machine."""

import asyncio
import importlib.metadata
import logging
import os
import signal
import sys
from typing import NoReturn

from fleetmark_collector.broker import BrokerOptions
from fleetmark_protocol.errors import BrokerFailed, ConfigError
from fleetmark_protocol.settings import is_loopback


def version() -> str:
    """Return the version of amqtt."""
    return importlib.metadata.version("amqtt")


def check_embedded(options: BrokerOptions) -> None:
    """Refuse what the embedded broker cannot do.

    Raises:
        ConfigError: anything but an open broker on this machine alone.
    """
    guarded = (options.password_file, options.acl_file, options.cert_file)
    if not is_loopback(options.host) or any(file is not None for file in guarded):
        raise ConfigError(
            "the embedded broker serves this machine alone, without passwords or TLS",
            hint="install Mosquitto (`apt install mosquitto`) to serve a network",
        )


def run_embedded(options: BrokerOptions) -> NoReturn:
    """Serve until SIGINT or SIGTERM, then end this process.

    Raises:
        ConfigError: see `check_embedded`.
        BrokerFailed: it cannot listen.
    """
    check_embedded(options)
    # It logs every packet; what it cannot do for us shows as an exception or in doctor.
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    asyncio.run(_serve(options))


async def _serve(options: BrokerOptions) -> NoReturn:
    from amqtt.broker import Broker
    from amqtt.errors import AMQTTError
    from amqtt.session import Session

    class OnlyToSubscribers(Broker):  # type: ignore[misc]
        """Keeps amqtt from greeting every client with everybody's retained messages.

        On each connect it hands the new client what is retained under any filter that anybody has
        subscribed to: an agent would get the jobs of other devices. There is no setting for it.
        """

        async def _publish_retained_messages_for_subscription(
            self, subscription: tuple[str, int], session: Session
        ) -> None:
            holders = self.subscriptions_of(subscription[0])
            if any(holder.client_id == session.client_id for holder in holders):
                await super()._publish_retained_messages_for_subscription(subscription, session)

        def subscriptions_of(self, topic_filter: str) -> list[Session]:
            return [holder for holder, _ in self._subscriptions.get(topic_filter, ())]

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    broker = OnlyToSubscribers(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{options.host}:{options.port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}},
        }
    )
    try:
        await broker.start()
    except AMQTTError as error:
        raise BrokerFailed(f"the embedded broker does not start: {error}") from error
    await stop.wait()
    # There is nothing to save: all it holds is in memory. Its own shutdown waits for ever, as
    # often as not, while a client is connected.
    sys.stdout.flush()
    os._exit(0)
