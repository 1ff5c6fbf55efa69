"""GGUF files: what is read out of good ones, and what is said about bad ones."""

import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.fake_model import HEADS, KV_HEADS, LAYERS, VOCABULARY, WIDTH, write_model
from fleetmark_agent.models.facts import FILE_TYPES
from fleetmark_agent.models.formats import inspect
from fleetmark_agent.models.gguf_file import read_gguf
from fleetmark_agent.models.gguf_structure import TENSOR_TYPES, read_structure
from fleetmark_protocol.errors import ModelNotFound, ModelRejected


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.gguf")


def test_tensor_types_are_those_of_the_gguf_package():
    for number, (name, block, block_bytes) in TENSOR_TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, block, block_bytes)


def test_file_types_are_those_of_the_gguf_package():
    for number, name in FILE_TYPES.items():
        assert gguf.LlamaFileType(number).name.split("_", 1)[1] == name


def test_a_files_facts_are_read(model):
    info = inspect(model)
    weights = VOCABULARY * WIDTH + LAYERS * (WIDTH * WIDTH + WIDTH)
    assert info.architecture == "llama"
    assert info.parameters == weights
    assert info.quantization == "F16"
    assert info.file_type == "F16"
    assert info.mix == pytest.approx(
        {"F16": 1 - LAYERS * WIDTH / weights, "F32": LAYERS * WIDTH / weights}
    )
    assert info.bits_per_weight == pytest.approx(16 + 16 * LAYERS * WIDTH / weights)
    assert info.context_tokens == 256
    assert info.vocabulary == VOCABULARY
    assert info.tensors == 1 + 2 * LAYERS
    assert info.kv_values_per_token == LAYERS * KV_HEADS * 2 * (WIDTH // HEADS)
    assert info.origin_sha256 is None


def test_the_frame_is_read_as_the_gguf_package_reads_it(model):
    ours, theirs = read_structure(model), gguf.GGUFReader(model)
    assert [(t.name, t.type_id, t.shape, t.offset, t.bytes) for t in ours.tensors] == [
        (t.name, t.tensor_type, tuple(t.shape.tolist()), t.data_offset, t.n_bytes)
        for t in theirs.tensors
    ]


def test_the_name_of_a_type_goes_by_the_weights_and_of_a_mixture_by_the_files_word(tmp_path):
    path = write_model(tmp_path / "m.gguf", kind=gguf.GGMLQuantizationType.Q8_0)
    info = inspect(path)  # its metadata claims F16
    assert info.holds("q8_0")
    assert not info.holds("F16")
    mixture = info.model_copy(update={"file_type": "Q4_K_M"})
    assert mixture.holds("Q4_K_M")
    assert not mixture.holds("Q4_K_S")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ModelNotFound):
        read_structure(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip file", "begins with b'PK"),
        (b"GGUF", "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 1, 1, 1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "no tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**60), "claims"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**63), "metadata key has"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1) + b"k" + struct.pack("<I", 77), "type 77"),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**50),
            "does not fit",
        ),
    ],
)
def test_what_is_no_gguf_file_is_rejected_with_what_is_wrong(tmp_path, content, says):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelRejected, match=says):
        inspect(path)


def test_a_truncated_file_is_rejected_with_both_lengths(model):
    whole = model.read_bytes()
    model.write_bytes(whole[:-1000])
    with pytest.raises(ModelRejected, match=rf"{len(whole) - 1000:,} bytes, its tensor table says"):
        inspect(model)


def test_a_file_cut_at_any_length_is_rejected(model):
    whole = model.read_bytes()
    end = max(tensor.offset + tensor.bytes for tensor in read_structure(model).tensors)
    for length in [*range(0, 1500, 7), *range(1500, end, 997), end - 1]:
        model.write_bytes(whole[:length])
        with pytest.raises(ModelRejected):
            read_structure(model)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(st.tuples(st.integers(4, 4000), st.binary(min_size=1, max_size=8))))
def test_a_damaged_frame_is_read_or_rejected_and_nothing_else(tmp_path, changes):
    path = tmp_path / "model.gguf"
    if not path.exists():
        write_model(path)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    for place, new in changes:
        content[place : place + len(new)] = new
    path.write_bytes(content)
    with suppress(ModelRejected):
        assert read_gguf(path).parameters > 0


def test_the_agents_own_process_never_loads_numpy_or_gguf(model, tmp_path):
    program = f"""
import sys
from contextlib import suppress
from pathlib import Path
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.messages import ModelSpec
store = ModelStore(Path({str(tmp_path)!r}), ModelSettings())
made = store.ensure(ModelSpec(name="m", ref="path:model.gguf", quantization="Q8_0"))
assert made.quantization == "Q8_0"
print([name for name in ("numpy", "gguf", "httpx") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
