"""How much memory a model takes: as a device's inventory says, else as its name suggests."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fleetmark_collector.campaigns.cells import Cell
from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_protocol.messages import ModelInfo, ModelSpec, Options

UNPACKING_BACKEND = "transformers"
"""Holds weights in floating point, whatever the file holds them in."""
DEFAULT_BITS = 8.0
"""Bits per weight of a file whose name says nothing."""
SCALE_BITS = 0.5
"""What the scales of a block add to each of its weights, about."""

_PARAMETERS = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
_QUANTIZATION = re.compile(r"(?<![a-z0-9])(?:(i?q)(\d+)|(bf|f|fp)(16|32))", re.IGNORECASE)


@dataclass(frozen=True)
class Weights:
    """The weights as an engine holds them.

    Attributes:
        known: whether an inventory tells; else it is a guess from names.
    """

    parameters: float
    bits: float
    known: bool

    @property
    def bytes(self) -> float:
        """Their size in memory."""
        return self.parameters * self.bits / 8


@dataclass(frozen=True)
class Contexts:
    """What an engine keeps of the requests that it serves at the same time.

    Attributes:
        count: of requests.
        tokens: that each may have.
        bytes: of all together; 0 where nothing tells.
    """

    count: int
    tokens: int
    bytes: float


def contexts_of(cell: Cell, devices: Sequence[KnownDevice]) -> Contexts:
    """Return what the contexts of a cell take, with as many of them as its clients need."""
    options = Options.model_validate(cell.labels)
    count = max([options.parallel or 1, *(one.clients for one in cell.workloads)])
    each = max((one.kv_bytes_per_token or 0 for one in infos_of(cell.model, devices)), default=0)
    return Contexts(count, options.context_tokens, float(count * options.context_tokens * each))


def infos_of(model: ModelSpec, devices: Sequence[KnownDevice]) -> list[ModelInfo]:
    """Return what any of the devices says of a model's files."""
    return [
        info
        for one in devices
        if one.inventory is not None
        for info in one.inventory.models
        if _is_of(info, model)
    ]


def weights_of(cell: Cell, devices: Sequence[KnownDevice]) -> Weights | None:
    """Return the weights of a cell's model, or None where nothing tells.

    Args:
        cell: what is to run.
        devices: any of them may have the model.
    """
    model = cell.model
    found = infos_of(model, devices)
    sized = [(count, info) for info in found if (count := _parameters(info)) is not None]
    held = _held_bits(cell)
    if sized:
        parameters, info = next(
            ((n, i) for n, i in sized if _is_wanted(i, model)),
            sized[0],
        )
        if _is_wanted(info, model):
            return Weights(parameters, held or info.bytes * 8 / parameters, known=True)
        # A file of other precision: the weights are as many, the bits are those of the name.
        bits = held or bits_of(model.quantization or "") or DEFAULT_BITS
        return Weights(parameters, bits, known=True)
    guessed = _PARAMETERS.search(f"{model.name} {model.ref}")
    if guessed is None:
        return None
    parameters = float(guessed[1]) * (1e9 if guessed[2] in "bB" else 1e6)
    bits = held or bits_of(model.quantization or model.ref) or DEFAULT_BITS
    return Weights(parameters, bits, known=False)


def bits_of(text: str) -> float | None:
    """Return the bits per weight that a quantization's name, or one within a text, stands for."""
    found = _QUANTIZATION.search(text)
    if found is None:
        return None
    return float(found[4]) if found[4] else float(found[2]) + SCALE_BITS


def _is_of(info: ModelInfo, model: ModelSpec) -> bool:
    if model.sha256 is not None:
        return model.sha256 in (info.sha256, info.origin_sha256)
    return info.name.rpartition("/")[2] == model.ref.rpartition("/")[2].removeprefix("path:")


def _is_wanted(info: ModelInfo, model: ModelSpec) -> bool:
    return model.quantization is None or info.quantization == model.quantization


def _parameters(info: ModelInfo) -> float | None:
    if info.parameters:
        return float(info.parameters)
    return info.bytes * 8 / info.bits_per_weight if info.bits_per_weight else None


def _held_bits(cell: Cell) -> float | None:
    quantized = str(cell.labels.get("load_quantization") or "")
    if quantized:
        return 4.0 if quantized.startswith("int4") else 8.0
    dtype = cell.labels.get("dtype")
    if dtype is None and cell.backend != UNPACKING_BACKEND:
        return None
    return 16.0 if dtype == "bf16" else 32.0
