"""Which tokens of the engine a chunk of LangChain's stream stands for."""

from collections.abc import Iterator

from fleetmark_agent.backends.base import Token


class Chunks:
    """Pairs texts as they arrive with the token ids that the engine has sampled by then.

    A chunk is not a token: a character may take several tokens, and a token may have no text.
    """

    def __init__(self, end_tokens: frozenset[int]) -> None:
        """Prepare.

        Args:
            end_tokens: they end an answer and are no part of it.
        """
        self.sampled: list[int] = []
        """By the engine, in order; whoever drives it appends."""
        self._end_tokens = end_tokens
        self._told = 0

    @property
    def output(self) -> int:
        """How many tokens the answer has."""
        return len(self.sampled) - self.ended

    @property
    def ended(self) -> bool:
        """Whether the model ended the answer."""
        return bool(self.sampled) and self.sampled[-1] in self._end_tokens

    def step(self, time_ns: int, text: str) -> Iterator[Token]:
        """Yield the step that a text makes; none where there is nothing new.

        Args:
            time_ns: `time.perf_counter_ns()` when the text was out.
            text: of the chunk.
        """
        ids = tuple(self.sampled[self._told : self.output])
        if ids:
            self._told += len(ids)
            yield Token(time_ns, text, ids, count=len(ids))
