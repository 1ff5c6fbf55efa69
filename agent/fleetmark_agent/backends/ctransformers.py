"""llama.cpp of September 2023 in this process, through CTransformers 0.2.27."""

import codecs
import ctypes
import importlib.util
import mmap
import platform
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetmark_agent.backends import ctransformers_tokens as tokens
from fleetmark_agent.backends.base import (
    COMMON_OPTIONS,
    Availability,
    Completion,
    LoadReport,
    Token,
    check_length,
)
from fleetmark_agent.backends.ctransformers_check import Header, check
from fleetmark_agent.backends.packages import probe_package
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendError, ModelRejected, OptionNotTaken, OutOfMemory
from fleetmark_protocol.messages import Options

DEFAULT_BATCH_TOKENS = 8
"""CTransformers' own."""
MAX_BATCH_TOKENS = 512
"""Its working memory is sized for that many; more would overrun it."""


class CTransformers:
    """The loop over tokens is ours, so that ids and times are exact and nothing is cached."""

    name = "ctransformers"
    formats = ("gguf-2023", "ggml")
    takes = COMMON_OPTIONS
    architectures = ("llama",)
    """What it is driven with here; see `ctransformers_check`."""

    def __init__(self, _engines: EnginesSettings) -> None:
        self._llm: Any = None
        self._vocabulary: tokens.Vocabulary | None = None
        self._add_first = True
        self._end_tokens: frozenset[int] = frozenset()

    def probe(self) -> Availability:
        """See `Backend.probe`."""
        found = probe_package("ctransformers", "ctransformers", "ctransformers")
        if not found.available:
            return found
        library = find_library()
        if library is None:
            return Availability(
                available=False,
                version=found.version,
                reason=f"ctransformers holds no library for {platform.machine()}",
                hint="pip install --force-reinstall --no-deps --no-binary ctransformers"
                " ctransformers==0.2.27 (needs CMake and a C++ compiler)",
            )
        return Availability(available=True, version=found.version, features=_features(library))

    def knows(self, architecture: str, _options: Options) -> bool | None:
        """See `KnowsArchitectures.knows`."""
        return architecture in self.architectures

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        self.close()
        header = check(model)
        batch = batch_tokens(options)
        vocabulary = tokens.vocabulary(header) if header.values else None
        import ctransformers

        started_s = time.perf_counter()
        config = ctransformers.Config(
            context_length=options.context_tokens,
            threads=-1 if options.threads is None else options.threads,
            batch_size=batch,
        )
        try:
            self._llm = ctransformers.LLM(
                str(model), header.model_type, config=config, lib=find_library()
            )
        except RuntimeError as error:
            raise load_failed(model, options, header, error) from error
        load_s = time.perf_counter() - started_s
        self._vocabulary = vocabulary
        self._add_first = bool(header.number("tokenizer.ggml.add_bos_token", 1))
        self._end_tokens = tokens.end_tokens(header) | {self._llm.eos_token_id}
        return LoadReport(
            load_s,
            version=probe_package("ctransformers", "ctransformers", "ctransformers").version,
            details={
                "context_tokens": self._llm.context_length,
                "batch_tokens": batch,
                "library": Path(find_library() or "").parent.name,
            },
        )

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        llm = self._llm
        if llm is None:
            raise BackendError("no model is loaded")
        prompt_ids = self._prompt_ids(prompt)
        check_length(len(prompt_ids), output_tokens, llm.context_length)
        forget(llm)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        made = 0
        stop_reason = "length"
        try:
            llm.eval(prompt_ids)
            while made < output_tokens:
                if options.ignore_eos:
                    ban(llm, self._end_tokens)
                token = llm.sample(**sampling(options, made))
                time_ns = time.perf_counter_ns()
                if token in self._end_tokens:
                    stop_reason = "eos"
                    break
                made += 1
                yield Token(time_ns, decoder.decode(self._spelled(token)), (token,))
                if made < output_tokens:
                    llm.eval([token])
        except RuntimeError as error:
            raise BackendError(f"CTransformers failed: {error}") from error
        yield Completion(
            prompt_tokens=len(prompt_ids),
            prompt_tokens_evaluated=len(prompt_ids),
            output_tokens=made,
            stop_reason=stop_reason,
            prompt_ids=tuple(prompt_ids),
        )

    def close(self) -> None:
        """See `Backend.close`."""
        # Its destructor frees the model.
        self._llm = None

    def _prompt_ids(self, prompt: str) -> list[int]:
        if self._vocabulary is not None:
            return tokens.encode(self._vocabulary, prompt)
        return tokenize(self._llm, prompt, self._add_first)

    def _spelled(self, token: int) -> bytes:
        if self._vocabulary is not None:
            return self._vocabulary.spelled[token]
        return bytes(self._llm.detokenize([token], decode=False))


