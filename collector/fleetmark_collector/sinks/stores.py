"""Which store the settings name: the only place that knows all of them."""

from collections.abc import Iterator

from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.findings import Finding
from fleetmark_collector.sinks.base import Observer, Reader, Writer
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ConfigError, StoreError, StoreUnavailable


def open_writer(settings: CollectorSettings) -> Writer:
    """Return the store for ingest to write to.

    A server that is not there yet is waited for by whoever writes; one that refuses us is told
    of at once.

    Raises:
        StoreUnavailable: it cannot be opened now.
        StoreError: it can never be, as it is.
        ConfigError: its settings are wrong.
    """
    if settings.store.kind == "influxdb":
        from fleetmark_collector.sinks.influxdb.writing import InfluxSink

        sink = InfluxSink(settings.store.influxdb())
        try:
            sink.connect()
        except StoreUnavailable as error:
            logs.get("store").warning("store_not_found_yet", reason=error.message, hint=error.hint)
        return sink
    from fleetmark_collector.sinks.sqlite import SqliteSink

    return SqliteSink(settings.store_file)


def open_reader(settings: CollectorSettings) -> Reader:
    """Return the store for reports, commands and the dispatcher to read; opens nothing yet.

    Raises:
        ConfigError: the store's settings are wrong.
    """
    if settings.store.kind == "influxdb":
        from fleetmark_collector.sinks.influxdb.reader import InfluxReader

        return InfluxReader(settings.store.influxdb())
    from fleetmark_collector.sinks.sqlite import SqliteReader

    return SqliteReader(settings.store_file)


def open_observer(settings: CollectorSettings) -> Observer | None:
    """Return where the collector's own observations go; None where the store takes none.

    Raises:
        ConfigError: the store's settings are wrong.
    """
    if settings.store.kind == "influxdb":
        from fleetmark_collector.sinks.influxdb.observing import InfluxObserver

        return InfluxObserver(settings.store.influxdb())
    return None


def erase_campaign(settings: CollectorSettings, campaign_id: str) -> dict[str, int]:
    """Delete a campaign's trials, loads and job records; return how many of each there were.

    Raises:
        ConfigError: this store deletes by its own means only.
        StoreError: it cannot be done now.
    """
    if settings.store.kind == "influxdb":
        raise ConfigError(
            "records in InfluxDB are not deleted by fleetmark",
            hint="its own tools delete them, or the bucket's retention does; without --records "
            "the campaign alone is forgotten",
        )
    from fleetmark_collector.sinks import sqlite_erase

    return sqlite_erase.erase_campaign(settings.store_file, campaign_id)


def prepare(settings: CollectorSettings, retention_s: int | None) -> Iterator[str]:
    """Make what the store needs; yield what was done, and what was there.

    Args:
        settings: name the store.
        retention_s: how long records are kept, 0 for ever; None: for ever where this makes it, and
            as it is where it is there.

    Raises:
        ConfigError: the store's settings are wrong, or it does not let us.
        StoreError: it cannot do that.
    """
    if settings.store.kind == "influxdb":
        from fleetmark_collector.sinks.influxdb.admin import prepare as prepare_influxdb

        yield from prepare_influxdb(settings.store.influxdb(), retention_s)
        return
    if retention_s:
        raise ConfigError("the embedded store keeps all records for ever")
    there = settings.store_file.exists()
    open_writer(settings).close()
    yield f"{'there is' if there else 'made'} the embedded store {settings.store_file}"


def examine(settings: CollectorSettings) -> Iterator[Finding]:
    """Yield what is right and what is wrong with the store.

    Raises:
        ConfigError: its settings are wrong.
    """
    if settings.store.kind == "influxdb":
        from fleetmark_collector.sinks.influxdb.admin import examine as examine_influxdb

        yield from examine_influxdb(settings.store.influxdb())
        return
    reader = open_reader(settings)
    try:
        counts = reader.counts()
        text = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        yield Finding("store", "ok", text)
    except StoreError as error:
        yield Finding("store", "missing", error.message, error.hint or "")
    finally:
        reader.close()
