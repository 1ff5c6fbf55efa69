"""Whether a job may run here at all, said before anything is fetched or started."""

from collections.abc import Callable

from fleetmark_agent.backends.base import Backend
from fleetmark_agent.config import AgentSettings
from fleetmark_protocol.errors import BackendUnavailable, OptionNotTaken, SourceNotAllowed
from fleetmark_protocol.messages import JobSpec, Options


def check_job(spec: JobSpec, settings: AgentSettings, create: Callable[[str], Backend]) -> Backend:
    """Check a job against what the owner allows and the device has; return its backend.

    Raises:
        SourceNotAllowed: the owner does not allow this backend (models say so themselves).
        BackendUnavailable: the engine is not installed, with what would install it.
        OptionNotTaken: the backend would not do what an option asks for.
    """
    allowed = settings.runner.allow_backends
    names = [spec.backend] + [name for name in (spec.options.inner_backend,) if name is not None]
    for name in names:
        if "*" not in allowed and name not in allowed:
            raise SourceNotAllowed(
                f"backend {name!r} is not allowed on this device",
                hint="its owner may add it to runner.allow_backends",
            )
    backend = create(spec.backend)
    _check_available(backend)
    check_options(spec.backend, spec.options, backend.takes)
    if spec.options.inner_backend is not None:
        _check_available(create(spec.options.inner_backend))
    return backend


def _check_available(backend: Backend) -> None:
    found = backend.probe()
    if not found.available:
        raise BackendUnavailable(
            f"backend {backend.name!r}: {found.reason or 'not available'}", hint=found.hint
        )


def check_options(name: str, options: Options, takes: frozenset[str]) -> None:
    """Refuse options that differ from their default and that a backend does not honour; pure.

    Raises:
        OptionNotTaken: says which.
    """
    default = Options()
    refused = [
        field
        for field in Options.model_fields
        if field not in takes and getattr(options, field) != getattr(default, field)
    ]
    if refused:
        raise OptionNotTaken(f"backend {name!r} does not take {', '.join(refused)}")
