"""Whether measuring changes what is measured: decode speed through the agent against a bare loop.

One process runs the shortest llama-cpp-python loop; the other is the agent's worker, watched by
the agent's sampler at 1 Hz or 10 Hz, with outbox and link connected to a real Mosquitto. Both
hold the same model with the same options and take turns, in an order shuffled per round.

Two processes of the very same program differ by a few percent for as long as they live (where
their memory happened to land), more than what is looked for. So both are started anew for each
block of rounds, 1 Hz and 10 Hz use the same worker, and the interval resamples whole blocks.

    python benchmarks/observer_effect.py MODEL.gguf [--blocks 12] [--rounds 4] [--tokens 96]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.link import Link
from fleetmark_agent.outbox import Outbox
from fleetmark_agent.telemetry.sampler import Sampler
from fleetmark_agent.telemetry.sensors import all_sensors
from fleetmark_agent.trials import measured_fields
from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol import logs
from fleetmark_protocol.messages import Options, Status

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from servers import Mosquitto

PROMPT = "The history of the Roman Empire begins with"

BARE = """
import json, sys, time
import llama_cpp
model, threads = sys.argv[1], int(sys.argv[2])
llm = llama_cpp.Llama(model, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
for line in sys.stdin:
    ask = json.loads(line)
    ids = llm.tokenize(ask["prompt"].encode())
    llm.reset()
    times = []
    for token in llm.generate(ids, temp=0.0, top_k=1):
        times.append(time.perf_counter())
        if len(times) == ask["tokens"]:
            break
    print((len(times) - 1) / (times[-1] - times[0]), flush=True)
"""


class Bare:
    """The shortest loop, in a process of its own."""

    def __init__(self, model: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", BARE, str(model), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def decode_tps(self, tokens: int) -> float:
        self._process.stdin.write(json.dumps({"prompt": PROMPT, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Through:
    """The agent's own parts, as `service` puts them together; one worker, two rates of sampling."""

    def __init__(self, model: Path, threads: int, directory: Path, port: int) -> None:
        settings = AgentSettings(
            device_id="observer",
            state_dir=directory,
            broker={"host": "127.0.0.1", "port": port},
        )
        boot_id = str(uuid.uuid4())
        outbox = Outbox(Database(settings.outbox_file), settings.outbox.max_bytes)

        def sampler(hz: float) -> Sampler:
            return Sampler(
                all_sensors(Path("/"), settings.state_dir),
                lambda sample, job, trial: outbox.append(sample.to_record(boot_id, job, trial)),
                1.0,
                1 / hz,
            )

        self._samplers = {hz: sampler(hz) for hz in (1, 10)}
        status = Status(online=True, boot_id=boot_id, agent_version="bench", started_ns=1)
        self._link = Link(
            settings, outbox, status, lambda _: None, lambda _: None, random.Random(1)
        )
        self._options = Options(threads=threads, context_tokens=512).model_dump()
        self._worker = WorkerProcess("llama_cpp", settings.state_dir / "worker.log")
        self._worker.ask({"do": "load", "model": str(model), "options": self._options}, 120)
        # Between windows both sample once a second: one more than an agent does.
        for one in self._samplers.values():
            one.start()
        self._link.start(None)

    def decode_tps(self, tokens: int, hz: int) -> float:
        command = {
            "do": "generate",
            "prompt": PROMPT,
            "output_tokens": tokens,
            "options": self._options,
        }
        sampler = self._samplers[hz]
        with self._link.hold():
            sampler.open_window(self._worker.pid, None, None)
            answer = self._worker.ask(command, 120)
            sampler.close_window().summary()
        return measured_fields(answer)["decode_tps"]

    def close(self) -> None:
        self._worker.close()
        for sampler in self._samplers.values():
            sampler.stop()
        self._link.stop(drain_s=0)


SIDES = ("bare", "1 Hz", "10 Hz")


def run_block(model: Path, args: argparse.Namespace, rng: random.Random) -> dict[str, list[float]]:
    """Return decode tokens per second of each side, from processes of this block's own."""
    figures: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        broker = Mosquitto(Path(name)).start()
        bare = Bare(model, args.threads)
        through = Through(model, args.threads, Path(name) / "state", broker.port)
        measure = {
            "bare": lambda: bare.decode_tps(args.tokens),
            "1 Hz": lambda: through.decode_tps(args.tokens, 1),
            "10 Hz": lambda: through.decode_tps(args.tokens, 10),
        }
        try:
            for number in range(args.rounds + 1):
                order = list(SIDES)
                rng.shuffle(order)
                for side in order:
                    tps = measure[side]()
                    if number > 0:  # the first round warms up
                        figures[side].append(tps)
                    time.sleep(0.05)
        finally:
            bare.close()
            through.close()
            broker.kill()
    return figures


def ratio_interval(blocks: list[dict[str, list[float]]], side: str) -> tuple[float, float, float]:
    """Return the ratio of the medians to the bare loop's, and its 95 % interval."""
    ours = np.array([block[side] for block in blocks])
    bare = np.array([block["bare"] for block in blocks])
    pick = np.random.default_rng(0).integers(0, len(blocks), (5000, len(blocks)))
    ratios = np.median(ours[pick], (1, 2)) / np.median(bare[pick], (1, 2))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(ours) / np.median(bare)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    # The link says once a block that nobody acknowledges; that is as meant here.
    logs.configure("error")
    rng = random.Random(0)
    blocks = []
    for number in range(args.blocks):
        blocks.append(run_block(args.model, args, rng))
        print(f"\rblock {number + 1} of {args.blocks}", end="", file=sys.stderr)
    print(file=sys.stderr)
    for side in SIDES:
        every = [tps for block in blocks for tps in block[side]]
        line = f"{side}: median {np.median(every):.1f} tokens/s of {len(every)}"
        if side != "bare":
            ratio, low, high = ratio_interval(blocks, side)
            line += f", ratio {ratio:.4f} (95 % interval {low:.4f} to {high:.4f})"
        print(line)


if __name__ == "__main__":
    main()
