"""An engine without a process: a request takes a second, after a pause that is not to count."""

from fakes.fake_sensor import FakeClock, FakeCounters
from fleetmark_agent.engine import Timed
from fleetmark_agent.telemetry.process import ProcessTree
from fleetmark_agent.telemetry.sample import Sample
from fleetmark_agent.telemetry.window import OpenWindow, Window

START_S = 1000.0
PAUSE_S = 100.0


def answer(tokens: int = 8, start_s: float = 0.0, **completion) -> dict:
    """What a worker sends of a request of one second."""
    start_ns = int(start_s * 1e9)
    return {
        "start_ns": start_ns,
        "end_ns": start_ns + 10**9,
        "token_times_ns": [start_ns + 10**8 * (1 + token) for token in range(tokens)],
        "token_counts": [1] * tokens,
        "token_ids": list(range(tokens)),
        "text": "x" * tokens,
        "completion": {
            "prompt_tokens": 2,
            "prompt_tokens_evaluated": 2,
            "output_tokens": tokens,
            "stop_reason": "length",
            **completion,
        },
    }


class FakeEngine:
    """Stands in for `engine.Engine`; its clocks run by themselves."""

    def __init__(self, *_: object) -> None:
        self.mono, self.wall = FakeClock(int(START_S * 1e9)), FakeClock(10**18)
        self.counters = FakeCounters(self.mono, self.wall)
        self.opened = []

    def load(self) -> Timed:
        told = {"load_s": 0.5, "version": "1", "details": {}}
        return Timed(told, self.window(0.5), None)

    def generate(self, _prompt: str, output_tokens: int, _trial_id: str) -> Timed:
        self.pass_s(PAUSE_S)
        return Timed(answer(output_tokens), self.window(1.0), None)

    def window(self, seconds: float) -> Window:
        opened = self.counters.read(None)
        self.opened.append(opened)
        before = Sample(opened.mono_ns, opened.time_ns, {})
        window = OpenWindow("job", "trial", ProcessTree(2**22 + 1), before, opened)
        self.pass_s(seconds)
        window.add(Sample(self.mono(), self.wall(), {}))
        return window.close(self.counters.read(None))

    def pass_s(self, seconds: float) -> None:
        self.mono.advance(seconds)
        self.wall.advance(seconds)

    def alive(self) -> bool:
        return True

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        pass
