"""Which engines the demo compares: those that were asked for, and which of them are here."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fleetmark_collector.campaigns.cells import Cell
from fleetmark_collector.campaigns.plan import Plan
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import suggestion

INSTALLED = "installed"
"""Stands for every engine of the demo's campaign; what a machine lacks is left out."""


def write_campaign(source: Path, target: Path, wanted: str) -> None:
    """Copy a campaign file, with only some of its engines.

    Args:
        source: the campaign file.
        target: the copy; replaced if it is there.
        wanted: names with commas between them, or `installed` for all.

    Raises:
        ConfigError: a name that the file does not have.
    """
    from ruamel.yaml import YAML

    if wanted == INSTALLED:
        target.write_bytes(source.read_bytes())
        return
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    yaml = YAML()
    data = yaml.load(source)
    entries = data["matrix"]["backend"]
    known = list(dict.fromkeys(map(_name, entries)))
    for name in names or [wanted]:
        if name not in known:
            raise ConfigError(
                f"--backends {wanted}: the demo has no engine {name!r}{suggestion(name, known)}"
            )
    for index in reversed(range(len(entries))):
        if _name(entries[index]) not in names:
            del entries[index]
    with target.open("w", encoding="utf-8") as file:
        yaml.dump(data, file)


def compared(plan: Plan) -> str:
    """Return the engines of a plan's jobs, each once."""
    return ", ".join(dict.fromkeys(_engine(job.cell) for job in plan.jobs))


def not_compared(plan: Plan) -> Iterator[str]:
    """Yield the engines that no device can run, each once with its reason."""
    runs = {_engine(job.cell) for job in plan.jobs}
    reasons = {_engine(one.cell): one.reason for one in plan.left_out}
    for engine, reason in reasons.items():
        if engine not in runs:
            yield f"{engine}: {reason}"


def models(plan: Plan) -> Sequence[tuple[str, str | None, str | None]]:
    """Return the reference, digest and quantization of each model file that the jobs need."""
    return list(
        dict.fromkeys(
            (job.spec.model.ref, job.spec.model.sha256, job.spec.model.quantization)
            for job in plan.jobs
        )
    )


def _name(entry: object) -> str:
    return str(entry["name"] if isinstance(entry, dict) else entry)


def _engine(cell: Cell) -> str:
    inner = cell.labels.get("inner_backend")
    return f"{cell.backend} over {inner}" if inner is not None else cell.backend
