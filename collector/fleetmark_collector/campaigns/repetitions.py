"""How often a workload is asked: a number, or until its median is known well enough."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationInfo, WrapValidator

from fleetmark_collector.campaigns.shapes import Part, at_key, twin
from fleetmark_protocol.workloads import Adaptive, Repetitions, Workload

DEFAULT_REPETITIONS: int = Workload.model_fields["repetitions"].default
DEFAULT_MOST = 50
"""Repetitions that an adaptive workload makes at most."""

if TYPE_CHECKING:
    # To a type checker, which cannot follow `twin`, it has what is used of it.
    class AdaptiveEntry(Part):  # noqa: D101
        min: int
        max: int

else:
    AdaptiveEntry = twin(
        Adaptive,
        "Adaptive",
        "Repeats until the median is known well enough, or the time for it is spent.",
        {
            "half_width_percent": "Ends when half the width of the 95 % interval of the median "
            "latency is at most so many percent of the median.",
            "min": "Repetitions that are made whatever they take.",
            "budget_s": "No repetition begins after so many seconds; left out, no such limit.",
        },
        more={
            "max": (
                Repetitions,
                Field(
                    default=DEFAULT_MOST,
                    description=f"Repetitions at most. Default: {DEFAULT_MOST}.",
                ),
            )
        },
    )

_NUMBER: TypeAdapter[int] = TypeAdapter(Repetitions, config=ConfigDict(strict=True))


def _look(value: object, _: Any, info: ValidationInfo) -> object:
    """Look at a mapping as one; told as alternatives, each mistake would be told twice."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _NUMBER.validate_python(value)
    if not isinstance(value, dict):
        raise ValueError(
            f"should be a number, or a mapping such as {{half_width_percent: 5}} (got {value!r})"
        )
    entry = AdaptiveEntry.model_validate(value, context=info.context)
    if entry.max < entry.min:
        raise at_key("max", f"{entry.max} at most, but `min` asks for {entry.min}")
    return entry


RepetitionsValue = Annotated[Repetitions | AdaptiveEntry | None, WrapValidator(_look)]


def on_the_wire(value: int | AdaptiveEntry) -> dict[str, Any]:
    """Return the fields of a `Workload` that say how often it is asked."""
    if isinstance(value, int):
        return {"repetitions": value}
    fields = value.model_dump()
    return {"repetitions": fields.pop("max"), "adaptive": Adaptive(**fields)}
