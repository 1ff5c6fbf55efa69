"""From a backend's name to its class, imported only when it is asked for."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from fleetmark_agent.backends.base import Availability, Backend
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendUnavailable
from fleetmark_protocol.messages import BackendInfo

GROUP = "fleetmark.backends"


def names() -> list[str]:
    """Return the names of all registered backends, installed engine or not."""
    return sorted(_table())


def create(name: str, engines: EnginesSettings | None = None) -> Backend:
    """Return a new backend.

    Args:
        name: in the entry-point group.
        engines: what the device's owner set; default: nothing.

    Raises:
        BackendUnavailable: no backend of this name, or its module cannot be imported.
    """
    entry = _table().get(name)
    if entry is None:
        raise BackendUnavailable(
            f"no backend is called {name!r}", hint=f"known: {', '.join(names()) or 'none'}"
        )
    try:
        return entry.load()(engines or EnginesSettings())  # type: ignore[no-any-return]
    except Exception as error:
        raise BackendUnavailable(f"backend {name!r} cannot be imported: {error}") from error


def probe(allowed: Iterable[str], engines: EnginesSettings) -> tuple[BackendInfo, ...]:
    """Return what each backend says of itself; those not allowed say so."""
    allow = set(allowed)
    out = []
    for name in names():
        if "*" in allow or name in allow:
            out.append(_probe_one(name, engines))
        else:
            reason = "not allowed by this device's owner (runner.allow_backends)"
            out.append(_info(name, Availability(False, reason=reason), None))
    return tuple(out)


def _probe_one(name: str, engines: EnginesSettings) -> BackendInfo:
    try:
        backend = create(name, engines)
        return _info(name, backend.probe(), backend)
    except Exception as error:  # noqa: BLE001 - a probe must not take the agent down
        return _info(name, Availability(False, reason=str(error)), None)


def _info(name: str, found: Availability, backend: Backend | None) -> BackendInfo:
    return BackendInfo(
        name=name,
        available=found.available,
        version=found.version,
        reason=found.reason,
        hint=found.hint,
        features=found.features,
        formats=backend.formats if backend else (),
        takes=tuple(sorted(backend.takes)) if backend else (),
        architectures=getattr(backend, "architectures", ()),
    )


def _table() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
