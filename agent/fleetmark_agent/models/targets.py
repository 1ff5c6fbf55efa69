"""What can be made out of a model, and with which tool."""

import importlib.util
from dataclasses import dataclass
from typing import Literal

from fleetmark_protocol.errors import BackendUnavailable, ConfigError

GGUF_2023 = "gguf-2023"
"""A GGUF file that the llama.cpp inside CTransformers 0.2.27 reads."""

Tool = Literal["gguf", "llama.cpp"]
Wish = Literal["auto", "llama.cpp", "gguf"]

BY_GGUF = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
"""What the `gguf` package's quantizers make; the same bytes on every machine."""
BY_LLAMA_CPP = BY_GGUF + ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K")
"""What llama.cpp's own quantizer makes."""
FLOATS = ("F32", "F16", "BF16")
"""What safetensors hold."""
FORMATS = (GGUF_2023, "safetensors")
"""What a GGUF file can become besides another quantization."""
VERSION = 1
"""Of our rules; a new version makes files anew."""


@dataclass(frozen=True)
class Target:
    """What is to be made of a GGUF file.

    Attributes:
        format: `gguf`, `gguf-2023` or `safetensors`.
        quantization: of the weights; None leaves them as they are, as far as the format can.
        tool: what computes the weights.
    """

    format: str
    quantization: str | None = None
    tool: Tool = "gguf"

    @property
    def name(self) -> str:
        """For people and file names."""
        return "-".join(
            part
            for part in (self.format if self.format != "gguf" else None, self.quantization)
            if part is not None
        )


def for_job(quantization: str) -> Target:
    """Return how a quantization is made for a job: the same way on every device, where possible.

    Raises:
        ConfigError: nobody here can make it; says what can be made.
    """
    name = checked(quantization)
    return Target("gguf", name, "gguf" if name in BY_GGUF else "llama.cpp")


def for_owner(wanted: str, wish: Wish = "auto") -> Target:
    """Return how what the owner asks for is made.

    Args:
        wanted: a quantization or a format.
        wish: which tool; `auto` takes llama.cpp's quantizer where it is installed.

    Raises:
        ConfigError: it cannot be made, or not with this tool.
        BackendUnavailable: llama.cpp's quantizer is needed and not installed.
    """
    if wanted.lower() in FORMATS:
        if wish == "llama.cpp":
            raise ConfigError(f"{wanted} is not made by llama.cpp", hint="leave --tool out")
        return Target(wanted.lower())
    name = checked(wanted)
    if wish == "gguf" and name not in BY_GGUF:
        raise ConfigError(
            f"{name} is not made by the gguf package", hint=f"it makes {', '.join(BY_GGUF)}"
        )
    if wish == "gguf" or (wish == "auto" and name in BY_GGUF and not llama_cpp_here()):
        return Target("gguf", name)
    check_tool("llama.cpp", name)
    return Target("gguf", name, "llama.cpp")


def checked(quantization: str) -> str:
    """Return a quantization's name as files have it.

    Raises:
        ConfigError: it cannot be made; says what can.
    """
    if quantization.upper() not in BY_LLAMA_CPP:
        raise ConfigError(
            f"{quantization!r} cannot be made here",
            hint=f"can be made: {', '.join(BY_LLAMA_CPP)} (and by `model convert` also"
            f" {', '.join(FORMATS)}); for others name a file that already holds them",
        )
    return quantization.upper()


def check_tool(tool: Tool, quantization: str) -> None:
    """Check that a tool is installed.

    Raises:
        BackendUnavailable: it is not; says how to get it.
    """
    if tool == "llama.cpp" and not llama_cpp_here():
        raise BackendUnavailable(
            f"{quantization} is made by llama.cpp's quantizer, and llama-cpp-python is not"
            " installed",
            hint="pip install 'fleetmark[llama-cpp]', or name a file that already holds it",
        )


def llama_cpp_here() -> bool:
    """Whether llama.cpp's own quantizer is installed; nothing is imported."""
    return importlib.util.find_spec("llama_cpp") is not None
