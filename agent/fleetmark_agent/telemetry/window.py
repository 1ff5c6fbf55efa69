"""What was observed during one trial or load: kept in memory, told when it is over."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleetmark_agent.telemetry.base import POWER_FIELD, EnergySource
from fleetmark_agent.telemetry.counters import Counters, between
from fleetmark_agent.telemetry.power import Reading, energy_j
from fleetmark_agent.telemetry.process import ProcessTree
from fleetmark_agent.telemetry.sample import Sample
from fleetmark_agent.telemetry.throttle import first_change
from fleetmark_agent.timing import percentile

MAX_HELD_SAMPLES = 2000
"""Samples kept for telemetry; of a longer window every second, fourth, ... one is."""

_SERIES = (
    "cpu_percent",
    "backend_cpu_percent",
    "cpu_freq_hz",
    "temperature_c",
    "mem_used_percent",
    "rss_bytes",
    "rss_file_bytes",
    "pss_bytes",
    "agent_rss_bytes",
    "throttled",
    "throttled_bits",
)
_PEAKS = {
    "cpu_percent": "cpu_percent_max",
    "backend_cpu_percent": "backend_cpu_percent_max",
    "temperature_c": "temperature_c_max",
    "mem_used_percent": "mem_used_percent_max",
}
_BYTE_PEAKS = ("rss_bytes", "rss_file_bytes", "pss_bytes", "agent_rss_bytes")


@dataclass(frozen=True)
class Window:
    """A window that is over.

    Attributes:
        before: the sample just before it; its rates are since the one before that, and absent
            where another window had only just closed.
        opened: counters at its start.
        closed: counters at its end.
        series: what the samples said, by the name of a telemetry field; all of them.
        samples: how many were taken, the closing one included.
        energy_source: where the power is from; None where the machine tells none.
        power: readings within the window, in watts.
    """

    before: Sample
    opened: Counters
    closed: Counters
    series: Mapping[str, Sequence[float]]
    samples: int
    energy_source: EnergySource | None = None
    power: Sequence[Reading] = ()

    @property
    def duration_s(self) -> float:
        """On the monotonic clock."""
        return (self.closed.mono_ns - self.opened.mono_ns) / 1e9

    @property
    def clock_step_s(self) -> float:
        """By how much the wall clock was set meanwhile; slow corrections (NTP) do not count."""
        offset_ns = self.closed.time_ns - self.closed.mono_ns
        return (offset_ns - (self.opened.time_ns - self.opened.mono_ns)) / 1e9

    @property
    def cpu_freq_hz_max(self) -> float | None:
        """The highest sample; None where the machine does not say."""
        return max(self.series["cpu_freq_hz"], default=None)

    @property
    def throttled_change(self) -> tuple[int, int] | None:
        """The throttling bits before and after they first changed; twice the same if never.

        Where there are no bits but only a 0 or 1, both within the window are a change, and so is a
        1 where the sample before had 0. A 1 in the sample before is none by itself: an x86
        processor's counts tell with it of a time that ended there. None where neither is known.
        """
        bits = [int(one) for one in self.series["throttled_bits"]]
        if bits:
            before = self.before.values.get("throttled_bits")
            return first_change([before, *bits] if isinstance(before, int) else bits)
        throttled = {int(one) for one in self.series["throttled"]}
        if 1 in throttled and self.before.values.get("throttled") == 0:
            throttled.add(0)
        return (min(throttled), max(throttled)) if throttled else None

    @property
    def throttled_throughout(self) -> bool | None:
        """Whether every sample found the machine throttled; None where it does not say."""
        throttled = self.series["throttled"]
        return min(throttled) == 1 if throttled else None

    @property
    def energy_j(self) -> float | None:
        """What the machine drew from beginning to end; None where that was not observed.

        A meter that left out a sample gives none; a counter loses nothing by it.
        """
        if self.energy_source is None:
            return None
        if self.energy_source == "meter" and len(self.power) < self.samples:
            return None
        before = self.before.values.get(POWER_FIELD)
        opened_ns = self.opened.mono_ns
        opened = (opened_ns, before) if isinstance(before, float) else opened_ns
        return energy_j(self.energy_source, opened, self.power, self.closed.mono_ns)

    def summary(self) -> dict[str, float | int | str]:
        """Return the window under the names of a trial record, as far as it was observed.

        Means of CPU and steal, swap-in and the agent's CPU come from counters and are exact; energy
        is as exact as its source;
        percentiles, peaks and the mean of memory come from the samples.
        """
        fields: dict[str, float | int | str] = {"samples": self.samples}
        energy = self.energy_j
        if energy is not None and self.energy_source is not None:
            fields["energy_j"] = energy
            fields["energy_source"] = self.energy_source
        for name, field in _PEAKS.items():
            if self.series[name]:
                fields[field] = max(self.series[name])
        for name in _BYTE_PEAKS:
            if self.series[name]:
                fields[name] = int(max(self.series[name]))
        for name in ("cpu_percent", "backend_cpu_percent"):
            p95 = percentile(self.series[name], 95)
            if p95 is not None:
                fields[f"{name}_p95"] = p95
        if self.series["cpu_freq_hz"]:
            fields["cpu_freq_hz_min"] = min(self.series["cpu_freq_hz"])
        used = self.series["mem_used_percent"]
        if used:
            fields["mem_used_percent_mean"] = sum(used) / len(used)
        return fields | between(self.opened, self.closed)


class OpenWindow:
    """A window under way."""

    def __init__(
        self,
        job_id: str | None,
        trial_id: str | None,
        tree: ProcessTree,
        before: Sample,
        opened: Counters,
        energy_source: EnergySource | None = None,
    ) -> None:
        """Start with the sample just before it and the counters of its beginning."""
        self.job_id = job_id
        self.trial_id = trial_id
        self.tree = tree
        self.held: list[Sample] = []
        self._before = before
        self._opened = opened
        self._series = {name: array("d") for name in _SERIES}
        self._samples = 0
        self._every = 1
        self._energy_source = energy_source
        self._power: list[Reading] = []

    def add(self, sample: Sample) -> None:
        """Take a sample in."""
        for name, series in self._series.items():
            value = sample.values.get(name)
            if value is not None and not isinstance(value, tuple):
                series.append(value)
        watts = sample.values.get(POWER_FIELD)
        if isinstance(watts, int | float):
            self._power.append((sample.mono_ns, float(watts)))
        if self._samples % self._every == 0:
            self.held.append(sample)
        self._samples += 1
        if len(self.held) > MAX_HELD_SAMPLES:
            self.held = self.held[::2]
            self._every *= 2

    def close(self, closed: Counters) -> Window:
        """Return the window, with the counters of its end."""
        return Window(
            self._before,
            self._opened,
            closed,
            self._series,
            self._samples,
            self._energy_source,
            self._power,
        )
