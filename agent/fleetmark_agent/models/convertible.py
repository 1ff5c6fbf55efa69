"""Makes one model out of another, whatever it takes; the converters are modules of their own."""

from pathlib import Path

from fleetmark_agent.models import convert, convert_2023, convert_safetensors, quantize_llama_cpp
from fleetmark_agent.models.gguf_header import length_of
from fleetmark_agent.models.sidecar import Sidecar
from fleetmark_agent.models.targets import FLOATS, GGUF_2023, Target, check_tool
from fleetmark_agent.models.watch import NOBODY, Watch
from fleetmark_protocol.errors import ModelRejected

_NEXT_LARGER = {
    "Q6_K": "Q8_0", "Q5_K_M": "Q6_K", "Q4_K_M": "Q5_K", "Q4_K_S": "Q5_K", "Q3_K_M": "Q4_K",
    "Q2_K": "Q4_K",
}  # fmt: skip
"""Mixtures hold larger types too; for estimates."""
_MORE_BYTES = 16 * 2**20


def estimated_bytes(source: Sidecar, target: Target) -> int:
    """Return about how much room a conversion takes, scratch included; 0 where nobody knows.

    Raises:
        ModelRejected: the source cannot be converted.
    """
    weights = source.info.parameters
    if source.info.format != "gguf" or weights is None:
        raise ModelRejected(
            f"a {source.info.format} model cannot be converted, only a GGUF file",
            hint="bring in a GGUF file of the same model",
        )
    if target.format == GGUF_2023:
        return source.bytes * 5 // 4 + _MORE_BYTES
    name = target.quantization or _float_of(source)
    total = length_of(weights, _NEXT_LARGER.get(name, name)) + _MORE_BYTES
    if target.tool == "llama.cpp":
        total += length_of(weights, _between(source))
    return total


def make(
    path: Path,
    source: Sidecar,
    target: Target,
    scratch: Path,
    *,
    max_bytes: int,
    watch: Watch = NOBODY,
) -> tuple[Path, str]:
    """Make `target` out of a GGUF file; return the new model and what computed it.

    Args:
        path: the source.
        source: what is known about it.
        target: what to make.
        scratch: an empty directory.
        max_bytes: bound of every new file.
        watch: told how far it is; asked several times a second whether to go on.

    Raises:
        ModelRejected: the source cannot be converted.
        BackendUnavailable: the tool is not installed.
        ModelTooLarge, BackendTimeout, Canceled: see `converters.run_converter`.
    """
    made = scratch / "converted"
    if target.format == GGUF_2023:
        tools = convert_2023.convert(
            path, made, origin_sha256=source.origin_sha256, max_bytes=max_bytes, watch=watch
        )
        return made, tools
    quantization = target.quantization or _float_of(source)
    if target.format == "safetensors":
        tools = convert_safetensors.convert(
            path,
            made,
            quantization,
            origin_sha256=source.origin_sha256,
            max_bytes=max_bytes,
            watch=watch,
        )
        return made, tools
    if target.tool == "gguf":
        tools = convert.convert(
            path,
            made,
            quantization,
            origin_sha256=source.origin_sha256,
            max_bytes=max_bytes,
            watch=watch,
        )
        return made, tools
    check_tool(target.tool, quantization)
    # Of the source's name, which errors tell.
    between = scratch / "floats" / path.name
    between.parent.mkdir()
    first = convert.convert(
        path,
        between,
        _between(source),
        origin_sha256=source.origin_sha256,
        max_bytes=max_bytes,
        watch=watch,
    )
    second = quantize_llama_cpp.quantize(
        between, made, quantization, max_bytes=max_bytes, watch=watch
    )
    return made, f"{first}; {second}"


def _float_of(source: Sidecar) -> str:
    """Return the floating-point type that weights get where nobody asked for one."""
    found = source.info.quantization
    return found if found in FLOATS else "F32"


def _between(source: Sidecar) -> str:
    """Return the floating-point type that llama.cpp's quantizer is given: the source's own."""
    found = source.info.quantization
    return found if found in FLOATS else "F16"
