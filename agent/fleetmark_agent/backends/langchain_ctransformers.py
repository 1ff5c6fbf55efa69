"""LangChain's CTransformers: it streams to callbacks only, and CTransformers tokenizes beneath."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetmark_agent.backends import ctransformers as bare
from fleetmark_agent.backends import ctransformers_tokens as tokens
from fleetmark_agent.backends.base import Completion, LoadReport, Token, check_length
from fleetmark_agent.backends.ctransformers_check import check
from fleetmark_agent.backends.langchain_chunks import Chunks
from fleetmark_agent.backends.packages import probe_package
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendError
from fleetmark_protocol.messages import Options


class OverCTransformers:
    """Prompt ids and sampling are the bare backend's, put where CTransformers asks for its own.

    The wrapper hands out an answer in one piece at its end; its tokens go to a callback, so they
    are timed there, and nothing can be broken off before the end.
    """

    def __init__(self, _engines: EnginesSettings) -> None:
        self._llm: Any = None
        self._vocabulary: tokens.Vocabulary | None = None
        self._add_first = True
        self._end_tokens: frozenset[int] = frozenset()

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        header = check(model)
        batch = bare.batch_tokens(options)
        vocabulary = tokens.vocabulary(header) if header.values else None
        from langchain_community.llms import CTransformers

        config = {
            "context_length": options.context_tokens,
            "threads": -1 if options.threads is None else options.threads,
            "batch_size": batch,
        }
        started_s = time.perf_counter()
        try:
            self._llm = CTransformers(
                model=str(model),
                model_type=header.model_type,
                lib=bare.find_library(),
                config=config,
            )
        except RuntimeError as error:
            raise bare.load_failed(model, options, header, error) from error
        load_s = time.perf_counter() - started_s
        client = self._llm.client
        self._vocabulary = vocabulary
        self._add_first = bool(header.number("tokenizer.ggml.add_bos_token", 1))
        self._end_tokens = tokens.end_tokens(header) | {client.eos_token_id}
        client.is_eos_token = self._end_tokens.__contains__
        if self._vocabulary is not None:
            spelled = self._vocabulary.spelled
            client.detokenize = lambda ids, **_: b"".join(spelled[token] for token in ids)
        return LoadReport(
            load_s,
            version=probe_package("ctransformers", "ctransformers", "ctransformers").version,
            details={"context_tokens": client.context_length, "batch_tokens": batch},
        )

    def prepare(self, _prompt: str, _options: Options) -> None:
        """See `Prepares.prepare`; nothing is left that could be found again."""

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        from langchain_core.callbacks import BaseCallbackHandler

        client = self._llm.client
        prompt_ids = self._prompt_ids(prompt)
        check_length(len(prompt_ids), output_tokens, client.context_length)
        bare.forget(client)
        chunks = Chunks(self._end_tokens)
        steps: list[Token] = []

        def hear(token: str, **_: Any) -> None:
            steps.extend(chunks.step(time.perf_counter_ns(), token))

        listener = BaseCallbackHandler()
        listener.raise_error = True
        listener.on_llm_new_token = hear
        client.tokenize = lambda *_: prompt_ids
        client.sample = self._sampler(client, options, chunks.sampled)
        client.config.max_new_tokens = output_tokens
        try:
            for _ in self._llm.stream(prompt, config={"callbacks": [listener]}):
                continue
        except RuntimeError as error:
            raise BackendError(f"CTransformers through LangChain failed: {error}") from error
        finally:
            # It holds the client, which frees the model when nobody holds it.
            del client.sample
        steps.extend(chunks.step(time.perf_counter_ns(), ""))
        yield from steps
        yield Completion(
            prompt_tokens=len(prompt_ids),
            prompt_tokens_evaluated=len(prompt_ids),
            output_tokens=chunks.output,
            stop_reason="eos" if chunks.ended else "length",
            prompt_ids=tuple(prompt_ids),
        )

    def close(self) -> None:
        """See `Backend.close`."""
        self._llm = None

    def _prompt_ids(self, prompt: str) -> list[int]:
        if self._vocabulary is not None:
            return tokens.encode(self._vocabulary, prompt)
        return bare.tokenize(self._llm.client, prompt, self._add_first)

    def _sampler(self, client: Any, options: Options, sampled: list[int]) -> Any:
        """Return what samples as the bare backend does, and writes ids down."""
        sample = type(client).sample

        def sampler(**_: Any) -> int:
            if options.ignore_eos:
                bare.ban(client, self._end_tokens)
            token = int(sample(client, **bare.sampling(options, len(sampled))))
            sampled.append(token)
            return token

        return sampler
