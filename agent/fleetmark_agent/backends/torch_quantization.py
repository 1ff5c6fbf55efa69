"""Quantizes a PyTorch model's matrices as it is loaded, for kernels that PyTorch has on a CPU."""

import warnings
from typing import Any

GROUP_WEIGHTS = 32
"""Weights that share a scale and a zero in 4 bits, as in GGUF's Q4_1."""
INT4_STEPS, INT4_ZERO = 15, 8
INT8_STEPS = 127


def quantize(model: Any, kind: str) -> float:
    """Quantize every linear layer of a model, in place; return the bits held per weight.

    `int8_dynamic` is PyTorch's own dynamic quantization: 8-bit matrices, activations to 8 bits at
    each call. `int8_weight_only` has one scale per row, `int4_weight_only` scale and zero per 32
    weights; both compute in the model's floating-point type.

    Args:
        model: a loaded one; embeddings and norms stay as they are.
        kind: of `Options.load_quantization`.

    Raises:
        AttributeError, RuntimeError: this PyTorch has no such kernel for this processor.
    """
    import torch

    weights = _weights(model)
    matrices: int
    if kind == "int8_dynamic":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that newer ways exist: none has kernels for a CPU
            torch.ao.quantization.quantize_dynamic(
                model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
            )
        matrices = sum(_dynamic_bytes(module) for module in model.modules())
    else:
        replace = _to_int8 if kind == "int8_weight_only" else _to_int4
        linears = [each for each in model.modules() if isinstance(each, torch.nn.Linear)]
        matrices = sum(replace(linear) for linear in linears)
    return 8 * (matrices + _float_bytes(model)) / weights


def bits_per_weight(model: Any) -> float:
    """Return the bits that a model in floating point holds per weight."""
    return 8 * _float_bytes(model) / _weights(model)


def _weights(model: Any) -> int:
    return sum(int(parameter.numel()) for parameter in model.parameters())


def _float_bytes(model: Any) -> int:
    return sum(int(parameter.nbytes) for parameter in model.parameters())


def _dynamic_bytes(module: Any) -> int:
    if not hasattr(module, "_packed_params"):
        return 0
    weight, _ = module._weight_bias()
    return int(weight.numel())


def _to_int8(linear: Any) -> int:
    import torch

    weight = linear.weight.detach()
    scales = (weight.float().abs().amax(1, keepdim=True) / INT8_STEPS).clamp(min=1e-12)
    packed = (weight / scales).round().to(torch.int8)
    row_scales = scales.flatten().to(weight.dtype)

    def product(rows: Any) -> Any:
        return torch._weight_int8pack_mm(rows, packed, row_scales)

    _replace(linear, product)
    return int(packed.nbytes + row_scales.nbytes)


def _to_int4(linear: Any) -> int:
    import torch

    weight = linear.weight.detach()
    groups = weight.float().reshape(weight.shape[0], -1, GROUP_WEIGHTS)
    low = groups.amin(-1, keepdim=True)
    scales = ((groups.amax(-1, keepdim=True) - low) / INT4_STEPS).clamp(min=1e-12)
    steps = ((groups - low) / scales).round().to(torch.int32).reshape(weight.shape)
    packed = torch._convert_weight_to_int4pack_for_cpu(steps, 1)
    # The kernel reads (step - 8) x scale + zero.
    pairs = torch.cat([scales, low + INT4_ZERO * scales], -1)
    scales_and_zeros = pairs.transpose(0, 1).contiguous().to(weight.dtype)

    def product(rows: Any) -> Any:
        return torch._weight_int4pack_mm_for_cpu(rows, packed, GROUP_WEIGHTS, scales_and_zeros)

    _replace(linear, product)
    return int(packed.nbytes + scales_and_zeros.nbytes)


def _replace(linear: Any, product: Any) -> None:
    """Have a layer compute its product another way, and let go of its matrix."""
    bias = linear.bias
    outputs = linear.out_features

    def forward(values: Any) -> Any:
        rows = product(values.reshape(-1, values.shape[-1]))
        rows = rows if bias is None else rows + bias
        return rows.reshape(*values.shape[:-1], outputs)

    linear.weight = None
    linear.forward = forward
