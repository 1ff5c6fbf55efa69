"""Whether a job may run here at all, said before anything is fetched or started."""

from collections.abc import Callable

from fleetmark_agent.backends.base import Availability
from fleetmark_agent.config import AgentSettings
from fleetmark_protocol.errors import BackendUnavailable, SourceNotAllowed
from fleetmark_protocol.messages import JobSpec


def check_job(spec: JobSpec, settings: AgentSettings, probe: Callable[[str], Availability]) -> None:
    """Check a job against what the owner allows and the device has.

    Raises:
        SourceNotAllowed: the owner does not allow this backend (models say so themselves).
        BackendUnavailable: the engine is not installed, with what would install it.
    """
    allowed = settings.runner.allow_backends
    if "*" not in allowed and spec.backend not in allowed:
        raise SourceNotAllowed(
            f"backend {spec.backend!r} is not allowed on this device",
            hint="its owner may add it to runner.allow_backends",
        )
    found = probe(spec.backend)
    if not found.available:
        raise BackendUnavailable(
            f"backend {spec.backend!r}: {found.reason or 'not available'}", hint=found.hint
        )
