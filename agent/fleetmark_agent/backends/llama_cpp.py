"""llama.cpp in this process through llama-cpp-python: the reference backend."""

import codecs
import ctypes
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetmark_agent.backends.base import (
    COMMON_OPTIONS,
    Availability,
    Completion,
    LoadReport,
    Token,
    check_length,
    load_failed,
)
from fleetmark_agent.backends.binaries import llama_cpp_knows, package_file
from fleetmark_agent.backends.packages import probe_package
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendError
from fleetmark_protocol.messages import Options

LOG_LEVEL_ERROR = 4
SAID_LINES = 4


class LlamaCpp:
    """Tokens come one by one from llama.cpp's own sampler chain, so counts and times are exact."""

    name = "llama_cpp"
    formats = ("gguf",)
    takes = COMMON_OPTIONS

    def __init__(self, _engines: EnginesSettings) -> None:
        self._llama: Any = None
        self._end_tokens: list[int] = []

    def probe(self) -> Availability:
        """See `Backend.probe`."""
        return probe_package(
            "llama-cpp-python",
            "llama_cpp",
            "llama-cpp",
            features_code="print(llama_cpp.llama_print_system_info().decode())",
        )

    def knows(self, architecture: str, _options: Options) -> bool | None:
        """See `KnowsArchitectures.knows`."""
        return llama_cpp_knows(package_file("llama_cpp", "lib/libllama.so*"), architecture)

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        self.close()
        import llama_cpp

        started_s = time.perf_counter()
        extra = {} if options.batch_tokens is None else {"n_batch": options.batch_tokens}
        with overheard() as said:
            try:
                self._llama = llama_cpp.Llama(
                    model_path=str(model),
                    n_ctx=options.context_tokens,
                    n_threads=options.threads,
                    n_threads_batch=options.threads,
                    n_gpu_layers=0,
                    seed=options.seed,
                    no_perf=False,
                    verbose=False,
                    **extra,
                )
            except (ValueError, AssertionError) as error:
                raise load_failed(model, error, " | ".join(said)) from error
        load_s = time.perf_counter() - started_s
        self._end_tokens = end_tokens_of(self._llama)
        return LoadReport(
            load_s,
            version=llama_cpp.__version__,
            details={
                "context_tokens": self._llama.n_ctx(),
                "threads": self._llama.n_threads,
                "system": llama_cpp.llama_print_system_info().decode().strip(),
            },
        )

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        import llama_cpp

        llama = self._llama
        if llama is None:
            raise BackendError("no model is loaded")
        prompt_ids = llama.tokenize(prompt.encode(), add_bos=True, special=True)
        check_length(len(prompt_ids), output_tokens, llama.n_ctx())
        # From position 0: nothing of an earlier prompt may be reused.
        llama.reset()
        llama_cpp.llama_perf_context_reset(llama.ctx)
        sampler = make_sampler(llama, options, self._end_tokens)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        made = 0
        stop_reason = "length"
        try:
            llama.eval(prompt_ids)
            while made < output_tokens:
                token = llama_cpp.llama_sampler_sample(sampler, llama.ctx, -1)
                time_ns = time.perf_counter_ns()
                if not options.ignore_eos and token in self._end_tokens:
                    stop_reason = "eos"
                    break
                made += 1
                text = decoder.decode(llama.detokenize([token], prev_tokens=prompt_ids))
                yield Token(time_ns, text, (token,))
                if made < output_tokens:
                    llama.eval([token])
        except RuntimeError as error:
            raise BackendError(f"llama.cpp failed: {error}") from error
        finally:
            llama_cpp.llama_sampler_free(sampler)
        perf = llama_cpp.llama_perf_context(llama.ctx)
        yield Completion(
            prompt_tokens=len(prompt_ids),
            prompt_tokens_evaluated=len(prompt_ids),
            output_tokens=made,
            stop_reason=stop_reason,
            prompt_ids=tuple(prompt_ids),
            engine_prefill_s=perf.t_p_eval_ms / 1e3,
            engine_decode_s=perf.t_eval_ms / 1e3,
        )

    def close(self) -> None:
        """See `Backend.close`."""
        if self._llama is not None:
            self._llama.close()
            self._llama = None


@contextmanager
def overheard() -> Iterator[deque[str]]:
    """Collect the last errors that llama.cpp logs: its binding tells no reason for a failure."""
    import llama_cpp
    from llama_cpp._logger import llama_log_callback

    said: deque[str] = deque(maxlen=SAID_LINES)

    def collect(level: int, text: bytes, _user_data: object) -> None:
        if level == LOG_LEVEL_ERROR and (line := text.decode("utf-8", "replace").strip()):
            said.append(line)

    callback = llama_cpp.llama_log_callback(collect)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield said
    finally:
        llama_cpp.llama_log_set(llama_log_callback, ctypes.c_void_p(0))


def end_tokens_of(llama: Any) -> list[int]:
    """Return the tokens that end an answer of a loaded model."""
    import llama_cpp

    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    return [token for token in range(llama.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, token)]


def make_sampler(llama: Any, options: Options, end_tokens: list[int]) -> Any:
    """Return a native chain: end tokens banned if asked, then greedy or temperature."""
    import llama_cpp

    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    add = llama_cpp.llama_sampler_chain_add
    if options.ignore_eos and end_tokens:
        bias = (llama_cpp.llama_logit_bias * len(end_tokens))()
        for slot, token in zip(bias, end_tokens, strict=True):
            slot.token, slot.bias = token, float("-inf")
        n_vocab = ctypes.c_int32(llama.n_vocab())
        add(chain, llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(end_tokens), bias))
    if options.temperature == 0:
        add(chain, llama_cpp.llama_sampler_init_greedy())
    else:
        add(chain, llama_cpp.llama_sampler_init_temp(options.temperature))
        add(chain, llama_cpp.llama_sampler_init_dist(options.seed))
    return chain
