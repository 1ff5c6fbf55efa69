"""LangChain's LlamaCpp: llama-cpp-python's completion, which is written for people, beneath it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetmark_agent.backends.base import Completion, LoadReport, Token, check_length, load_failed
from fleetmark_agent.backends.langchain_chunks import Chunks
from fleetmark_agent.backends.llama_cpp import end_tokens_of, make_sampler, overheard
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendError
from fleetmark_protocol.messages import Options


class OverLlamaCpp:
    """The wrapper's client is llama-cpp-python's own object; it is asked for ids and counts."""

    def __init__(self, _engines: EnginesSettings) -> None:
        self._llm: Any = None
        self._end_tokens: list[int] = []

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        import llama_cpp
        from langchain_community.llms import LlamaCpp

        more: dict[str, Any] = {"n_threads_batch": options.threads, "no_perf": False}
        started_s = time.perf_counter()
        with overheard() as said:
            try:
                self._llm = LlamaCpp(
                    model_path=str(model),
                    n_ctx=options.context_tokens,
                    n_threads=options.threads,
                    # The wrapper's own default is 8, the engine's 512.
                    n_batch=options.batch_tokens or 512,
                    n_gpu_layers=0,
                    seed=options.seed,
                    # The wrapper would set 10000 and 1 whatever the model was trained with.
                    rope_freq_base=0.0,
                    rope_freq_scale=0.0,
                    model_kwargs=more,
                    verbose=False,
                )
            except (ValueError, AssertionError) as error:
                raise load_failed(model, error, " | ".join(said)) from error
        load_s = time.perf_counter() - started_s
        client = self._llm.client
        self._end_tokens = end_tokens_of(client)
        return LoadReport(
            load_s,
            version=llama_cpp.__version__,
            details={"context_tokens": client.n_ctx(), "threads": client.n_threads},
        )

    def prepare(self, _prompt: str, _options: Options) -> None:
        """See `Prepares.prepare`; nothing is left that could be found again."""

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        import llama_cpp

        llm = self._llm
        client = llm.client
        prompt_tokens = len(client.tokenize(prompt.encode(), add_bos=True, special=True))
        check_length(prompt_tokens, output_tokens, client.n_ctx())
        # It would find the beginning again that this prompt has in common with the last one.
        client.reset()
        llama_cpp.llama_perf_context_reset(client.ctx)
        chunks = Chunks(frozenset(self._end_tokens))
        chain = make_sampler(client, options, self._end_tokens)
        sampler = _Sampler(chain, chunks.sampled, output_tokens)
        client._init_sampler = lambda **_: sampler
        try:
            for text in llm.stream(prompt, max_tokens=output_tokens):
                yield from chunks.step(time.perf_counter_ns(), text)
        except _Enough:
            pass
        except RuntimeError as error:
            raise BackendError(f"llama.cpp through LangChain failed: {error}") from error
        finally:
            sampler.close()
        # Parts of a character that was never finished come in no chunk.
        yield from chunks.step(sampler.last_ns, "")
        perf = llama_cpp.llama_perf_context(client.ctx)
        yield Completion(
            prompt_tokens=prompt_tokens,
            prompt_tokens_evaluated=prompt_tokens,
            output_tokens=chunks.output,
            stop_reason="eos" if chunks.ended else "length",
            prompt_ids=tuple(int(token) for token in client.input_ids[:prompt_tokens]),
            engine_prefill_s=perf.t_p_eval_ms / 1e3,
            engine_decode_s=perf.t_eval_ms / 1e3,
        )

    def close(self) -> None:
        """See `Backend.close`."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.client.close()


class _Enough(Exception):
    """llama-cpp-python goes on past its limit until a character is whole."""


class _Sampler:
    """The bare backend's native chain where llama-cpp-python would put its own.

    Its own has no way to ban end tokens but a Python function over all logits for each token.
    """

    def __init__(self, chain: Any, sampled: list[int], output_tokens: int) -> None:
        self._chain = chain
        self._sampled = sampled
        self._output_tokens = output_tokens
        self.last_ns = 0
        """`time.perf_counter_ns()` of the last token."""

    def sample(self, context: Any, place: int) -> int:
        """Return the next token.

        Raises:
            _Enough: there are as many as were asked.
        """
        import llama_cpp

        if len(self._sampled) == self._output_tokens:
            raise _Enough
        token = int(llama_cpp.llama_sampler_sample(self._chain, context.ctx, place))
        self._sampled.append(token)
        self.last_ns = time.perf_counter_ns()
        return token

    def close(self) -> None:
        """Free the chain; may be called twice."""
        import llama_cpp

        chain, self._chain = self._chain, None
        if chain is not None:
            llama_cpp.llama_sampler_free(chain)
