"""What a device would refuse, going by what it says of itself, before anything is sent to it."""

from collections.abc import Sequence

from fleetmark_collector.campaigns.cells import Cell
from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.sizes import contexts_of, infos_of, weights_of
from fleetmark_protocol.joblimits import Allowed, excess
from fleetmark_protocol.messages import Inventory, JobSpec, ModelSpec, Options
from fleetmark_protocol.settings import suggestion

GB = 10**9
SERVES = "parallel"
"""Among the options that an engine takes: it serves several requests at once."""


def cannot_run(cell: Cell, inventory: Inventory | None) -> str | None:
    """Return why the device cannot run a cell's engine so, or None if it can or nobody knows."""
    if inventory is None:
        return None
    inner = cell.labels.get("inner_backend")
    for name in (cell.backend, inner):
        missing = _missing_backend(name, inventory) if isinstance(name, str) else None
        if missing is not None:
            return missing
    return _option_not_taken(cell, inventory) or _not_at_once(cell, inventory)


def _missing_backend(backend: str, inventory: Inventory) -> str | None:
    info = next((one for one in inventory.backends if one.name == backend), None)
    if info is None:
        have = [one.name for one in inventory.backends]
        return f"backend {backend!r} is not known there{suggestion(backend, have)}"
    if not info.available:
        hint = f" ({info.hint})" if info.hint else ""
        reason = info.reason or "no reason given"
        return f"backend {backend!r} is not available there: {reason}{hint}"
    allowed = inventory.allowed_backends
    if allowed and "*" not in allowed and backend not in allowed:
        return f"backend {backend!r} is not allowed by the device's owner"
    return None


def _option_not_taken(cell: Cell, inventory: Inventory) -> str | None:
    """Say which options the engine would not honour; agents that do not tell are not judged."""
    takes = next((one.takes for one in inventory.backends if one.name == cell.backend), ())
    default = Options().model_dump()
    refused = [
        name
        for name, value in cell.labels.items()
        if name not in takes and value is not None and value != default.get(name)
    ]
    if not takes or not refused:
        return None
    return f"backend {cell.backend!r} does not take {', '.join(refused)} there"


def _not_at_once(cell: Cell, inventory: Inventory) -> str | None:
    """Say where several clients would ask an engine that takes one request after another."""
    takes = next((one.takes for one in inventory.backends if one.name == cell.backend), ())
    crowds = [one for one in cell.workloads if one.kind == "concurrency"]
    if not takes or SERVES in takes or not crowds:
        return None
    most = max(crowds, key=lambda one: one.clients)
    able = [one.name for one in inventory.backends if one.available and SERVES in one.takes]
    others = f" (backends that serve several there: {', '.join(able) or 'none'})"
    return (
        f"workload {most.name!r} has {most.clients} clients ask at the same time, and backend "
        f"{cell.backend!r} serves one request at a time there{others}"
    )


def too_much(spec: JobSpec, inventory: Inventory | None) -> str | None:
    """Return what a job asks for more than the device takes, as the device will say it.

    Args:
        spec: the job.
        inventory: the device's; None, or silent about a limit, where nobody knows it.
    """
    allowed = Allowed()
    if inventory is not None:
        cores = inventory.hardware.cores_logical
        allowed = Allowed(cores, inventory.max_job_s, inventory.max_context_tokens)
    found = excess(spec, allowed)
    if found is None:
        return None
    return found.message + (f" ({found.hint})" if found.hint else "")


def would_refuse(
    cell: Cell, inventory: Inventory | None, devices: Sequence[KnownDevice]
) -> str | None:
    """Return why a device that can run a cell's engine would refuse its model; None if it may not.

    Args:
        cell: what it is to run.
        inventory: its own; None where it never said.
        devices: all there are: any of them may know how large the model is.
    """
    if inventory is None:
        return None
    return (
        _refused_source(cell.model, inventory)
        or _unknown_architecture(cell, inventory, devices)
        or _too_large(cell, inventory, devices)
    )


def _refused_source(model: ModelSpec, inventory: Inventory) -> str | None:
    if model.ref.startswith(tuple(inventory.allowed_sources)):
        return None
    allowed = ", ".join(inventory.allowed_sources) or "none"
    return f"source not allowed by the device's owner: {model.ref} (allowed: {allowed})"


def _unknown_architecture(
    cell: Cell, inventory: Inventory, devices: Sequence[KnownDevice]
) -> str | None:
    known = next((one.architectures for one in inventory.backends if one.name == cell.backend), ())
    found = {one.architecture for one in infos_of(cell.model, devices)} - {None}
    if not known or not found or not found.isdisjoint(known):
        return None
    return (
        f"backend {cell.backend!r} does not know models of architecture "
        f"{', '.join(sorted(map(str, found)))} there (it knows {', '.join(known)})"
    )


def _too_large(cell: Cell, inventory: Inventory, devices: Sequence[KnownDevice]) -> str | None:
    """Compare with all memory there is; how much will be free, only the device can tell."""
    there = inventory.hardware.mem_total_bytes
    weights = weights_of(cell, devices)
    if there is None or weights is None or not weights.known:
        return None
    contexts = contexts_of(cell, devices)
    if weights.bytes + contexts.bytes <= there:
        return None
    what = f"{weights.bytes / GB:.1f} GB"
    if weights.bytes > there:
        what = f"the weights alone need {what}"
    else:
        plural = "s" * (contexts.count != 1)
        what = (
            f"needs {(weights.bytes + contexts.bytes) / GB:.1f} GB (weights {what}, "
            f"{contexts.count} context{plural} of {contexts.tokens} tokens "
            f"{contexts.bytes / GB:.1f} GB)"
        )
    return f"does not fit: {what}, the device has {there / GB:.1f} GB"
