"""Which devices a campaign runs on: those that `targets` names, that fit `where`, that are drawn.

Pure: the same fleet, targets and seed choose the same devices, whatever order they come in.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from fleetmark_collector.campaigns.roles import DeviceKey, KnownDevice
from fleetmark_collector.campaigns.selection import Targets
from fleetmark_collector.campaigns.yaml_source import Loc, Problem, Source
from fleetmark_protocol.settings import suggestion


@dataclass(frozen=True)
class Chosen:
    """The devices of a campaign, and what is wrong with its targets.

    Attributes:
        notes: what the operator should know.
    """

    devices: tuple[KnownDevice, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


def choose(targets: Targets, seed: int, known: Sequence[KnownDevice], source: Source) -> Chosen:
    """Return the devices, in order of fleet and id.

    Args:
        targets: what the file says.
        seed: of the sample.
        known: all devices there are.
        source: the file.
    """
    known = sorted(known, key=lambda one: (one.fleet, one.device))
    if targets.selection == "continuous":
        # What is not there yet may come: names that nobody has are told, and are no mistake.
        drawn = newcomers(targets, seed, known, frozenset())
        unknown = (problem.text for problem in _unknown(targets, known, source))
        notes = [f"{text}: waits for devices to join" for text in unknown]
        if not drawn and not notes:
            notes = ["no device fits the targets yet: waits for devices to join"]
        return Chosen(tuple(drawn), (), tuple(notes))
    if not known:
        text = (
            "the collector knows no devices yet (start `fleetmark collect` and the agents; "
            "`fleetmark devices` lists those that have reported)"
        )
        return Chosen((), (Problem(("targets",), text),))
    problems = [*_unknown(targets, known, source)]
    fitting = [one for one in known if _is_named(targets, one) and _fits(targets, one)]
    if not fitting and not problems:
        problems.append(Problem(_narrowing(targets), "no device is left: none has all of this"))
    drawn = fitting
    if targets.sample is not None and fitting and not problems:
        wanted = targets.sample.of(len(fitting))
        if wanted > len(fitting):
            text = f"{wanted} devices wanted, {len(fitting)} fit the targets"
            problems.append(Problem(("targets", "sample"), text))
        drawn = _draw(fitting, wanted, seed)
    return Chosen(tuple(drawn), tuple(problems))


def newcomers(
    targets: Targets, seed: int, known: Sequence[KnownDevice], members: Collection[DeviceKey]
) -> list[KnownDevice]:
    """Return the devices that are to join a campaign which takes newcomers.

    A share is one of all that fit or take part already, and is kept from below as more devices
    come: who has been drawn stays. A number is filled up.

    Args:
        targets: what the file says.
        seed: of the sample.
        known: all devices there are.
        members: devices that take part already.
    """
    fitting = [one for one in known if _is_named(targets, one) and _fits(targets, one)]
    new = [one for one in fitting if (one.fleet, one.device) not in members]
    if targets.sample is None:
        return sorted(new, key=lambda one: (one.fleet, one.device))
    wanted = targets.sample.of(len(new) + len(members))
    return _draw(new, max(0, wanted - len(members)), seed)


def tags_of(device: KnownDevice) -> frozenset[str]:
    """Return a device's tags; none where it has not said what it has."""
    return frozenset(device.inventory.tags) if device.inventory else frozenset()


def _is_named(targets: Targets, device: KnownDevice) -> bool:
    names_any = targets.devices or targets.tags or targets.fleets
    return (
        targets.all
        or not names_any
        or device.device in targets.devices
        or device.fleet in targets.fleets
        or not tags_of(device).isdisjoint(targets.tags)
    )


def _fits(targets: Targets, device: KnownDevice) -> bool:
    return targets.where is None or targets.where.holds(tags_of(device))


def _narrowing(targets: Targets) -> Loc:
    return ("targets", "where") if targets.where is not None else ("targets",)


def _unknown(targets: Targets, known: Sequence[KnownDevice], source: Source) -> Iterator[Problem]:
    """Find names that are not there: a typing mistake must not change who takes part."""
    tags = {tag for one in known for tag in tags_of(one)}
    there = {
        "devices": ("device", targets.devices, {one.device for one in known}),
        "tags": ("tag", targets.tags, tags),
        "fleets": ("fleet", targets.fleets, {one.fleet for one in known}),
    }
    for key, (what, wanted, names) in there.items():
        for position, name in enumerate(wanted):
            if name not in names:
                loc = source.place(("targets", key, position))
                yield Problem(loc, _no_such(what, name, names))
    for tag, offset in targets.where.tags if targets.where is not None else ():
        if tag not in tags:
            loc = ("targets", "where")
            yield Problem(loc, _no_such("tag", tag, tags), position=source.inside(loc, offset))


def _no_such(what: str, name: str, names: set[str]) -> str:
    hint = suggestion(name, sorted(names)) or f" (no device has any {what})"
    return f"no {what} {name!r}{hint}"


def _draw(devices: Sequence[KnownDevice], count: int, seed: int) -> list[KnownDevice]:
    """Return so many of the devices, each as likely as any other.

    Each device has a number of its own that only the seed changes, and the lowest are drawn: a
    device that joins or leaves the fleet changes the sample by one device at most.
    """
    lowest = sorted(devices, key=lambda one: _lot(seed, one))[:count]
    return sorted(lowest, key=lambda one: (one.fleet, one.device))


def _lot(seed: int, device: KnownDevice) -> bytes:
    return hashlib.sha256(f"{seed}/{device.fleet}/{device.device}".encode()).digest()
