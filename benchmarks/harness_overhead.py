"""What our harness costs an engine: decode speed of each backend against the shortest script.

One side is `shortest.py` for the engine; the other our backend in the agent's worker process, in a
window of the agent's sampler at its default interval for trials, as in a job. Both hold the same
model with the same options and take turns; see pairs.py for how.

    python benchmarks/harness_overhead.py BACKEND MODEL [--program llama-server] [--blocks 12]
"""

import argparse
import random
import tempfile
from pathlib import Path

from pairs import Figures, Shortest, arguments, report, run_blocks, take_turns
from shortest import CONTEXT_TOKENS, ENGINES, PROMPT

from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_agent.config import TelemetrySettings
from fleetmark_agent.telemetry.sampler import Sampler
from fleetmark_agent.telemetry.sensors import all_sensors
from fleetmark_agent.trials import measured_fields
from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol import logs
from fleetmark_protocol.messages import Options

LIMIT_S = 300


class Harness:
    """A worker with a model, watched as in a job."""

    def __init__(self, args: argparse.Namespace, directory: Path) -> None:
        telemetry = TelemetrySettings()
        self._sampler = Sampler(
            all_sensors(telemetry.sensor_root, directory),
            lambda *_: None,
            telemetry.interval_s,
            telemetry.trial_interval_s,
        )
        options = Options(threads=args.threads, context_tokens=CONTEXT_TOKENS)
        self._options = options.model_dump()
        self._worker = WorkerProcess(args.backend, directory / "worker.log")
        engines = EnginesSettings.model_validate({"llama_server": {"executable": args.program}})
        load = {
            "do": "load",
            "model": str(args.model),
            "options": self._options,
            "engines": engines.model_dump(mode="json"),
        }
        self._worker.ask(load, LIMIT_S)
        self._sampler.follow(self._worker.pid)
        self._sampler.start()

    def decode_tps(self, tokens: int) -> float:
        """Run a trial."""
        command = {
            "do": "generate",
            "prompt": PROMPT,
            "output_tokens": tokens,
            "options": self._options,
        }
        self._sampler.open_window(self._worker.pid, None, None)
        answer = self._worker.ask(command, LIMIT_S)
        self._sampler.close_window().summary()
        return float(measured_fields(answer)["decode_tps"])

    def close(self) -> None:
        """End the worker."""
        self._worker.close()
        self._sampler.stop()


def run_block(args: argparse.Namespace, rng: random.Random) -> Figures:
    """Return the figures of both sides, from processes of this block's own."""
    program = [str(args.program)] if args.backend == "llama_server" else []
    with tempfile.TemporaryDirectory() as directory:
        bare = Shortest(args.backend, args.model, args.threads, *program)
        harness = Harness(args, Path(directory))
        sides = {
            "bare": lambda: bare.decode_tps(args.tokens),
            "harness": lambda: harness.decode_tps(args.tokens),
        }
        try:
            return take_turns(sides, args.rounds, rng)
        finally:
            bare.close()
            harness.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", choices=sorted(ENGINES))
    parser.add_argument("--program", type=Path, default="llama-server")
    args = arguments(parser)
    logs.configure("error")
    blocks = run_blocks(args.blocks, lambda rng: run_block(args, rng))
    print(f"{args.backend}, {args.threads} thread(s), {args.tokens} tokens")
    report(blocks)


if __name__ == "__main__":
    main()
