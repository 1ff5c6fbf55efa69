"""Whether a model fits in this machine's memory, estimated before an engine is started; pure."""

from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.models.watch import shown
from fleetmark_protocol.errors import ModelTooLarge

KV_BYTES_PER_VALUE = 2
"""Engines keep keys and values as F16 unless told otherwise."""
BATCH_TOKENS = 512
"""Tokens evaluated at once; their logits are what working memory is mostly made of."""
LOGIT_BYTES = 4
UNKNOWN_KV_VALUES = 4096
"""Of a token, where the file does not tell: fewer than any model in use has, so that a file that
keeps silent does not get a context of any size."""
ENGINE_BYTES = 128 * 2**20
"""The worker process without any model: interpreter, engine, small buffers."""


def needed_bytes(
    facts: ModelFacts, weights_bytes: int, context_tokens: int, contexts: int = 1
) -> dict[str, int]:
    """Estimate the memory of one loaded model, part by part.

    Formula: weights (the file, held whole)
    + KV cache (`kv_values_per_token` x context_tokens x contexts x 2 bytes)
    + working memory (min(512, all their tokens) x vocabulary x 4 bytes + 128 MiB for the engine).
    What the file does not say counts as little: 4096 numbers a token, no vocabulary.

    Args:
        facts: of the model.
        weights_bytes: what its weights take.
        context_tokens: of each context.
        contexts: how many there are: one for each request that is served at the same time.
    """
    tokens = context_tokens * contexts
    batch = min(BATCH_TOKENS, tokens)
    cache = "KV cache" if contexts == 1 else f"KV cache of {contexts} contexts"
    return {
        "weights": weights_bytes,
        cache: (facts.kv_values_per_token or UNKNOWN_KV_VALUES) * tokens * KV_BYTES_PER_VALUE,
        "working memory": batch * (facts.vocabulary or 0) * LOGIT_BYTES + ENGINE_BYTES,
    }


def check_fits(
    facts: ModelFacts,
    weights_bytes: int,
    context_tokens: int,
    mem_available_bytes: int,
    contexts: int = 1,
) -> None:
    """Refuse what would drive the machine into swap or the OOM killer; see `needed_bytes`.

    Raises:
        ModelTooLarge: more is needed than available; says what for.
    """
    parts = needed_bytes(facts, weights_bytes, context_tokens, contexts)
    needed = sum(parts.values())
    if needed > mem_available_bytes:
        named = " + ".join(f"{name} {shown(size)}" for name, size in parts.items())
        raise ModelTooLarge(
            f"does not fit in memory: needs {shown(needed)} ({named}),"
            f" {shown(mem_available_bytes)} free",
            hint="take a smaller model, quantization or context_tokens, "
            + ("or free memory" if contexts == 1 else "fewer clients, or free memory"),
        )
