"""Says what a GGUF file holds; parsed in a child process, so that no file can harm the agent.

Run as a program (`python -m fleetmark_agent.models.gguf_file PATH`) it is that child.
"""

import json
import re
import resource
import sys
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fleetmark_agent.models.children import ChildTimeout, run_child
from fleetmark_agent.models.gguf_structure import TENSOR_TYPES, Structure, read_structure
from fleetmark_protocol.errors import FleetmarkError, ModelRejected
from fleetmark_protocol.ids import SHA256_PATTERN, Sha256
from fleetmark_protocol.records import Count, Label, Positive, clip

TIMEOUT_S = 120.0
MAX_MEMORY_BYTES = 1 << 30
ORIGIN_KEY = "fleetmark.origin_sha256"
"""Metadata of a file that we converted: digest of the file it came from."""
REFUSED = 3
"""Exit status of the child when the file is at fault, not the program."""

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
    39: "NVFP4", 40: "Q1_0",
}  # fmt: skip
"""`general.file_type` -> the name that quantizers give it."""

_TYPE_NAMES = frozenset(name for name, _, _ in TENSOR_TYPES.values())
KNOWN_QUANTIZATIONS = _TYPE_NAMES | frozenset(FILE_TYPES.values())


class GgufInfo(BaseModel):
    """What a file holds. Absent is what the file does not say.

    Attributes:
        architecture: e.g. `llama`.
        parameters: weights in all tensors.
        quantization: type of the tensors that hold most of the weights.
        mix: type -> share of the weights (0 to 1), largest first: what the name hides.
        bits_per_weight: bytes of all tensors x 8 / parameters.
        context_tokens: longest context that the model was made for.
        file_type: what the file calls itself; a claim.
        tensors: how many.
        kv_values_per_token: numbers that one token leaves in the key-value cache, all layers.
        vocabulary: tokens known.
        origin_sha256: digest of the file that this one was converted from, if by us.
    """

    model_config = ConfigDict(frozen=True)

    architecture: Label | None = None
    parameters: Count
    quantization: Label
    mix: dict[str, float]
    bits_per_weight: Positive
    context_tokens: Count | None = None
    file_type: Label | None = None
    tensors: Count
    kv_values_per_token: Count | None = None
    vocabulary: Count | None = None
    origin_sha256: Sha256 | None = None

    def holds(self, quantization: str) -> bool:
        """Whether this is what somebody means who asks for `quantization`.

        Names of tensor types go by the weights; names of mixtures (Q4_K_M) by what the file says.
        """
        wanted = quantization.upper()
        if wanted in _TYPE_NAMES:
            return wanted == self.quantization
        return wanted == self.file_type


def inspect(path: Path) -> GgufInfo:
    """Say what a file holds.

    Raises:
        ModelRejected: it is no GGUF file that can be used; says what is wrong.
    """
    command = [sys.executable, "-P", "-m", "fleetmark_agent.models.gguf_file", str(path.absolute())]
    try:
        done = run_child(command, timeout_s=TIMEOUT_S)
    except ChildTimeout:
        raise ModelRejected(f"{path.name}: not understood within {TIMEOUT_S:g} s") from None
    if done.code == REFUSED:
        raise ModelRejected(clip(done.output.strip()))
    try:
        if done.code != 0:
            raise ValueError(done.errors)
        return GgufInfo.model_validate_json(done.output)
    except (ValueError, ValidationError) as error:
        last = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise ModelRejected(f"{path.name}: its reader ended with {done.code}: {last}") from error


def describe(structure: Structure) -> GgufInfo:
    """Sum a file's frame up; pure."""
    weights: Counter[str] = Counter()
    for tensor in structure.tensors:
        weights[tensor.type_name] += tensor.weights
    parameters = weights.total()
    arch = structure.values.get("general.architecture")
    prefix = arch if isinstance(arch, str) else ""
    file_type = structure.values.get("general.file_type")
    origin = structure.values.get(ORIGIN_KEY)
    return GgufInfo.model_validate(
        {
            "architecture": clip(prefix, 256) or None,
            "parameters": parameters,
            "quantization": weights.most_common(1)[0][0],
            "mix": {name: count / parameters for name, count in weights.most_common()},
            "bits_per_weight": sum(t.bytes for t in structure.tensors) * 8 / parameters,
            "context_tokens": _count(structure, f"{prefix}.context_length"),
            "file_type": FILE_TYPES.get(file_type) if isinstance(file_type, int) else None,
            "tensors": len(structure.tensors),
            "kv_values_per_token": _kv_values_per_token(structure, prefix),
            "vocabulary": structure.lengths.get("tokenizer.ggml.tokens")
            or _count(structure, f"{prefix}.vocab_size"),
            "origin_sha256": origin if re.fullmatch(SHA256_PATTERN, str(origin)) else None,
        }
    )


def _count(structure: Structure, key: str) -> int | None:
    value = structure.values.get(key)
    return value if type(value) is int and 0 <= value < 2**32 else None


def _kv_values_per_token(structure: Structure, prefix: str) -> int | None:
    """Sum over layers of key-value heads x (key length + value length).

    A sliding window or a compressed cache makes it less; nothing makes it more.
    """
    layers = _count(structure, f"{prefix}.block_count")
    width = _count(structure, f"{prefix}.embedding_length")
    heads = structure.values.get(f"{prefix}.attention.head_count")
    most_heads = max(heads, default=0) if isinstance(heads, tuple) else heads
    if layers is None or width is None or type(most_heads) is not int or most_heads < 1:
        return None
    per_layer = structure.values.get(f"{prefix}.attention.head_count_kv", most_heads)
    if isinstance(per_layer, tuple):
        kv_heads = sum(int(count) for count in per_layer)
    elif isinstance(per_layer, int):
        kv_heads = layers * per_layer
    else:
        return None
    key = _count(structure, f"{prefix}.attention.key_length") or width // most_heads
    value = _count(structure, f"{prefix}.attention.value_length") or width // most_heads
    total = kv_heads * (key + value)
    return total if 0 <= total < 2**40 else None


def main() -> int:
    """Be the child: print what the file holds, or what is wrong with it."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    try:
        info = describe(read_structure(Path(sys.argv[1])))
    except FleetmarkError as error:
        sys.stdout.write(error.message)
        return REFUSED
    sys.stdout.write(json.dumps(info.model_dump()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
