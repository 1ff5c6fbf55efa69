"""The Transformers backend: the same work as llama.cpp's, and every precision for real."""

import importlib.util
import json
import subprocess
import sys

import pytest

from engines import ALL_ENGINES
from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import Completion
from fleetmark_agent.huggingface.config import config_of
from fleetmark_agent.huggingface.reading import open_gguf
from fleetmark_agent.huggingface.tokenizer import tokenizer_of
from fleetmark_agent.huggingface.weights import parameters
from fleetmark_agent.models.convert import convert
from fleetmark_protocol.errors import BackendError, ModelNotFound, ModelRejected
from fleetmark_protocol.messages import Options
from tinymodels import tiny_gguf

INSTALLED = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (INSTALLED or ALL_ENGINES), reason="the extra is not installed"),
]

OPTIONS = Options(threads=1, context_tokens=256)
PROMPT = "The capital of Italy is"
TEXTS = [
    PROMPT,
    "In 1987, 12345 people's dogs  ran\n\n\tfast  ",
    "Grüße aus Köln, 東京 und 🍝: wie heißt",
    "I'll don't WE'RE ÀÉ ٣٤٥ ½ ² Ⅷ",
    " a\u00a0b\u2003c \r\n\r\n  d e\u0301 हिन्दी ",
]
KINDS = {
    "llama": {},
    "output-and-bos": {"tied": False, "add_bos": True},
    "qwen2": {"architecture": "qwen2", "split": "qwen2"},
    "qwen3": {"architecture": "qwen3", "split": "qwen2", "tied": False},
    "llama3": {"llama3": True, "split": "llama-bpe"},
}


def ask(name, model, prompts, tokens=16, **more):
    """Load a model and return ids of prompt and output, and text, for each prompt."""
    options = OPTIONS.model_copy(update=more)
    backend = registry.create(name)
    report = backend.load(model, options)
    answers = []
    for prompt in prompts:
        *steps, done = backend.generate(prompt, tokens, options)
        assert isinstance(done, Completion)
        ids = [token for step in steps for token in step.ids]
        answers.append((done.prompt_ids, ids, "".join(step.text for step in steps)))
    backend.close()
    return answers, report


def directory_of(gguf_file, directory, weights_from="Q4_1", tensors=None):
    """Write a Hugging Face model directory out of a GGUF file."""
    from safetensors.numpy import save_file

    found = open_gguf(gguf_file)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config_of(found)))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer_of(found)))
    arrays = dict(parameters(found)) if tensors is None else tensors
    metadata = {"format": "pt", "fleetmark.weights_from": weights_from}
    save_file({n: a.copy() for n, a in arrays.items()}, directory / "model.safetensors", metadata)
    return directory


@pytest.fixture(scope="module")
def f16(model_file, tmp_path_factory):
    file = tmp_path_factory.mktemp("f16") / "f16.gguf"
    convert(model_file, file, "F16", origin_sha256="0" * 64, max_bytes=10**9)
    return file


