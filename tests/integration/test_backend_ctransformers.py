"""CTransformers on the copy that the model store makes for it, beside today's llama.cpp."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from enginetable import Engine, weights_for
from fleetmark_agent.backends import ctransformers as module
from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import Completion, Token
from fleetmark_agent.backends.ctransformers_check import check
from fleetmark_protocol.errors import (
    BackendError,
    ModelNotFound,
    ModelRejected,
    OptionNotTaken,
    PromptTooLong,
)
from fleetmark_protocol.messages import Options

pytestmark = pytest.mark.integration
pytest.importorskip("ctransformers")

OPTIONS = Options(threads=1, context_tokens=256)
PROMPT = "The capital of Italy is"
PROMPTS = (
    PROMPT,
    "  two  spaces\n\n\nand lines\t\ttab",
    "don't we'll I'm it's 'tis 12345 x**2",
    "Zürich ist eine schöne Stadt, größer als 12345 Häuser",
    "北京是中国的首都\uff0c人口",
    "😀🎉 emoji 👩\u200d👩\u200d👧 and ▁ under▁score",
    "x² + ½ = Ⅷ, a\u00a0b\u2003c \u3000d e\u0301 \x07bell",
    "<|im_start|>user\nhi<|im_end|>",
)


@pytest.fixture(scope="module")
def copy() -> Path:
    return weights_for(Engine("ctransformers"), ("gguf-2023",))


@pytest.fixture(scope="module")
def backend(copy):
    made = registry.create("ctransformers")
    made.load(copy, OPTIONS)
    yield made
    made.close()


def ask(backend, prompt=PROMPT, tokens=12, options=OPTIONS) -> tuple[list[Token], Completion]:
    *steps, completion = backend.generate(prompt, tokens, options)
    assert isinstance(completion, Completion)
    return steps, completion


def ids(steps: list[Token]) -> list[int]:
    return [token for step in steps for token in step.ids]


def text(steps: list[Token]) -> str:
    return "".join(step.text for step in steps)


def test_any_text_has_the_ids_that_todays_llama_cpp_makes_of_it_from_the_original(
    backend, model_file
):
    llama_cpp = pytest.importorskip("llama_cpp")
    original = llama_cpp.Llama(str(model_file), vocab_only=True, verbose=False)
    for prompt in PROMPTS:
        _, completion = ask(backend, prompt, tokens=1)
        expected = original.tokenize(prompt.encode(), add_bos=True, special=True)
        assert list(completion.prompt_ids) == expected, prompt


def test_the_same_tokens_end_an_answer_as_in_todays_llama_cpp(copy, model_file):
    llama_cpp = pytest.importorskip("llama_cpp")
    from fleetmark_agent.backends.ctransformers_tokens import end_tokens
    from fleetmark_agent.backends.llama_cpp import end_tokens_of

    original = llama_cpp.Llama(str(model_file), vocab_only=True, verbose=False)
    assert end_tokens(check(copy)) == set(end_tokens_of(original))


def test_it_continues_a_text_as_its_model_does(backend):
    steps, _ = ask(backend)
    assert text(steps).startswith(" Rome")


def test_characters_that_take_several_tokens_come_whole(backend):
    steps, completion = ask(backend, "北京是中国的首都\uff0c人口", tokens=24)
    assert completion.output_tokens == sum(step.count for step in steps) == 24
    assert all(ord(letter) > 127 for letter in text(steps).strip("\ufffd \n")[:4])


def test_with_end_tokens_banned_it_goes_on_and_without_it_stops(copy):
    chat = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    free = OPTIONS.model_copy(update={"ignore_eos": False})
    backend = registry.create("ctransformers")
    backend.load(copy, OPTIONS)
    ends = backend._end_tokens
    steps, completion = ask(backend, chat, tokens=64)
    assert completion.output_tokens == 64
    assert not ends & set(ids(steps))
    # The token that it would say next is made one that ends an answer.
    first = ids(steps)[0]
    backend._end_tokens = ends | {first}
    assert ask(backend, chat, tokens=4, options=free)[1].stop_reason == "eos"
    assert first not in ids(ask(backend, chat, tokens=4)[0])
    backend.close()


def test_a_batch_size_changes_no_answer_and_one_that_it_has_no_room_for_is_refused(copy):
    backend = registry.create("ctransformers")
    answers = set()
    for batch in (1, 8, 512):
        options = OPTIONS.model_copy(update={"batch_tokens": batch})
        assert backend.load(copy, options).details["batch_tokens"] == batch
        steps, _ = ask(backend, PROMPT + " a city. " * 12, tokens=4, options=options)
        answers.add(tuple(ids(steps)))
    assert len(answers) == 1
    with pytest.raises(OptionNotTaken, match="512"):
        backend.load(copy, OPTIONS.model_copy(update={"batch_tokens": 513}))
    backend.close()


def test_nothing_is_asked_of_the_engine_for_an_empty_or_a_too_long_prompt(backend):
    with pytest.raises(BackendError, match="no tokens"):
        ask(backend, "")
    with pytest.raises(PromptTooLong):
        ask(backend, "word " * 300)
    assert text(ask(backend)[0]).startswith(" Rome")


def test_the_original_is_refused_before_the_engine_sees_it(model_file):
    backend = registry.create("ctransformers")
    with pytest.raises(ModelRejected, match="tokenizer is 'gpt2'") as refused:
        backend.load(model_file, OPTIONS)
    assert "model convert" in str(refused.value)


def test_what_is_damaged_is_refused_by_name(copy, tmp_path):
    damaged = tmp_path / "damaged.gguf"
    raw = copy.open("rb").read(8 << 20)

    def refuses(content: bytes, why: str) -> None:
        damaged.write_bytes(content)
        with pytest.raises(ModelRejected, match=why):
            check(damaged)

    refuses(b"", "begins with")
    refuses(b"PK\x03\x04" * 64, "begins with")
    refuses(raw[:5000], "truncated")
    refuses(raw, "truncated")
    refuses(raw[:4] + struct.pack("<I", 9) + raw[8:], "version 9")
    refuses(raw[:8] + struct.pack("<Q", 1 << 40) + raw[16:], "claims")
    refuses(raw.replace(b"output_norm.weight", b"output_gorm.weight", 1), "truncated|no tensor")
    refuses(raw.replace(b"<0x0A>", b"<0x0Z>", 1), "no tokens for bytes|truncated")
    refuses(b"lmgg" + bytes(64), "architecture")
    refuses(b"tjgg" + struct.pack("<I", 7) + bytes(64), "version 7")
    refuses(b"tjgg" + struct.pack("<I", 3) + bytes(64), "impossible")
    with pytest.raises(ModelNotFound):
        check(tmp_path / "nothing.gguf")


def test_a_header_that_lies_is_refused_in_a_file_of_the_right_length(copy, tmp_path):
    lying = tmp_path / "lying.gguf"
    shutil.copyfile(copy, lying)
    with copy.open("rb") as file:
        head = file.read(8 << 20)

    def refuses(old: bytes, new: bytes, why: str) -> None:
        place = head.index(old)
        assert len(old) == len(new)
        with lying.open("r+b") as file:
            file.seek(place)
            file.write(new)
        with pytest.raises(ModelRejected, match=why):
            check(lying)
        with lying.open("r+b") as file:
            file.seek(place)
            file.write(old)

    check(lying)
    refuses(b"output_norm.weight", b"output_gorm.weight", "no tensor 'output_norm.weight'")
    refuses(b"<0x0A>", b"<0x0Z>", "no tokens for bytes")
    refuses(b"llama.block_count", b"llama.block_mount", "llama.block_count")
    key = b"llama.block_count" + struct.pack("<I", 4)
    refuses(key + struct.pack("<I", 30), key + struct.pack("<I", 31), "no tensor 'blk.30")
    refuses(key + struct.pack("<I", 30), key + struct.pack("<I", 29), "unknown to it")
    key = b"tokenizer.ggml.eos_token_id" + struct.pack("<I", 4)
    refuses(key + struct.pack("<I", 2), key + struct.pack("<I", 1 << 30), "eos token")


def ggjt(path: Path) -> Path:
    """Write a LLaMA of random weights as llama.cpp wrote them until August 2023 (GGJT 3)."""
    random = np.random.default_rng(0)
    words = [b"<unk>", b"<s>", b"</s>", *(bytes([byte]) for byte in range(256)), b"the"]
    width, inner, heads, layers = 64, 192, 4, 26
    with path.open("wb") as file:
        head = (3, len(words), width, 32, heads, layers, width // heads, 0)
        file.write(b"tjgg" + struct.pack("<8I", *head))
        for number, word in enumerate(words):
            file.write(struct.pack("<I", len(word)) + word + struct.pack("<f", -number))

        def tensor(name: str, *shape: int) -> None:
            file.write(struct.pack(f"<3I{len(shape)}I", len(shape), len(name), 0, *shape))
            file.write(name.encode())
            file.write(bytes(-file.tell() % 32))
            weights = random.standard_normal(shape[::-1]) * 0.05 + (len(shape) == 1)
            file.write(weights.astype("<f4").tobytes())

        for name in ("tok_embeddings", "output"):
            tensor(f"{name}.weight", width, len(words))
        tensor("norm.weight", width)
        for layer in range(layers):
            for name in ("attention_norm", "ffn_norm"):
                tensor(f"layers.{layer}.{name}.weight", width)
            for name in ("wq", "wk", "wv", "wo"):
                tensor(f"layers.{layer}.attention.{name}.weight", width, width)
            tensor(f"layers.{layer}.feed_forward.w1.weight", width, inner)
            tensor(f"layers.{layer}.feed_forward.w2.weight", inner, width)
            tensor(f"layers.{layer}.feed_forward.w3.weight", width, inner)
    return path


def test_an_old_llama_file_runs_tokenized_by_the_engine_itself(tmp_path):
    backend = registry.create("ctransformers")
    backend.load(ggjt(tmp_path / "old.bin"), OPTIONS)
    prompt = "the cat é 中" * 9
    (first, end), (second, _) = (ask(backend, prompt, tokens=8) for _ in range(2))
    assert end.prompt_ids[0] == 1  # BOS
    # CTransformers' own method would have written past the end of its buffer.
    assert end.prompt_tokens > len(prompt) + 1
    assert end.output_tokens == 8
    assert ids(first) == ids(second)
    backend.close()


def test_an_old_file_that_is_cut_or_damaged_is_refused(tmp_path):
    raw = ggjt(tmp_path / "old.bin").read_bytes()
    damaged = tmp_path / "damaged.bin"
    for content, why in (
        (raw[:-4], "truncated"),
        (raw[:3000], "truncated|damaged"),
        (raw[:8] + struct.pack("<I", 1 << 23) + raw[12:], "truncated|damaged"),
        (
            raw.replace(struct.pack("<3I", 2, 13, 0), struct.pack("<3I", 9, 13, 0), 1),
            "9 dimensions",
        ),
    ):
        damaged.write_bytes(content)
        with pytest.raises(ModelRejected, match=why):
            check(damaged)


def test_a_copy_without_its_original_tokenizer_is_refused(copy, tmp_path):
    lacking = tmp_path / "lacking.gguf"
    raw = copy.read_bytes()
    lacking.write_bytes(raw.replace(b"tokenizer.ggml.merges", b"tokenizer.ggml.sesrem", 1))
    backend = registry.create("ctransformers")
    with pytest.raises(ModelRejected, match="original tokenizer"):
        backend.load(lacking, OPTIONS)


def test_a_machine_without_a_library_is_told_how_to_build_one(monkeypatch):
    monkeypatch.setattr(module.platform, "machine", lambda: "aarch64")
    found = registry.create("ctransformers").probe()
    assert not found.available
    assert "aarch64" in found.reason
    assert "--no-binary ctransformers" in found.hint


def test_a_probe_imports_nothing_of_the_engine():
    code = (
        "import sys; from fleetmark_agent.backends import registry;"
        "found = registry.create('ctransformers').probe(); assert found.available, found;"
        "assert 'ctransformers' not in sys.modules and 'regex' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
