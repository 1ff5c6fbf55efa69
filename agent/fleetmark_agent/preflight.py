"""Whether a job may run here at all, said before anything is fetched or started."""

from collections.abc import Callable

import psutil

from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import Backend, KnowsArchitectures
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.limits import check_size
from fleetmark_agent.models.facts import ModelFacts
from fleetmark_protocol.errors import (
    BackendUnavailable,
    ModelRejected,
    OptionNotTaken,
    SourceNotAllowed,
)
from fleetmark_protocol.messages import JobSpec, Options


def with_slots(spec: JobSpec) -> JobSpec:
    """Return a job whose engine serves as many requests at once as its workloads ask; pure.

    `parallel` becomes the larger of the job's own and the most clients of a `concurrency` workload;
    without one it stays as it is.
    """
    clients = [work.clients for work in spec.workloads if work.kind == "concurrency"]
    if not clients:
        return spec
    wanted = max(*clients, spec.options.parallel or 1)
    return spec.model_copy(update={"options": spec.options.model_copy(update={"parallel": wanted})})


def check_job(spec: JobSpec, settings: AgentSettings, create: Callable[[str], Backend]) -> Backend:
    """Check a job against what the owner allows and the device has; return its backend.

    Raises:
        JobTooLarge: it asks for more than a job may.
        SourceNotAllowed: the owner does not allow this backend (models say so themselves).
        BackendUnavailable: the engine is not installed, with what would install it.
        OptionNotTaken: the backend would not do what an option asks for.
    """
    check_size(spec, settings.runner, psutil.cpu_count() or 1)
    allowed = settings.runner.allow_backends
    names = [spec.backend] + [name for name in (spec.options.inner_backend,) if name is not None]
    for name in names:
        if "*" not in allowed and name not in allowed:
            raise SourceNotAllowed(
                f"backend {name!r} is not allowed on this device",
                hint="its owner may add it to runner.allow_backends",
            )
    backend = create(spec.backend)
    # First: where it is not, installing the engine would not help.
    _check_serves(spec, backend, create)
    _check_available(backend)
    check_options(spec.backend, spec.options, backend.takes)
    if spec.options.inner_backend is not None:
        _check_available(create(spec.options.inner_backend))
    return backend


def check_model(spec: JobSpec, facts: ModelFacts, create: Callable[[str], Backend]) -> None:
    """Refuse a model of an architecture that the job's engine does not run, where that is known.

    A Hugging Face directory names architectures in its own way, and is left to its engine.

    Raises:
        ModelRejected: says which.
    """
    architecture = facts.architecture
    if architecture is None or facts.format == "safetensors":
        return
    for name in filter(None, (spec.backend, spec.options.inner_backend)):
        backend = create(name)
        if isinstance(backend, KnowsArchitectures) and (
            backend.knows(architecture, spec.options) is False
        ):
            version = backend.probe().version or ""
            raise ModelRejected(
                f"model {spec.model.name!r} is of the architecture {architecture!r}, which"
                f" {f'{name} {version}'.strip()} does not run",
                hint="take another backend, a newer version of this one, or another model",
            )


def _check_available(backend: Backend) -> None:
    found = backend.probe()
    if not found.available:
        raise BackendUnavailable(
            f"backend {backend.name!r}: {found.reason or 'not available'}", hint=found.hint
        )


def _check_serves(spec: JobSpec, backend: Backend, create: Callable[[str], Backend]) -> None:
    """Refuse to have clients ask at the same time where the engine takes one after another.

    Raises:
        OptionNotTaken: says which engines of this device do serve them.
    """
    most = max(spec.workloads, key=lambda work: (work.kind == "concurrency", work.clients))
    if most.kind != "concurrency" or "parallel" in backend.takes:
        return
    able = [name for name in registry.names() if _serves(name, create)]
    raise OptionNotTaken(
        f"workload {most.name!r} has {most.clients} clients ask at the same time, and backend"
        f" {spec.backend!r} serves one request at a time here",
        hint=f"backends that serve several at once: {', '.join(able)}",
    )


def _serves(name: str, create: Callable[[str], Backend]) -> bool:
    try:
        return "parallel" in create(name).takes
    except BackendUnavailable:
        return False


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