def find_library() -> str | None:
    """Return the library that fits this processor, or None where there is none.

    A library built from source comes first. CTransformers would choose the same, but asks a
    package that takes a second for it.
    """
    spec = importlib.util.find_spec("ctransformers")
    for place in (spec.submodule_search_locations or []) if spec else []:
        libraries = Path(place) / "lib"
        names = ["local"]
        if platform.machine() in ("x86_64", "AMD64"):
            names += _variants(_processor_flags())
        for name in names:
            file = libraries / name / "libctransformers.so"
            if file.is_file():
                return str(file)
    return None


def load_failed(
    model: Path, options: Options, header: Header, error: RuntimeError
) -> ModelRejected | OutOfMemory:
    """Return what to raise where the engine gives no model back, without a word why.

    The file was checked before, so what is left to ask is whether the memory that the model needs
    can be had at all.
    """
    width, layers = (header.number(f"llama.{key}") for key in ("embedding_length", "block_count"))
    cache_bytes = 4 * options.context_tokens * width * layers  # keys and values, two bytes each
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        mmap.mmap(-1, model.stat().st_size + cache_bytes, flags=flags).close()
    except (OSError, ValueError, OverflowError, MemoryError):
        return OutOfMemory(f"no memory to load {model.name}: {error}")
    return ModelRejected(f"CTransformers cannot load {model.name}: {error}")


def batch_tokens(options: Options) -> int:
    """Return how many prompt tokens are evaluated at once.

    Raises:
        OptionNotTaken: more than the engine has room for.
    """
    if options.batch_tokens is None:
        return DEFAULT_BATCH_TOKENS
    if options.batch_tokens > MAX_BATCH_TOKENS:
        raise OptionNotTaken(
            f"CTransformers evaluates at most {MAX_BATCH_TOKENS} tokens at once, not"
            f" {options.batch_tokens}"
        )
    return options.batch_tokens


def tokenize(llm: Any, text: str, add_first: bool) -> list[int]:
    """Return token ids by the engine's own tokenizer.

    CTransformers' own method gives it room for as many tokens as characters; a text may have as
    many as bytes.
    """
    raw = text.encode("utf-8", "replace")
    if not raw:
        return []
    room = (ctypes.c_int * (len(raw) + 8))()
    count = llm.ctransformers_llm_tokenize(raw, add_first, room)
    return room[:count]


def forget(llm: Any) -> None:
    """Have the next prompt evaluated from its first token."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in the last version there will be
        llm.reset()


def ban(llm: Any, end_tokens: frozenset[int]) -> None:
    """Make tokens impossible for the next sample."""
    logits = llm.logits
    last = len(logits) - llm.vocab_size
    for token in end_tokens:
        logits[last + token] = float("-inf")


def sampling(options: Options, position: int) -> dict[str, Any]:
    """Return arguments of `LLM.sample`: greedy, or of the temperature alone.

    The engine seeds its generator anew for each token, so each gets a seed of its own.
    """
    greedy = options.temperature == 0
    return {
        "top_k": 1 if greedy else 0x7FFFFFFF,
        "top_p": 1.0,
        "temperature": 1.0 if greedy else options.temperature,
        "repetition_penalty": 1.0,
        "last_n_tokens": 1,
        "seed": (options.seed + position) & 0x7FFFFFFF,
    }


def _variants(flags: frozenset[str]) -> list[str]:
    names = ["basic"]
    if {"avx", "f16c"} <= flags:
        names.insert(0, "avx")
    if "avx2" in flags:
        names.insert(0, "avx2")
    return names


def _features(library: str) -> tuple[str, ...]:
    built_for = Path(library).parent.name
    return (built_for.upper(),) if built_for in ("avx", "avx2") else ()


def _processor_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
