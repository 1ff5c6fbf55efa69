"""The collector as a process: waits to lead, wires all parts, stops or steps down without loss."""

import gc
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Protocol

from fleetmark_collector import datalock, leadership
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.culprits import Culprits
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.ingest import Ingest, Publish, Stats
from fleetmark_collector.lease import Leader, Lease
from fleetmark_collector.monitoring.endpoint import Endpoint
from fleetmark_collector.monitoring.monitor import Monitor
from fleetmark_collector.mqtt import Bus, centre_name, stable_client_id
from fleetmark_collector.reception import Reception
from fleetmark_collector.sinks.base import Reader
from fleetmark_collector.sinks.stores import open_observer, open_reader, open_writer
from fleetmark_collector.sqlitefile import Fence
from fleetmark_collector.supervision import Supervision
from fleetmark_protocol import logs, topics
from fleetmark_protocol.errors import (
    ConfigError,
    FleetmarkError,
    LeadershipLost,
)
from fleetmark_protocol.version import __version__

GC_THRESHOLDS = (100_000, 20, 100)
"""Objects made before the garbage collector looks for cycles, and how often it looks deeper.

A batch is some 100,000 short-lived objects without a cycle among them; at the interpreter's
default (700) looking through them again and again takes half of ingest's time.
"""

SELF_CHANNELS: tuple[topics.Channel, ...] = ("status", "inventory")
"""What devices say of themselves; the broker retains it."""

TICK_S = 1.0
LOG_STATS_S = 60.0
FLUSH_S = 5.0
"""How long a shutdown waits for the broker to take the last acknowledgements."""


class Ticker(Protocol):
    """What compares desired and actual state about once a second (dispatcher and schedules)."""

    def tick(self) -> None:
        """Bring the two closer; may publish.

        Raises:
            FleetmarkError: not now; it is called again.
        """

    def on_connect(self) -> None:
        """Publish everything again at the next tick; called from the network thread."""

    def close(self) -> None:
        """Release what it has opened."""


MakeTicker = Callable[[CollectorSettings, Reader, DeviceRegistry, Publish, Fence], Ticker]


def make_dispatcher(
    settings: CollectorSettings,
    reader: Reader,
    registry: DeviceRegistry,
    publish: Publish,
    fence: Fence,
) -> Ticker:
    """Return the dispatcher of campaigns, and what starts them as scheduled."""
    from fleetmark_collector.campaigns.dispatch import Dispatcher
    from fleetmark_collector.campaigns.firing import Scheduler, Together
    from fleetmark_collector.campaigns.patience import Patience

    patience = Patience(**settings.patience.model_dump())
    dispatcher = Dispatcher(
        settings.state_file,
        reader,
        registry,
        publish,
        patience=patience,
        fence=fence,
        centre=centre_name(settings.data_dir / "client_id"),
        heard=registry.presence.heard,
    )
    return Together(dispatcher, Scheduler(settings.state_file, registry, fence=fence))


def run_collector(
    settings: CollectorSettings,
    make_ticker: MakeTicker = make_dispatcher,
    stop: threading.Event | None = None,
) -> None:
    """Collect until SIGTERM or SIGINT, then write and acknowledge what has come, and return.

    While another collector leads on the same data directory, this one waits to take over.

    Args:
        settings: all of them.
        make_ticker: makes the dispatcher.
        stop: ends it as a signal would; with it no signal handler is installed, so that it can
            run outside the main thread.

    Raises:
        ConfigError: the data_dir is being restored, or the broker's settings are wrong.
        StoreError: the store cannot be opened, or is damaged.
    """
    if stop is None:
        stop = threading.Event()
        _stop_on_signals(stop)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data_dir: {settings.data_dir}: {error.strerror or error}") from error
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    with datalock.shared(settings.data_dir), closing(Lease(settings.state_file)) as lease:
        endpoint = Endpoint(settings.http)
        watched = Supervision(settings.store.timeout_s)
        watched.start()
        waited = threading.Event()

        def standby(leader: Leader) -> None:
            waited.set()
            endpoint.standby(leader)
            watched.ready()

        def alive(leader: Leader | None) -> None:
            watched.waits(leader.pid if leader else None)

        try:
            while leadership.wait_to_lead(lease, stop, standby, alive):
                with leadership.kept(lease):
                    endpoint.open(required=not waited.is_set())
                    _lead(settings, make_ticker, stop, lease, endpoint, watched)
                if stop.is_set():
                    return
                waited.set()
        finally:
            watched.stopping()
            watched.close()
            endpoint.hush()


