"""What LangChain costs: the same model and prompt through the `langchain` backend and the bare one.

Both are our backends, each in a worker process of its own, so that what the agent adds is the same
on both sides. They take turns, in an order shuffled per round; processes are started anew for each
block of rounds (see pairs.py for why), and the interval resamples whole blocks.

    python benchmarks/langchain_overhead.py llama_cpp MODEL.gguf [--blocks 12] [--rounds 4]
    python benchmarks/langchain_overhead.py ctransformers COPY.gguf
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from pairs import arguments, ratio_interval, run_blocks
from shortest import PROMPT

from fleetmark_agent.trials import measured_fields
from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol import logs
from fleetmark_protocol.messages import Options

QUANTITIES = {"decode_tps": "tokens/s", "latency_s": "s for the whole request"}
Figures = dict[str, dict[str, list[float]]]


class Side:
    """One backend with its model loaded."""

    def __init__(self, backend: str, inner: str, args: argparse.Namespace, log: Path) -> None:
        chosen = Options(
            threads=args.threads,
            context_tokens=512,
            inner_backend=inner if backend == "langchain" else None,
        )
        self._options = chosen.model_dump()
        self._worker = WorkerProcess(backend, log)
        self._worker.ask({"do": "load", "model": str(args.model), "options": self._options}, 300)

    def ask(self, tokens: int) -> dict:
        command = {
            "do": "generate",
            "prompt": PROMPT,
            "output_tokens": tokens,
            "options": self._options,
        }
        return measured_fields(self._worker.ask(command, 300))

    def rss_bytes(self) -> int:
        return psutil.Process(self._worker.pid).memory_info().rss

    def close(self) -> None:
        self._worker.close()


def run_block(args: argparse.Namespace, rng: random.Random) -> tuple[Figures, dict[str, int]]:
    """Return the quantities of each side, and the memory that it held in the end."""
    figures: Figures = {name: {"bare": [], "langchain": []} for name in QUANTITIES}
    with tempfile.TemporaryDirectory() as directory:
        sides = {
            name: Side(backend, args.inner, args, Path(directory) / f"{name}.log")
            for name, backend in (("bare", args.inner), ("langchain", "langchain"))
        }
        outputs = set()
        try:
            for number in range(args.rounds + 1):
                order = list(sides)
                rng.shuffle(order)
                for name in order:
                    measured = sides[name].ask(args.tokens)
                    outputs.add((measured["prompt_ids_sha256"], measured["output_ids_sha256"]))
                    if number > 0:  # the first round warms up
                        for quantity in QUANTITIES:
                            figures[quantity][name].append(measured[quantity])
                    time.sleep(0.05)
            rss = {name: side.rss_bytes() for name, side in sides.items()}
        finally:
            for side in sides.values():
                side.close()
    if len(outputs) != 1:
        raise SystemExit("the two sides did not do the same work: not comparable")
    return figures, rss


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("inner", choices=("llama_cpp", "ctransformers"))
    args = arguments(parser)
    logs.configure("error")
    blocks = run_blocks(args.blocks, lambda rng: run_block(args, rng))
    for quantity, unit in QUANTITIES.items():
        of_blocks = [figures[quantity] for figures, _ in blocks]
        ratio, low, high = ratio_interval(of_blocks, "langchain")
        medians = {
            side: np.median([value for block in of_blocks for value in block[side]])
            for side in ("bare", "langchain")
        }
        print(
            f"{quantity}: bare {medians['bare']:.4g}, LangChain {medians['langchain']:.4g} {unit};"
            f" ratio {ratio:.4f} (95 % interval {low:.4f} to {high:.4f})"
        )
    for side in ("bare", "langchain"):
        mib = np.median([rss[side] for _, rss in blocks]) / 2**20
        print(f"{side}: {mib:.0f} MiB RSS with the model loaded")


if __name__ == "__main__":
    main()
