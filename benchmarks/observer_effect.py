"""Whether measuring changes what is measured: decode speed through the agent against a bare loop.

One process runs the shortest llama-cpp-python loop; the other is the agent's worker, watched by
the agent's sampler at 1 Hz or 10 Hz, with outbox and link connected to a real Mosquitto. Both
hold the same model with the same options and take turns, in an order shuffled per round.

Both are started anew for each block of rounds (see pairs.py); 1 Hz and 10 Hz use the same worker.

    python benchmarks/observer_effect.py MODEL.gguf [--blocks 12] [--rounds 4] [--tokens 96]
"""

import argparse
import random
import sys
import tempfile
import uuid
from pathlib import Path

from pairs import Figures, Shortest, arguments, report, run_blocks, take_turns
from shortest import CONTEXT_TOKENS, PROMPT

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
        self._options = Options(threads=threads, context_tokens=CONTEXT_TOKENS).model_dump()
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


def run_block(model: Path, args: argparse.Namespace, rng: random.Random) -> Figures:
    """Return decode tokens per second of each side, from processes of this block's own."""
    with tempfile.TemporaryDirectory() as name:
        broker = Mosquitto(Path(name)).start()
        bare = Shortest("llama_cpp", model, args.threads)
        through = Through(model, args.threads, Path(name) / "state", broker.port)
        measure = {
            "bare": lambda: bare.decode_tps(args.tokens),
            "1 Hz": lambda: through.decode_tps(args.tokens, 1),
            "10 Hz": lambda: through.decode_tps(args.tokens, 10),
        }
        try:
            return take_turns(measure, args.rounds, rng)
        finally:
            bare.close()
            through.close()
            broker.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    args = arguments(parser)
    # The link says once a block that nobody acknowledges; that is as meant here.
    logs.configure("error")
    blocks = run_blocks(args.blocks, lambda rng: run_block(args.model, args, rng))
    report(blocks)


if __name__ == "__main__":
    main()
