"""How fast a device may be with a model that nobody has run on anything like it; rough, and pure.

Generating a token reads all weights once, so memory bandwidth over the weights' size tells its
time; a prompt token costs two operations a weight. The figures are what such machines reach with
such engines, not what their makers state; see `estimate.WIDTH` for how far off this may be.
"""

from dataclasses import dataclass

from fleetmark_collector.campaigns.pace import Pace
from fleetmark_collector.campaigns.sizes import Weights
from fleetmark_protocol.messages import Hardware

GUESSED_START_S = 10.0
"""Quiet gate and worker process."""
TOKEN_S = 0.002
"""What an engine does for each token beside reading weights."""
FLOPS_PER_WEIGHT = 2


@dataclass(frozen=True)
class _Speed:
    """What a kind of machine reaches.

    Attributes:
        memory_bytes_per_s: reading weights.
        flops_per_s: evaluating prompts, on one core.
        disk_bytes_per_s: loading.
    """

    memory_bytes_per_s: float
    flops_per_s: float
    disk_bytes_per_s: float


_BOARDS = {
    "Raspberry Pi 5": _Speed(9e9, 8e9, 80e6),
    "Raspberry Pi 500": _Speed(9e9, 8e9, 80e6),
    "Compute Module 5": _Speed(9e9, 8e9, 80e6),
    "Raspberry Pi 4": _Speed(4e9, 3e9, 40e6),
    "Raspberry Pi 400": _Speed(4e9, 3e9, 40e6),
    "Compute Module 4": _Speed(4e9, 3e9, 40e6),
    "Raspberry Pi 3": _Speed(2e9, 1e9, 20e6),
    "Raspberry Pi Zero 2": _Speed(2e9, 1e9, 20e6),
}
_SERVER = _Speed(12e9, 12e9, 200e6)


def guessed_pace(hardware: Hardware, weights: Weights, threads: int | None) -> Pace:
    """Return a pace by the size of the weights and the kind of the machine."""
    board = hardware.board or ""
    # The longest name first: a Raspberry Pi 400 is no Raspberry Pi 4.
    names = sorted(_BOARDS, key=len, reverse=True)
    speed = next((_BOARDS[name] for name in names if name in board), _SERVER)
    cores = hardware.cores_physical or hardware.cores_logical or 1
    used = min(threads or cores, cores)
    return Pace(
        start_s=GUESSED_START_S,
        load_s=weights.bytes / speed.disk_bytes_per_s,
        gap_s=0.0,
        prefill_s=TOKEN_S + FLOPS_PER_WEIGHT * weights.parameters / (speed.flops_per_s * used),
        decode_s=TOKEN_S + weights.bytes / speed.memory_bytes_per_s,
    )


def kind_of(hardware: Hardware) -> tuple[str, ...]:
    """Return what makes two devices of one kind: board (of any revision), processor and cores."""
    board = (hardware.board or "").partition(" Rev ")[0]
    cores = str(hardware.cores_logical or "?")
    return (hardware.arch, board, hardware.cpu_model or "?", cores)
