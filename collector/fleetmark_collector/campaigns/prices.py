"""What an hour of a device costs, by the prices that a campaign file gives; pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.schema import Cost
from fleetmark_collector.campaigns.targets import tags_of
from fleetmark_collector.campaigns.yaml_source import Problem
from fleetmark_protocol.settings import suggestion

DeviceKey = tuple[str, str]


@dataclass(frozen=True)
class Prices:
    """Prices in US dollars an hour; devices without one are not in `of`."""

    of: Mapping[DeviceKey, float]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def find_prices(
    cost: Cost | None, chosen: Sequence[KnownDevice], known: Sequence[KnownDevice]
) -> Prices:
    """Return what the devices of a campaign cost.

    Args:
        cost: what the file says; None where it says nothing.
        chosen: the campaign's devices.
        known: all there are.
    """
    if cost is None:
        return Prices({}, (), ())
    found: dict[DeviceKey, float] = {}
    problems: list[Problem] = []
    without: list[str] = []
    for device in chosen:
        fitting = _fitting(cost, device)
        if len(set(fitting.values())) > 1:
            named = ", ".join(f"{name} {price:g}" for name, price in sorted(fitting.items()))
            text = f"{device.device} has tags of different prices ({named}): give it its own"
            problems.append(Problem(("cost", "usd_per_hour"), text))
        elif fitting:
            found[device.fleet, device.device] = next(iter(fitting.values()))
        else:
            without.append(device.device)
    return Prices(found, tuple(problems), tuple(_notes(cost, without, known)))


def _fitting(cost: Cost, device: KnownDevice) -> dict[str, float]:
    if device.device in cost.usd_per_hour:
        return {device.device: cost.usd_per_hour[device.device]}
    tags = tags_of(device)
    return {name: price for name, price in cost.usd_per_hour.items() if name in tags}


def _notes(cost: Cost, without: Sequence[str], known: Sequence[KnownDevice]) -> Iterator[str]:
    if without:
        yield f"no price for {', '.join(without)}: they count as free"
    names = {one.device for one in known} | {tag for one in known for tag in tags_of(one)}
    # A price list may be larger than the fleet, so a name that is not there is no mistake.
    for name in cost.usd_per_hour:
        if name not in names:
            close = suggestion(name, sorted(names))
            hint = close if "did you mean" in close else ""
            yield f"cost.usd_per_hour: no device has the tag or id {name!r}{hint}"
