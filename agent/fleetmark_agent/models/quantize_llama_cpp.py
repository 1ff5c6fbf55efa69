"""Makes another quantization of a GGUF file with llama.cpp's own quantizer, in a child.

Its input is a GGUF file with floating-point weights (see `convert`): the quantizer refuses to
requantize, and for good reason. It ends when it is done or killed; its log tells how far it is.
"""

import ctypes
import re
import sys
from importlib.metadata import version
from pathlib import Path

from fleetmark_agent.models.children import limit_memory
from fleetmark_agent.models.converters import run_converter, serve, tell
from fleetmark_agent.models.facts import FILE_TYPES
from fleetmark_agent.models.gguf_structure import read_structure
from fleetmark_agent.models.watch import NOBODY, Watch
from fleetmark_protocol.errors import ModelRejected, ModelTooLarge

BASE_MEMORY_BYTES = 2 << 30
WORK_BYTES_PER_WEIGHT = 12
"""The largest tensor whole: as it is, in single precision, and quantized."""
_STEP = re.compile(r"\[\s*\d+/\s*\d+\]\s+(\S+)")
_FILE_TYPE_IDS = {name: number for number, name in FILE_TYPES.items()}


def quantize(
    source: Path, target: Path, quantization: str, *, max_bytes: int, watch: Watch = NOBODY
) -> str:
    """Write `source` in another quantization to `target`; return what computed it.

    Args:
        source: a GGUF file with weights in floating point, and its origin in its metadata.
        target: overwritten.
        quantization: one of `targets.BY_LLAMA_CPP`.
        max_bytes: bound of the new file.
        watch: told the source's bytes done; asked several times a second.

    Raises:
        ModelRejected, ModelTooLarge, BackendTimeout, Canceled: see `run_converter`.
    """
    words = [quantization]
    return run_converter(
        "quantize_llama_cpp", source, target, words, max_bytes=max_bytes, watch=watch
    )


# --- the child ----------------------------------------------------------------------------------


def _quantize(source: Path, target: Path, words: list[str]) -> str:
    (quantization,) = words
    tensors = {tensor.name: tensor for tensor in read_structure(source).tensors}
    largest = max(tensor.weights for tensor in tensors.values())
    limit_memory(BASE_MEMORY_BYTES + WORK_BYTES_PER_WEIGHT * largest)
    import llama_cpp

    total, done, last = sum(tensor.bytes for tensor in tensors.values()), 0, ""

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def on_log(_level: int, said: bytes, _data: ctypes.c_void_p) -> None:
        nonlocal done, last
        line = said.decode("utf-8", "replace")
        step = _STEP.search(line)
        if step is not None and step[1] in tensors:
            tell(done, total)
            done += tensors[step[1]].bytes
        last = line.strip() or last

    llama_cpp.llama_log_set(on_log, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = _FILE_TYPE_IDS[quantization]
    params.nthread = 0  # as many as there are cores
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    if code != 0:
        if "iostream" in last:
            raise ModelTooLarge(f"{source.name}: no room for what it becomes")
        raise ModelRejected(f"{source.name}: llama.cpp cannot quantize it: {last}")
    tell(total, total)
    return f"llama.cpp (llama-cpp-python {version('llama-cpp-python')})"


if __name__ == "__main__":
    sys.exit(serve(_quantize, None))
