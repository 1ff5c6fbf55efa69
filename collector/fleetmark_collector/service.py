"""The collector as a process: wires broker, ingest, devices and dispatcher; stops without loss."""

import gc
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Protocol

from fleetmark_collector import datalock
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.ingest import Ingest, Publish, Stats
from fleetmark_collector.monitoring.monitor import Monitor
from fleetmark_collector.mqtt import Bus, stable_client_id
from fleetmark_collector.sinks.base import Reader
from fleetmark_collector.sinks.stores import open_observer, open_reader, open_writer
from fleetmark_protocol import logs, topics
from fleetmark_protocol.errors import ConfigError, ContractError, FleetmarkError, StoreUnavailable
from fleetmark_protocol.version import __version__

GC_THRESHOLDS = (100_000, 20, 100)
"""Objects made before the garbage collector looks for cycles, and how often it looks deeper.

A batch is some 100,000 short-lived objects without a cycle among them; at the interpreter's
default (700) looking through them again and again takes half of ingest's time.
"""

TICK_S = 1.0
LOG_STATS_S = 60.0
FLUSH_S = 5.0
"""How long a shutdown waits for the broker to take the last acknowledgements."""


class Ticker(Protocol):
    """What compares desired and actual state about once a second (the dispatcher)."""

    def tick(self) -> None:
        """Bring the two closer; may publish.

        Raises:
            FleetmarkError: not now; it is called again.
        """

    def on_connect(self) -> None:
        """Publish everything again at the next tick; called from the network thread."""


MakeTicker = Callable[[CollectorSettings, Reader, DeviceRegistry, Publish], Ticker]


def make_dispatcher(
    settings: CollectorSettings, reader: Reader, registry: DeviceRegistry, publish: Publish
) -> Ticker:
    """Return the dispatcher of campaigns."""
    from fleetmark_collector.campaigns.dispatch import Dispatcher

    return Dispatcher(settings.state_file, reader, registry, publish)


def run_collector(
    settings: CollectorSettings,
    make_ticker: MakeTicker = make_dispatcher,
    stop: threading.Event | None = None,
) -> None:
    """Collect until SIGTERM or SIGINT, then write and acknowledge what has come, and return.

    Args:
        settings: all of them.
        make_ticker: makes the dispatcher.
        stop: ends it as a signal would; with it no signal handler is installed, so that it can
            run outside the main thread.

    Raises:
        ConfigError: another collector has this data_dir, or the broker's settings are wrong.
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
    with datalock.held(settings.data_dir):
        _run(settings, make_ticker, stop)


def _run(settings: CollectorSettings, make_ticker: MakeTicker, stop: threading.Event) -> None:
    log = logs.get("collector")
    bus = Bus(settings.broker, stable_client_id(settings.data_dir / "client_id"))
    registry = DeviceRegistry(settings.state_file)
    dead_letters = DeadLetters(settings.dead_letter_file)
    sink = open_writer(settings)
    reader = open_reader(settings)
    observer = open_observer(settings)
    ingest = Ingest(settings.ingest, sink, dead_letters, bus.publish, registry.seen)
    ticker = make_ticker(settings, reader, registry, bus.publish)
    monitor = Monitor(settings, ingest, registry, bus, observer)

    def about_device(topic: str, payload: bytes, retained: bool) -> None:
        try:
            registry.receive(topic, payload, retained)
        except ContractError as error:
            log.warning("message_not_understood", topic=topic, reason=error.message)
            try:
                dead_letters.add(topic, [(error.message, payload)])
            except StoreUnavailable as problem:
                log.error("dead_letter_not_kept", reason=problem.message)

    bus.subscribe(topics.subscription("+", "+", "status"), about_device)
    bus.subscribe(topics.subscription("+", "+", "inventory"), about_device)
    bus.subscribe(topics.subscription("+", "+", "data"), ingest.receive)
    bus.on_connect(ticker.on_connect)
    log.info("collector_started", version=__version__, data_dir=str(settings.data_dir))
    ingest.start()
    bus.start()
    monitor.start()
    try:
        _work(ingest, registry, ticker, stop)
        if ingest.failure is not None:
            raise ingest.failure
    finally:
        monitor.stop()
        # Without a writer nothing is acknowledged, so this order loses nothing.
        ingest.stop()
        if not bus.flush(FLUSH_S):
            log.info("last_acks_not_sent", hint="agents send those records again; nothing is lost")
        bus.stop()
        _quietly(log.warning, registry.flush, registry.rest)
        registry.close()
        reader.close()
        sink.close()
        if observer is not None:
            observer.close()
        log.info("collector_stopped", **asdict(ingest.stats()))


def _work(ingest: Ingest, registry: DeviceRegistry, ticker: Ticker, stop: threading.Event) -> None:
    """Tick, beat and count until told to stop or until the writer gives up."""
    log = logs.get("collector")
    logged, logged_s = Stats(), time.monotonic()
    trouble = ""
    while not stop.wait(TICK_S) and ingest.failure is None:
        stats = ingest.stats()
        try:
            ticker.tick()
            registry.flush()
            registry.beat(time.time_ns(), asdict(stats))
            trouble = ""
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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
