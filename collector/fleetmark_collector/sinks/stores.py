"""Which store the settings name: the only place that knows all of them."""

from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.sinks.base import Reader, Writer


def open_writer(settings: CollectorSettings) -> Writer:
    """Return the store for ingest to write to.

    Raises:
        StoreUnavailable: it cannot be opened now.
        StoreError: it can never be, as it is.
    """
    from fleetmark_collector.sinks.sqlite import SqliteSink

    return SqliteSink(settings.store_file)


def open_reader(settings: CollectorSettings) -> Reader:
    """Return the store for reports, commands and the dispatcher to read; opens nothing yet."""
    from fleetmark_collector.sinks.sqlite import SqliteReader

    return SqliteReader(settings.store_file)
