"""What is to be simulated: which devices, how fast, for how long; checked before anything starts.

Everything here follows from the numbers alone, so that several processes share one simulation by
each taking a range of the devices.
"""

from dataclasses import dataclass
from pathlib import Path

from fleetmark_agent.config import AgentSettings
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.ids import is_name

MAX_DEVICES = 100_000
DIGITS = 5
"""Of the number in a device's name: always so many, so that a larger fleet later contains this."""

TAG = "simulated"
"""In the inventory of every simulated device."""

_GOLDEN = 0.618033988749895
"""Multiples of it, modulo 1, fill the unit interval evenly however many there are."""


@dataclass(frozen=True)
class Plan:
    """One process's part of a simulation.

    Attributes:
        total: devices of the whole simulation.
        first: number of this process's first device.
        count: how many this process takes.
        rate_hz: samples per second and device.
        duration_s: how long each device samples; None until told to stop.
        ramp_s: over how long the devices start.
        prefix: of the names, before a dash and the number.
        seed: of all that is made up.
        state_dir: a directory for each device below it.
        flaky: share of the devices whose connection breaks again and again.
        offline_s: how long it stays away each time, on average; it then stays as long.
        drain_s: how long to wait at the end for what is not acknowledged.
        forget: have the centre forget the devices at the end.
        discard: remove the devices' directories at the end.
        backends: what is offered to jobs; empty: no job is taken.
        trial_s: how long a simulated trial takes, roughly.
    """

    total: int
    first: int
    count: int
    rate_hz: float = 1.0
    duration_s: float | None = None
    ramp_s: float = 0.0
    prefix: str = "sim"
    seed: int = 0
    state_dir: Path = Path()
    flaky: float = 0.0
    offline_s: float = 20.0
    drain_s: float = 20.0
    forget: bool = False
    discard: bool = False
    backends: tuple[str, ...] = ()
    trial_s: float = 1.0

    def name(self, number: int) -> str:
        """Return the id of a device."""
        return f"{self.prefix}-{number:0{DIGITS}d}"

    @property
    def numbers(self) -> range:
        """The devices of this process."""
        return range(self.first, self.first + self.count)

    @property
    def samples(self) -> int | None:
        """How many each device makes, at least one; None without an end."""
        return None if self.duration_s is None else max(1, round(self.duration_s * self.rate_hz))

    def start_s(self, number: int) -> float:
        """Return when a device starts, in seconds since the beginning."""
        return self.ramp_s * number / self.total

    def first_sample_s(self, number: int) -> float:
        """Return when a device makes its first sample: the fleet's are spread over the period."""
        return self.start_s(number) + (number * _GOLDEN % 1) / self.rate_hz

    def is_flaky(self, number: int) -> bool:
        """Whether a device's connection breaks; so many of any part of the fleet as of all."""
        return int((number + 1) * self.flaky) > int(number * self.flaky)

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: names that are none, or more devices than numbers.
        """
        if self.total > MAX_DEVICES:
            raise ConfigError(
                f"--devices {self.total}: there are names for {MAX_DEVICES} devices",
                hint="start another simulation with another --prefix",
            )
        if not 0 <= self.first < self.first + self.count <= self.total:
            raise ConfigError(
                f"--first {self.first} --count {self.count}: not among {self.total} devices"
            )
        last = self.name(self.total - 1)
        if not is_name(last):
            raise ConfigError(
                f"--prefix {self.prefix!r}: {last!r} can be no device's name",
                hint="small letters, digits, - and _; at most 63 in all, the number included",
            )

    def device_settings(self, settings: AgentSettings, number: int) -> AgentSettings:
        """Return the settings of one device, as an agent of its own would have them."""
        name = self.name(number)
        return settings.model_copy(
            update={
                "device_id": name,
                "state_dir": self.state_dir / name,
                "tags": tuple(dict.fromkeys((TAG, *settings.tags))),
            }
        )
