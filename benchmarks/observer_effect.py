"""Whether measuring changes what is measured: decode speed through the agent against a bare loop.

One process runs the shortest llama-cpp-python loop; the other is the agent's worker, watched by
the agent's sampler at 1 Hz or 10 Hz, with outbox and link connected to a real Mosquitto. Both
hold the same model with the same options and take turns, in an order shuffled per round, in one
run; the figure is the ratio of the medians of decode tokens per second, with a bootstrap interval.

    python benchmarks/observer_effect.py MODEL.gguf [--rounds 30] [--tokens 64]
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
    """The agent's own parts, as `service` puts them together."""

    def __init__(self, model: Path, threads: int, hz: float, directory: Path, port: int) -> None:
        settings = AgentSettings(
            device_id=f"observer-{hz:g}hz",
            state_dir=directory / f"{hz:g}",
            broker={"host": "127.0.0.1", "port": port},
        )
        boot_id = str(uuid.uuid4())
        outbox = Outbox(Database(settings.outbox_file), settings.outbox.max_bytes)
        self._sampler = Sampler(
            all_sensors(Path("/"), settings.state_dir),
            lambda sample, job, trial: outbox.append(sample.to_record(boot_id, job, trial)),
            1.0,
            1 / hz,
        )
        status = Status(online=True, boot_id=boot_id, agent_version="bench", started_ns=1)
        self._link = Link(
            settings, outbox, status, lambda _: None, lambda _: None, random.Random(1)
        )
        self._options = Options(threads=threads, context_tokens=512).model_dump()
        self._worker = WorkerProcess("llama_cpp", settings.state_dir / "worker.log")
        self._worker.ask({"do": "load", "model": str(model), "options": self._options}, 120)
        self._sampler.start()
        self._link.start(None)
        self._sampler.follow(self._worker.pid)

    def decode_tps(self, tokens: int) -> float:
        command = {
            "do": "generate",
            "prompt": PROMPT,
            "output_tokens": tokens,
            "options": self._options,
        }
        with self._link.hold():
            self._sampler.open_window(self._worker.pid, None, None)
            answer = self._worker.ask(command, 120)
            self._sampler.close_window().summary()
        return measured_fields(answer)["decode_tps"]

    def close(self) -> None:
        self._worker.close()
        self._sampler.stop()
        self._link.stop(drain_s=0)


def ratio_interval(ours: list[float], bare: list[float]) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    pick = rng.integers(0, len(bare), (5000, len(bare)))
    # The same rounds on both sides: they saw the same weather.
    ratios = np.median(np.array(ours)[pick], 1) / np.median(np.array(bare)[pick], 1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(ours) / np.median(bare)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        broker = Mosquitto(Path(name)).start()
        sides = {
            "bare": Bare(args.model, args.threads),
            "1 Hz": Through(args.model, args.threads, 1, Path(name), broker.port),
            "10 Hz": Through(args.model, args.threads, 10, Path(name), broker.port),
        }
        figures: dict[str, list[float]] = {side: [] for side in sides}
        try:
            for number in range(args.rounds + 2):
                order = list(sides)
                rng.shuffle(order)
                for side in order:
                    tps = sides[side].decode_tps(args.tokens)
                    if number >= 2:
                        figures[side].append(tps)
                    time.sleep(0.05)
                print(f"\rround {number + 1} of {args.rounds + 2}", end="", file=sys.stderr)
        finally:
            for side in sides.values():
                side.close()
            broker.kill()
    print(file=sys.stderr)
    print(f"bare loop: median {np.median(figures['bare']):.1f} tokens/s")
    for side in ("1 Hz", "10 Hz"):
        ratio, low, high = ratio_interval(figures[side], figures["bare"])
        median = np.median(figures[side])
        print(
            f"agent at {side}: median {median:.1f} tokens/s, "
            f"ratio {ratio:.4f} (95 % interval {low:.4f} to {high:.4f})"
        )


if __name__ == "__main__":
    main()