def test_probe_imports_neither_pytorch_nor_transformers():
    code = (
        "import sys; from fleetmark_agent.backends import registry;"
        " found = registry.create('transformers').probe();"
        " print(found.available, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_tokens_and_text_are_those_of_llama_cpp_where_weights_are_not_quantized(f16):
    theirs, _ = ask("xllamacpp", f16, TEXTS)
    ours, report = ask("transformers", f16, TEXTS)
    for (prompt, ids, text), (their_prompt, their_ids, their_text) in zip(
        ours, theirs, strict=True
    ):
        assert prompt == their_prompt
        assert text == their_text
        # Where it holds text back until a character is whole, that server tells no ids.
        assert their_ids in ([], ids)
    assert theirs[0][1] == ours[0][1]
    assert "weights_from" not in report.details


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None and not ALL_ENGINES,
    reason="llama-cpp-python, which shows its logits, is not installed",
)
@pytest.mark.parametrize("kind", KINDS)
def test_each_architecture_computes_what_llama_cpp_computes(tmp_path, kind):
    import llama_cpp
    import numpy as np
    import torch

    from fleetmark_agent.backends import torch_model

    file = tiny_gguf(tmp_path / "tiny.gguf", **KINDS[kind])
    prompt = "hello in 123's 4567 Grüße " * 5
    theirs = llama_cpp.Llama(
        model_path=str(file),
        n_ctx=256,
        n_threads=1,
        logits_all=True,
        verbose=False,
        # Keys and values in F32, as PyTorch keeps them.
        type_k=0,
        type_v=0,
    )
    ours = torch_model.load(file, "float32")
    ids = ours.tokenizer.encode(prompt).ids
    assert ids == theirs.tokenize(prompt.encode(), add_bos=True, special=True)
    theirs.eval(ids)
    with torch.inference_mode():
        logits = ours.module(input_ids=torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(logits, theirs.scores[: len(ids)], atol=2e-3)
    assert abs(logits).max() > 1, "else the tolerance says nothing"


def test_a_directory_is_the_same_model_as_the_file_it_was_made_of(model_file, tmp_path):
    directory = directory_of(model_file, tmp_path / "model")
    from_file, file_report = ask("transformers", model_file, TEXTS[:2])
    from_directory, directory_report = ask("transformers", directory, TEXTS[:2])
    assert from_directory == from_file
    assert file_report.details["weights_from"] == "Q4_1"
    assert directory_report.details["weights_from"] == "Q4_1"


@pytest.mark.parametrize(
    ("options", "dtype", "least_bits", "most_bits"),
    [
        ({}, "fp32", 32, 32),
        ({"dtype": "bf16"}, "bf16", 16, 16),
        # 8 bits for matrices, and the embedding, no longer shared with the output, in 32.
        ({"load_quantization": "int8_dynamic"}, "fp32", 14, 23),
        ({"load_quantization": "int8_weight_only"}, "bf16", 11, 12),
        ({"load_quantization": "int4_weight_only"}, "bf16", 8, 9),
        ({"load_quantization": "int8_weight_only", "dtype": "fp32"}, "fp32", 14, 15),
    ],
)
def test_every_precision_runs_and_says_what_it_holds(
    model_file, options, dtype, least_bits, most_bits
):
    [(_, ids, text)], report = ask("transformers", model_file, [PROMPT], 6, **options)
    assert text.startswith(" Rome")
    assert len(ids) == 6
    assert report.details["dtype"] == dtype
    assert report.details["load_quantization"] == options.get("load_quantization", "none")
    assert least_bits <= report.details["bits_per_weight"] <= most_bits


@pytest.mark.parametrize(
    ("kind", "steps", "value_steps"),
    [
        # PyTorch leaves activations 7 bits, so that sums of products do not overflow.
        ("int8_dynamic", 255, 127),
        ("int8_weight_only", 255, None),
        ("int4_weight_only", 15, None),
    ],
)
@pytest.mark.parametrize("rows", [1, 7])
def test_a_quantized_layer_computes_nearly_the_same_product(kind, steps, value_steps, rows):
    import torch

    from fleetmark_agent.backends import torch_quantization

    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(64, 48, bias=True)).eval()
    with torch.inference_mode():
        weight, values = model[0].weight.clone(), torch.randn(2, rows, 64)
        exact = model(values)
        torch_quantization.quantize(model, kind)
        error = float((model(values) - exact).abs().max())
    step = float(weight.max() - weight.min()) / steps * float(values.std())
    if value_steps is not None:
        step += float(values.max() - values.min()) / value_steps * float(weight.std())
    # Errors of up to half a step in each of 64 products add up like a walk.
    assert 0 < error < 5 * 8 * step / 12**0.5


def test_dynamic_quantization_in_bf16_is_refused_with_the_reason(model_file):
    with pytest.raises(BackendError, match="no kernel for bf16"):
        ask("transformers", model_file, [], load_quantization="int8_dynamic", dtype="bf16")


def test_matrices_that_no_kernel_takes_are_refused_with_the_reason(tmp_path):
    file = tiny_gguf(tmp_path / "tiny.gguf", inner=80)
    with pytest.raises(BackendError, match="cannot do int4_weight_only"):
        ask("transformers", file, [], load_quantization="int4_weight_only")


def test_the_models_own_code_is_never_run(tmp_path):
    directory = directory_of(tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    ran = tmp_path / "ran"
    (directory / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((directory / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "modeling_own.Config",
        "AutoModelForCausalLM": "modeling_own.Own",
    }
    (directory / "config.json").write_text(json.dumps(config))
    ask("transformers", directory, [PROMPT], 2)
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "of_its_own"}))
    with pytest.raises(ModelRejected):
        ask("transformers", directory, [PROMPT], 2)
    assert not ran.exists()


def test_weights_that_are_pickled_are_not_read(tmp_path):
    import torch

    directory = directory_of(tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    (directory / "model.safetensors").unlink()
    torch.save({}, directory / "pytorch_model.bin")
    with pytest.raises(ModelRejected, match=r"no \*\.safetensors"):
        ask("transformers", directory, [])


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_an_incomplete_directory_is_rejected_by_what_it_lacks(tmp_path, missing):
    directory = directory_of(tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    (directory / missing).unlink()
    with pytest.raises(ModelRejected, match=missing):
        ask("transformers", directory, [])


def test_a_model_that_lacks_weights_is_rejected_instead_of_running_on_random_ones(tmp_path):
    file = tiny_gguf(tmp_path / "tiny.gguf")
    arrays = dict(parameters(open_gguf(file)))
    del arrays["model.layers.1.mlp.up_proj.weight"]
    directory = directory_of(file, tmp_path / "model", tensors=arrays)
    with pytest.raises(ModelRejected, match="up_proj"):
        ask("transformers", directory, [])


def test_weights_quantized_for_other_kernels_are_refused_by_name(tmp_path):
    directory = directory_of(tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelRejected, match="gptq"):
        ask("transformers", directory, [])


def test_a_damaged_safetensors_file_is_rejected(tmp_path):
    directory = directory_of(tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelRejected):
        ask("transformers", directory, [])


def test_a_model_that_is_not_there_is_told_as_such(tmp_path):
    with pytest.raises(ModelNotFound):
        ask("transformers", tmp_path / "nothing.gguf", [])
