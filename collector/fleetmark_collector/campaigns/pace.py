"""How fast a cell runs on a device: what the time of each of its requests follows from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SHARED_DECODE = 0.5
"""What each further client adds to the time of a token, as a share of it: weights are read once for
all of them. A rule of thumb, for numbers of clients that nobody has seen."""


@dataclass(frozen=True)
class Pace:
    """How fast one cell ran on one device; medians.

    Attributes:
        start_s: around each start of the engine: quiet gate, worker process, what is not the load.
        load_s: of each load of the model that is made once.
        gap_s: between two trials.
        prefill_s: per prompt token.
        decode_s: per output token.
        low: what the fast trials took, as a share of what this pace foretells.
        high: the same of the slow ones.
        cold_load_s: of one that is made for a request alone; None where there is no difference.
        jobs: how many jobs it was seen in.
        trials: how many trials.
        crowds: clients that asked at the same time -> how many times as long each request took.
        seen_s: (prompt tokens, output tokens) -> how long such a request took; the rates are for
            others, because a short prompt's tokens are dearer than a long one's.
    """

    start_s: float
    load_s: float
    gap_s: float
    prefill_s: float
    decode_s: float
    low: float = 1.0
    high: float = 1.0
    cold_load_s: float | None = None
    jobs: int = 0
    trials: int = 0
    crowds: Mapping[int, float] = field(default_factory=dict)
    seen_s: Mapping[tuple[float, float], float] = field(default_factory=dict)

    def trial_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """Return how long one request takes."""
        by_rates_s = prompt_tokens * self.prefill_s + output_tokens * self.decode_s
        return self.seen_s.get((prompt_tokens, output_tokens), by_rates_s)

    def round_s(self, prompt_tokens: float, output_tokens: float, clients: int) -> float:
        """Return how long a request takes while so many are made at the same time."""
        alone_s = self.trial_s(prompt_tokens, output_tokens)
        if clients in self.crowds:
            return alone_s * self.crowds[clients]
        prefill_s = clients * prompt_tokens * self.prefill_s
        return prefill_s + output_tokens * self.decode_s * shared(clients)


def shared(clients: int) -> float:
    """Return how many times as long a token takes while so many share the engine."""
    return 1 + SHARED_DECODE * (clients - 1)
