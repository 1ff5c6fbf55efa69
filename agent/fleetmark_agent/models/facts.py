"""What is known about the content of a model, whatever its format; no I/O."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from fleetmark_agent.models.gguf_structure import TENSOR_TYPES
from fleetmark_protocol.ids import Sha256
from fleetmark_protocol.values import Count, Label, Positive

Format = Literal["gguf", "ggml", "safetensors", "llamafile", "program", "remote"]
"""What a model can be.

`gguf`: a file of llama.cpp; `ggml`: one of its containers from before August 2023; `safetensors`: a
Hugging Face directory; `llamafile`: a program with a GGUF file inside; `program`: a llamafile
without one, which runs the others' models; `remote`: no file of ours.
A backend may also name `gguf-2023`: a GGUF file that the llama.cpp of September 2023 reads.
"""

ORIGIN_KEY = "fleetmark.origin_sha256"
"""Metadata of a file that we converted: digest of the file it came from."""

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
_MIXTURES = frozenset({"Q2_K", "Q6_K"})
"""Names of types that quantizers also give to mixtures: rows that fit no block get another type."""
KNOWN_QUANTIZATIONS = _TYPE_NAMES | frozenset(FILE_TYPES.values())


class ModelFacts(BaseModel):
    """What a model holds. Absent is what it does not say.

    Attributes:
        format: what it is.
        architecture: e.g. `llama`.
        parameters: weights in all tensors.
        quantization: type of the tensors that hold most of the weights; of `ggml`, whose tensors
            are not looked at, what the file calls itself.
        mix: type -> share of the weights (0 to 1), largest first: what the name hides.
        bits_per_weight: bytes of all tensors x 8 / parameters.
        context_tokens: longest context that the model was made for.
        file_type: what the file calls itself; a claim.
        tensors: how many.
        kv_values_per_token: numbers that one token leaves in the key-value cache, all layers.
        vocabulary: tokens known.
        origin_sha256: digest of the file that this one was converted from, if by us.
        gguf_window: first byte and length of the GGUF file inside a llamafile.
    """

    model_config = ConfigDict(frozen=True)

    format: Format = "gguf"
    architecture: Label | None = None
    parameters: Count | None = None
    quantization: Label | None = None
    mix: dict[str, float] = {}
    bits_per_weight: Positive | None = None
    context_tokens: Count | None = None
    file_type: Label | None = None
    tensors: Count | None = None
    kv_values_per_token: Count | None = None
    vocabulary: Count | None = None
    origin_sha256: Sha256 | None = None
    gguf_window: tuple[Count, Count] | None = None

    def holds(self, quantization: str) -> bool:
        """Whether this is what somebody means who asks for `quantization`.

        Names of tensor types go by the weights; names of mixtures (Q4_K_M) by what the file says.
        """
        wanted = quantization.upper()
        if wanted in _TYPE_NAMES and wanted == self.quantization:
            return True
        return wanted == self.file_type and (wanted not in _TYPE_NAMES or wanted in _MIXTURES)
