"""What side-by-side benchmarks share: a script in a process of its own, and ratios of blocks.

Two processes of the very same program differ by a few percent for as long as they live (where their
memory happened to land). So processes are started anew for each block of rounds, the sides take
turns in an order shuffled per round, and the interval resamples whole blocks.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

PAUSE_S = 0.05
Block = TypeVar("Block")
Figures = dict[str, list[float]]
"""From a side's name to its rate in each round, such as decode tokens per second."""


class Shortest:
    """`shortest.py` for one engine."""

    def __init__(self, backend: str, model: Path, threads: int, *program: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("shortest.py")), backend]
        self._process = subprocess.Popen(
            [*command, str(model), str(threads), *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def decode_tps(self, tokens: int) -> float:
        """Generate and return tokens per second after the first."""
        self._process.stdin.write(f"{tokens}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Kill it and what it has started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, with what all of these benchmarks take."""
    parser.add_argument("model", type=Path)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def run_blocks(count: int, run_block: Callable[[random.Random], Block]) -> list[Block]:
    """Return what each block gives, and say on the way how far it is."""
    rng = random.Random(0)
    blocks = []
    for number in range(count):
        blocks.append(run_block(rng))
        print(f"\rblock {number + 1} of {count}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return blocks


def take_turns(
    sides: Mapping[str, Callable[[], float]], rounds: int, rng: random.Random
) -> Figures:
    """Return the figures of one block; a first round warms up and is not counted."""
    figures: Figures = {name: [] for name in sides}
    for number in range(rounds + 1):
        order = list(sides)
        rng.shuffle(order)
        for name in order:
            rate = sides[name]()
            if number > 0:
                figures[name].append(rate)
            time.sleep(PAUSE_S)
    return figures


def ratio_interval(
    blocks: list[Figures], side: str, base: str = "bare"
) -> tuple[float, float, float]:
    """Return the ratio of the medians to the base's, and its 95 % interval."""
    ours = np.array([block[side] for block in blocks])
    bare = np.array([block[base] for block in blocks])
    pick = np.random.default_rng(0).integers(0, len(blocks), (5000, len(blocks)))
    ratios = np.median(ours[pick], (1, 2)) / np.median(bare[pick], (1, 2))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(ours) / np.median(bare)), float(low), float(high)


def report(blocks: list[Figures], base: str = "bare", unit: str = "tokens/s") -> None:
    """Print the median of each side, and its ratio to the base."""
    for side in blocks[0]:
        every = [rate for block in blocks for rate in block[side]]
        line = f"{side}: median {np.median(every):,.1f} {unit} of {len(every)}"
        if side != base:
            ratio, low, high = ratio_interval(blocks, side, base)
            line += f", ratio {ratio:.4f} (95 % interval {low:.4f} to {high:.4f})"
        print(line)
