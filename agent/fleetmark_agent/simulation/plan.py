"""What is to be simulated: which devices, how fast, for how long; checked before anything starts.

Everything here follows from the numbers alone, so that several processes share one simulation by
each taking a range of the devices.
"""

from collections.abc import Sequence
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

BETWEEN_BACKENDS = "+"

_GOLDEN = 0.618033988749895
"""Multiples of it, modulo 1, fill the unit interval evenly however many there are."""


@dataclass(frozen=True)
class Kind:
    """What some of the devices pretend to be.

    Attributes:
        tag: in their inventories and in their names.
        backends: those that they offer; None: those of the simulation.
    """

    tag: str
    backends: tuple[str, ...] | None = None


def kinds_of(words: Sequence[str]) -> tuple[Kind, ...]:
    """Return kinds written as TAG or TAG:BACKEND+BACKEND.

    Raises:
        ConfigError: a tag that is none, or one that is given twice.
    """
    kinds: list[Kind] = []
    for word in words:
        tag, colon, names = word.partition(":")
        if not is_name(tag):
            raise ConfigError(
                f"--kind {word!r}: {tag!r} can be no tag",
                hint="write TAG or TAG:BACKEND+BACKEND; a tag has small letters, digits, - and _",
            )
        if any(kind.tag == tag for kind in kinds):
            raise ConfigError(f"--kind {word!r}: {tag!r} is given twice")
        backends = tuple(name for name in names.split(BETWEEN_BACKENDS) if name)
        kinds.append(Kind(tag, backends if colon else None))
    return tuple(kinds)


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
        kinds: what the devices pretend to be, each in its turn; empty: nothing.
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
    kinds: tuple[Kind, ...] = ()

    def name(self, number: int) -> str:
        """Return the id of a device."""
        kind = self.kind(number)
        prefix = self.prefix if kind is None else f"{self.prefix}-{kind.tag}"
        return f"{prefix}-{number:0{DIGITS}d}"

    def kind(self, number: int) -> Kind | None:
        """Return what a device pretends to be."""
        return self.kinds[number % len(self.kinds)] if self.kinds else None

    def offered(self, number: int) -> tuple[str, ...]:
        """Return the backends that a device takes jobs for."""
        kind = self.kind(number)
        return self.backends if kind is None or kind.backends is None else kind.backends

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
        # Of each kind one name, the longest that there is.
        for number in range(self.total - min(self.total, max(1, len(self.kinds))), self.total):
            name = self.name(number)
            if not is_name(name):
                raise ConfigError(
                    f"--prefix {self.prefix!r}: {name!r} can be no device's name",
                    hint="small letters, digits, - and _; at most 63 in all, the number included",
                )

    def device_settings(self, settings: AgentSettings, number: int) -> AgentSettings:
        """Return the settings of one device, as an agent of its own would have them."""
        name, kind = self.name(number), self.kind(number)
        own = () if kind is None else (kind.tag,)
        return settings.model_copy(
            update={
                "device_id": name,
                "state_dir": self.state_dir / name,
                "tags": tuple(dict.fromkeys((TAG, *own, *settings.tags))),
            }
        )