def _lead(
    settings: CollectorSettings,
    make_ticker: MakeTicker,
    stop: threading.Event,
    lease: Lease,
    endpoint: Endpoint,
    watched: Supervision,
) -> None:
    """Collect until told to stop, or until another has taken over."""
    log = logs.get("collector")
    client_id = stable_client_id(settings.data_dir / "client_id")
    bus = Bus(settings.broker, client_id, mandate=lease)
    registry = DeviceRegistry(settings.state_file, fence=lease.fence)
    dead_letters = DeadLetters(settings.dead_letter_file)
    sink = open_writer(settings)
    reader = open_reader(settings)
    observer = open_observer(settings)
    culprits = Culprits()
    ingest = Ingest(
        settings.ingest, sink, dead_letters, bus.publish, registry.seen, culprits=culprits
    )

    def ask_again() -> None:
        for channel in SELF_CHANNELS:
            bus.ask_again(topics.subscription("+", "+", channel))

    reception = Reception(registry, dead_letters, culprits, ask_again, ingest.relieved)
    reception.look_after()
    ticker = make_ticker(settings, reader, registry, bus.publish, lease.fence)
    monitor = Monitor(settings, ingest, registry, bus, observer, endpoint)

    for channel in SELF_CHANNELS:
        bus.subscribe(topics.subscription("+", "+", channel), reception.receive)
    bus.subscribe(topics.subscription("+", "+", "data"), ingest.receive)
    bus.on_connect(registry.presence.connected)
    bus.on_disconnect(registry.presence.disconnected)
    bus.on_connect(ticker.on_connect)
    log.info("collector_started", version=__version__, data_dir=str(settings.data_dir))
    ingest.start()
    bus.start()
    monitor.start()
    watched.ready()

    def look_after() -> None:
        endpoint.open()
        watched.works(connected=bus.connected, stats=ingest.stats(), working_s=ingest.working_s())

    try:
        _work(ingest, reception, registry, ticker, stop, lease, look_after)
        if ingest.failure is not None:
            raise ingest.failure
    finally:
        if stop.is_set():
            watched.stopping()
        monitor.stop()
        # Without a writer nothing is acknowledged, so this order loses nothing.
        ingest.stop()
        if not bus.flush(FLUSH_S):
            log.info("last_acks_not_sent", hint="agents send those records again; nothing is lost")
        bus.stop()
        if lease.lost:
            log.warning(
                "leadership_lost",
                reason="this process was stopped, or could not renew its lease, for too long",
                hint="another collector goes on; what came in meanwhile is sent again to that one",
            )
        else:
            _quietly(log.warning, registry.flush, registry.rest)
        ticker.close()
        registry.close()
        reader.close()
        if not ingest.hangs:
            sink.close()
        if observer is not None:
            observer.close()
        log.info("collector_stopped", **asdict(ingest.stats()))


def _work(
    ingest: Ingest,
    reception: Reception,
    registry: DeviceRegistry,
    ticker: Ticker,
    stop: threading.Event,
    lease: Lease,
    look_after: Callable[[], None],
) -> None:
    """Tick, beat and count until told to stop, until another leads, or the writer gives up."""
    log = logs.get("collector")
    logged, logged_s = Stats(), time.monotonic()
    trouble = ""
    while not stop.wait(TICK_S) and ingest.failure is None and not lease.lost:
        stats = ingest.stats()
        look_after()
        try:
            reception.look_after()
            ticker.tick()
            registry.flush()
            registry.beat(time.time_ns(), asdict(stats))
            trouble = ""
        except LeadershipLost:
            return
        except FleetmarkError as error:
            # Once for each trouble, not once a second.
            if error.message != trouble:
                trouble = error.message
                log.warning("tick_failed", code=error.code, reason=error.message, hint=error.hint)
        if time.monotonic() - logged_s >= LOG_STATS_S:
            if stats != logged:
                log.info("ingest", **asdict(stats))
            logged, logged_s = stats, time.monotonic()


def _quietly(complain: Callable[..., object], *steps: Callable[[], None]) -> None:
    for step in steps:
        try:
            step()
        except FleetmarkError as error:
            complain("shutdown_step_failed", reason=error.message)


def _stop_on_signals(stop: threading.Event) -> None:
    # An Event's lock may be held by the very thread that a handler interrupts, and `set` would wait
    # for it for ever; the queue's `put` is made for handlers.
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: told.put(got))

    def pass_on() -> None:
        told.get()
        stop.set()

    threading.Thread(target=pass_on, name="signals", daemon=True).start()
