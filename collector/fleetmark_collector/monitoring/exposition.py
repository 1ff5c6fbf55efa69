"""What the collector counts, in Prometheus's names and format."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.monitoring.observations import Snapshot
from fleetmark_collector.tally import Stats, WriteTimes
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.version import __version__


@dataclass(frozen=True)
class Facts:
    """All that is told, as it is at one moment; `snapshot` is None before the first look."""

    stats: Stats
    write_times: WriteTimes
    connected: bool
    snapshot: Snapshot | None


def make_standby_registry() -> CollectorRegistry:
    """Return what a scrape reads of a collector that waits: that it does, and how it is."""
    registry = CollectorRegistry()
    registry.register(_Standby())
    ProcessCollector(registry=registry)
    return registry


def make_registry(facts: Callable[[], Facts]) -> CollectorRegistry:
    """Return what a scrape reads.

    Args:
        facts: asked at each scrape; must be quick.
    """
    registry = CollectorRegistry()
    registry.register(_Fleetmark(facts))
    # CPU, memory, open files and start time of this process, under the usual names.
    ProcessCollector(registry=registry)
    return registry


class _Standby:
    """Makes what a collector that waits has to tell."""

    def collect(self) -> Iterable[Metric]:
        """Yield it."""
        yield _leads(False)
        yield _build()


class _Fleetmark:
    """Makes the metrics at each scrape from what is counted anyway."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        """Yield everything that is known now."""
        now = self._facts()
        yield _leads(True)
        yield from _ingest(now.stats)
        yield _write_times(now.write_times)
        yield _gauge(
            "fleetmark_broker_connected",
            "Whether the broker has the collector (1) or not (0).",
            now.connected,
        )
        if now.snapshot is not None:
            yield from _fleet(now.snapshot)
        yield _build()


def _leads(leads: bool) -> Metric:
    text = "Whether this collector leads (1), or waits for the one that does (0)."
    return _gauge("fleetmark_collector_leader", text, leads)


def _build() -> Metric:
    return InfoMetricFamily(
        "fleetmark_build", "The version that runs.", value={"version": __version__}
    )


def _ingest(stats: Stats) -> Iterable[Metric]:
    counters = {
        "fleetmark_messages_received": ("Data messages received.", stats.messages),
        "fleetmark_messages_dropped": (
            "Data messages not taken because the queue was full, or because their device sends "
            "too much that is not understood; their agents send them again.",
            stats.messages_dropped,
        ),
        "fleetmark_messages_refused": (
            "Data messages of agents whose version does not go with the collector's; they keep "
            "their records.",
            stats.messages_refused,
        ),
        "fleetmark_records_written": (
            "Records durably written and acknowledged, repeated deliveries included.",
            stats.records_written,
        ),
        "fleetmark_records_deferred": (
            "Times a record was left to its agent because the store did not take it then.",
            stats.records_deferred,
        ),
    }
    for name, (text, value) in counters.items():
        yield CounterMetricFamily(name, text, value=value)
    letters = CounterMetricFamily(
        "fleetmark_dead_letters",
        "What could not be understood: whole messages, and single records.",
        labels=["kind"],
    )
    letters.add_metric(["message"], stats.messages_dead)
    letters.add_metric(["record"], stats.records_dead)
    yield letters
    yield _gauge(
        "fleetmark_queue_messages", "Data messages that wait to be written.", stats.queue_messages
    )
    yield _gauge(
        "fleetmark_ingest_lag_seconds",
        "Since the oldest message that waits arrived; 0 when none waits.",
        stats.lag_s,
    )
    yield _gauge(
        "fleetmark_store_available",
        "Whether the store takes records (1), or a write is being tried again (0).",
        stats.store_available,
    )


def _write_times(times: WriteTimes) -> Metric:
    return HistogramMetricFamily(
        "fleetmark_store_write_seconds",
        "How long writes took that the store accepted, in whole or in part.",
        buckets=[(_bound(bound), count) for bound, count in times.counts.items()],
        sum_value=times.total_s,
    )


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == math.inf else str(seconds)


def _fleet(snapshot: Snapshot) -> Iterable[Metric]:
    yield _gauge("fleetmark_devices_known", "Devices ever heard of.", snapshot.devices_known)
    yield _gauge(
        "fleetmark_devices_online",
        "Devices whose last status says that they are there.",
        snapshot.devices_online,
    )
    campaigns = GaugeMetricFamily(
        "fleetmark_campaigns", "Campaigns by state, all of them.", labels=["state"]
    )
    for campaign_state in CampaignState:
        campaigns.add_metric([campaign_state.value], snapshot.campaigns.get(campaign_state, 0))
    yield campaigns
    jobs = GaugeMetricFamily(
        "fleetmark_jobs", "Jobs of the campaigns that run, by state.", labels=["state"]
    )
    for state in JobState:
        jobs.add_metric([state.value], snapshot.jobs.get(state, 0))
    yield jobs


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))
