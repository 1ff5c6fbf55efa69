"""Says what an old GGML container holds, as far as its first bytes reliably tell.

These containers (until August 2023) have no keys: what the numbers after the magic mean depends on
the program that wrote them. Of `GGMF` and `GGJT`, which llama.cpp alone wrote, they are LLaMA's;
of the bare one nothing is certain.
"""

import struct
from pathlib import Path

from fleetmark_agent.models.facts import FILE_TYPES, ModelFacts
from fleetmark_protocol.errors import ModelRejected

MAGICS = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT"}
"""The first four bytes (a little-endian number that spells the name) -> the container."""
VERSIONS = {"GGMF": (1,), "GGJT": (1, 2, 3)}
_LLAMA = struct.Struct("<7I")
_MAX = 1 << 24
_QUANTIZATION_VERSION_FACTOR = 1000


def read_ggml(path: Path) -> ModelFacts:
    """Say what is known about an old container.

    Raises:
        ModelRejected: it is of a version nobody wrote, is truncated or claims the impossible.
    """
    with path.open("rb") as file:
        head = file.read(8 + _LLAMA.size)
    container = MAGICS[head[:4]]
    if container == "GGML":
        return ModelFacts(format="ggml")
    if len(head) < 8 + _LLAMA.size:
        raise ModelRejected(f"{path.name}: truncated: a {container} file of {len(head)} bytes")
    (version,) = struct.unpack_from("<I", head, 4)
    if version not in VERSIONS[container]:
        raise ModelRejected(f"{path.name}: {container} of a version that cannot be: {version}")
    vocabulary, width, _, heads, layers, _, file_type = _LLAMA.unpack_from(head, 8)
    if not all(0 < number < _MAX for number in (vocabulary, width, heads, layers)):
        raise ModelRejected(f"{path.name}: its {container} header claims the impossible")
    name = FILE_TYPES.get(file_type % _QUANTIZATION_VERSION_FACTOR)
    return ModelFacts(
        format="ggml",
        architecture="llama",
        quantization=name,
        file_type=name,
        vocabulary=vocabulary,
        kv_values_per_token=2 * layers * width,
    )
