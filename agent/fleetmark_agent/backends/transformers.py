"""Hugging Face Transformers on PyTorch: the baseline in floating point, on the CPU."""

import ctypes
import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleetmark_agent.backends import torch_model, torch_quantization
from fleetmark_agent.backends.base import (
    COMMON_OPTIONS,
    Availability,
    Completion,
    LoadReport,
    Token,
    check_length,
    load_failed,
    ran_out_of_memory,
)
from fleetmark_agent.backends.packages import probe_package
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import (
    BackendError,
    BackendUnavailable,
    OutOfMemory,
)
from fleetmark_protocol.messages import Options

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class Transformers:
    """Calls the model for each token itself: the library's own streamer tells words, not tokens."""

    name = "transformers"
    formats = ("safetensors", "gguf")
    takes = (COMMON_OPTIONS - {"batch_tokens"}) | {"dtype", "load_quantization"}

    def __init__(self, _engines: EnginesSettings) -> None:
        self._model: torch_model.TorchModel | None = None
        self._context_tokens = 0

    def probe(self) -> Availability:
        """See `Backend.probe`."""
        for package in ("torch", "transformers"):
            found = probe_package(package, package, "transformers")
            if not found.available:
                note = (
                    " (install PyTorch's build for CPUs first: the usual one for Linux is for GPUs)"
                )
                return replace(found, hint=f"{found.hint}{note}")
        return found

    def held_bits_per_weight(self, options: Options) -> float:
        """See `Unpacks.held_bits_per_weight`; quantizing begins with all weights unpacked."""
        dtype = options.dtype or default_dtype(options.load_quantization)
        return 16.0 if dtype == "bf16" else 32.0

    def knows(self, architecture: str, _options: Options) -> bool | None:
        """See `KnowsArchitectures.knows`; of a GGUF file, which is dequantized as it is loaded."""
        from fleetmark_agent.huggingface.config import CLASSES

        return architecture in CLASSES

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        self.close()
        started_s = time.perf_counter()
        torch, version = _import_engine()
        imported_s = time.perf_counter()
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        dtype = options.dtype or default_dtype(options.load_quantization)
        if options.load_quantization == "int8_dynamic" and dtype != "fp32":
            raise BackendError("int8_dynamic computes in fp32: PyTorch has no kernel for bf16")
        try:
            loaded = torch_model.load(model, DTYPES[dtype])
            if options.load_quantization is None:
                bits = torch_quantization.bits_per_weight(loaded.module)
            else:
                bits = _quantize(loaded.module, options.load_quantization)
        except BackendError:
            raise
        except MemoryError as error:
            raise OutOfMemory(f"no memory to load {model.name}: {error}") from error
        except Exception as error:
            # Each library has its own for a damaged file.
            raise load_failed(model, error) from error
        self._model = loaded
        self._context_tokens = options.context_tokens
        return LoadReport(
            time.perf_counter() - imported_s,
            version=version,
            details={
                "context_tokens": options.context_tokens,
                "threads": torch.get_num_threads(),
                "dtype": dtype,
                "load_quantization": options.load_quantization or "none",
                "bits_per_weight": round(bits, 3),
                "torch": torch.__version__,
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
                "import_s": round(imported_s - started_s, 3),
                **({"weights_from": loaded.weights_from} if loaded.weights_from else {}),
            },
        )

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        if self._model is None:
            raise BackendError("no model is loaded")
        from tokenizers.decoders import DecodeStream
        from transformers import DynamicCache

        model, tokenizer = self._model, self._model.tokenizer
        prompt_ids = tokenizer.encode(prompt).ids
        check_length(len(prompt_ids), output_tokens, self._context_tokens)
        # Text goes on after something: alone, a vocabulary's first word would lose its space.
        before = tokenizer.encode("a", add_special_tokens=False).ids
        text = DecodeStream(ids=before, skip_special_tokens=True)
        cache = DynamicCache(config=model.module.config)
        choose = _chooser(options, model.end_tokens)
        made, stop_reason, inputs = 0, "length", prompt_ids
        while made < output_tokens:
            token = _next(model.module, inputs, cache, choose)
            time_ns = time.perf_counter_ns()
            if not options.ignore_eos and token in model.end_tokens:
                stop_reason = "eos"
                break
            made += 1
            inputs = [token]
            yield Token(time_ns, text.step(tokenizer, token) or "", (token,))
        yield Completion(
            prompt_tokens=len(prompt_ids),
            prompt_tokens_evaluated=len(prompt_ids),
            output_tokens=made,
            stop_reason=stop_reason,
            prompt_ids=tuple(prompt_ids),
        )

    def close(self) -> None:
        """See `Backend.close`."""
        if self._model is None:
            return
        self._model = None
        gc.collect()
        _give_memory_back()


def default_dtype(load_quantization: str | None) -> str:
    """Return what is computed in where a job does not say; pure.

    PyTorch's kernels for weights of 8 and 4 bits are made for bf16; in fp32 they are slower than
    no quantization at all.
    """
    return "bf16" if load_quantization in {"int8_weight_only", "int4_weight_only"} else "fp32"


def _import_engine() -> tuple[Any, str]:
    try:
        import torch
        import transformers

        # Of itself the library imports its parts when they are first used: in the middle of a load.
        # What any model needs comes with this one.
        from transformers import LlamaForCausalLM  # noqa: F401
    except ImportError as error:
        said = f"PyTorch or Transformers cannot be imported: {error}"
        if ran_out_of_memory(said):
            raise OutOfMemory(said) from error
        raise BackendUnavailable(said) from error
    transformers.utils.logging.disable_progress_bar()
    return torch, str(transformers.__version__)


def _quantize(module: Any, kind: str) -> float:
    try:
        return torch_quantization.quantize(module, kind)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        if ran_out_of_memory(str(error)):
            raise
        raise BackendError(f"this PyTorch cannot do {kind} on this processor: {error}") from error


def _chooser(options: Options, end_tokens: tuple[int, ...]) -> Any:
    """Return what takes a token from the logits: the likeliest, or drawn by the seed."""
    import torch

    banned = torch.tensor(end_tokens if options.ignore_eos else (), dtype=torch.long)
    generator = torch.Generator().manual_seed(options.seed)

    def choose(logits: Any) -> int:
        logits.index_fill_(0, banned, -torch.inf)
        if options.temperature == 0:
            return int(logits.argmax())
        shares = torch.softmax(logits.float() / options.temperature, -1)
        return int(torch.multinomial(shares, 1, generator=generator))

    return choose


def _next(module: Any, inputs: list[int], cache: Any, choose: Any) -> int:
    """Evaluate `inputs` after what the cache holds; return the token that follows."""
    import torch

    try:
        # Not around the loop: a generator would leave its caller in inference mode.
        with torch.inference_mode():
            out = module(
                input_ids=torch.tensor([inputs]),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            return int(choose(out.logits[0, -1]))
    except RuntimeError as error:
        kind = OutOfMemory if ran_out_of_memory(str(error)) else BackendError
        raise kind(f"PyTorch failed: {error}") from error


def _give_memory_back() -> None:
    """Have glibc return what is free: it keeps the pieces of a model otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
