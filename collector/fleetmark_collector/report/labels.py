"""Names of cells for people: safe to print, and no longer than what tells them apart."""

import json
import re
from collections.abc import Sequence

from fleetmark_collector.report.jobs import Config
from fleetmark_protocol.values import Scalar

SEPARATOR = "/"


def clean(text: str) -> str:
    """Replace what is not printable: labels come from devices, and terminals obey escapes."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def percent(share: float) -> str:
    """Return 0.95 as '95%', and no more digits than it has."""
    return f"{share * 100:.4g}%"


def full_label(config: Config, *, with_fleet: bool) -> str:
    """Return everything that makes the configuration, as `--baseline` takes it."""
    parts = _parts(config)
    if not with_fleet:
        del parts["fleet"]
    return SEPARATOR.join(parts.values())


def short_labels(configs: Sequence[Config]) -> tuple[dict[Config, str], tuple[str, ...]]:
    """Return a label of only what differs for each configuration, and what all have in common."""
    parts = {config: _parts(config) for config in configs}
    names = list(dict.fromkeys(name for values in parts.values() for name in values))
    values = {name: {mine.get(name) for mine in parts.values()} for name in names}
    varying = [name for name in names if len(values[name]) > 1]
    common = tuple(
        value if name.startswith("option ") else f"{name} {value}"
        for name in names
        if name not in varying and name not in ("fleet", "device")
        for value in values[name]
        if value is not None
    )
    if not varying:
        varying = ["device", "backend", "model", "quantization"]
    return {
        config: SEPARATOR.join(mine[name] for name in varying if name in mine)
        for config, mine in parts.items()
    }, common


def sort_key(config: Config, bits_per_weight: float | None) -> tuple[object, ...]:
    """Order for display: by device and backend, the least compressed weights first."""
    return (
        config.fleet,
        config.device,
        config.backend,
        config.model,
        -(bits_per_weight if bits_per_weight is not None else _bits_in_name(config.quantization)),
        config.quantization or "",
        tuple((name, type(value).__name__, value) for name, value in config.options),
    )


def _parts(config: Config) -> dict[str, str]:
    parts = {
        "fleet": config.fleet,
        "device": config.device,
        "backend": config.backend,
        "model": config.model,
        "quantization": config.quantization or "?",
    }
    options = {f"option {name}": f"{name}={_shown(value)}" for name, value in config.options}
    return {name: clean(value) for name, value in (parts | options).items()}


def _shown(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _bits_in_name(quantization: str | None) -> float:
    """Return the first number of a quantization's name (Q4_0: 4); 0 where there is none."""
    found = re.search(r"\d+", quantization or "", re.ASCII)
    # A name is the device's word, and may hold a number of any length.
    return float(found.group()[:3]) if found else 0.0
