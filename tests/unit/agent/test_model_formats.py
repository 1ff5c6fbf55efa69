"""What is read out of models that are no GGUF files, and what is not let in."""

import hashlib
import json
import struct
import subprocess
from pathlib import Path

import pytest

from fakes.fake_model import (
    HEADS,
    KV_HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    write_directory,
    write_ggjt,
    write_llamafile,
    write_model,
)
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.formats import inspect, read_model
from fleetmark_agent.models.model_files import copy_model, hash_model, look_at
from fleetmark_agent.models.sidecar import Sidecar
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.errors import ModelRejected
from fleetmark_protocol.messages import ModelSpec

KV_VALUES = LAYERS * KV_HEADS * 2 * (WIDTH // HEADS)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "hub-model")


# --- old containers -------------------------------------------------------------------------------


def test_a_ggjt_file_tells_its_hyperparameters_whatever_it_is_called(tmp_path):
    facts = read_model(write_ggjt(tmp_path / "model.gguf"))
    assert (facts.format, facts.architecture, facts.quantization) == ("ggml", "llama", "Q4_0")
    assert facts.vocabulary == 32000
    assert facts.kv_values_per_token == 2 * 32 * 4096
    assert (facts.parameters, facts.context_tokens) == (None, None)


def test_the_child_says_the_same_as_its_reader(tmp_path, directory):
    llamafile = write_llamafile(tmp_path / "m.llamafile", write_model(tmp_path / "inner.gguf"))
    for model in (directory, llamafile, write_ggjt(tmp_path / "old.bin")):
        assert inspect(model) == read_model(model)


def test_of_a_bare_ggml_file_nothing_is_claimed(tmp_path):
    path = tmp_path / "gpt2.bin"
    path.write_bytes(b"lmgg" + struct.pack("<6I", 50257, 1024, 768, 12, 12, 2) + bytes(64))
    facts = read_model(path)
    assert (facts.format, facts.architecture, facts.vocabulary) == ("ggml", None, None)


@pytest.mark.parametrize(
    ("how", "says"),
    [({"version": 9}, "version that cannot be: 9"), ({"vocabulary": 0}, "claims the impossible")],
)
def test_an_old_container_that_cannot_be_is_rejected(tmp_path, how, says):
    with pytest.raises(ModelRejected, match=says):
        read_model(write_ggjt(tmp_path / "m.bin", **how))


def test_a_truncated_old_container_is_rejected(tmp_path):
    path = write_ggjt(tmp_path / "m.bin")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ModelRejected, match="truncated"):
        read_model(path)


# --- llamafiles -----------------------------------------------------------------------------------


def test_a_llamafile_tells_what_the_gguf_file_inside_holds(tmp_path):
    gguf = write_model(tmp_path / "inner.gguf")
    facts, inner = read_model(write_llamafile(tmp_path / "m.llamafile", gguf)), read_model(gguf)
    assert facts.format == "llamafile"
    assert facts.gguf_window is not None
    start, length = facts.gguf_window
    content = (tmp_path / "m.llamafile").read_bytes()
    assert content[start : start + length] == gguf.read_bytes()
    assert facts.model_copy(update={"format": "gguf", "gguf_window": None}) == inner


def test_a_llamafile_without_a_model_is_a_program_that_holds_none(tmp_path):
    facts = read_model(write_llamafile(tmp_path / "llamafile"))
    assert facts.format == "program"
    assert facts.parameters is None


def test_packed_weights_in_a_llamafile_are_rejected(tmp_path):
    gguf = write_model(tmp_path / "inner.gguf")
    with pytest.raises(ModelRejected, match="must be stored"):
        read_model(write_llamafile(tmp_path / "m.llamafile", gguf, packed=True))


def test_a_damaged_gguf_file_inside_a_llamafile_is_rejected(tmp_path):
    gguf = write_model(tmp_path / "inner.gguf")
    gguf.write_bytes(gguf.read_bytes()[:-5000])
    with pytest.raises(ModelRejected, match="truncated"):
        read_model(write_llamafile(tmp_path / "m.llamafile", gguf))


@pytest.mark.parametrize("content", [b"\x7fELF" + bytes(500), b"MZqFpD" + bytes(500)])
def test_any_other_program_is_no_model(tmp_path, content):
    (tmp_path / "ls").write_bytes(content)
    with pytest.raises(ModelRejected, match="a program, but no llamafile"):
        read_model(tmp_path / "ls")


# --- directories ----------------------------------------------------------------------------------


def test_a_model_directory_tells_what_its_headers_and_config_say(directory):
    facts = read_model(directory)
    assert (facts.format, facts.architecture, facts.quantization) == ("safetensors", "llama", "F32")
    assert facts.parameters == VOCABULARY * WIDTH + 64
    assert facts.bits_per_weight == 32
    assert (facts.context_tokens, facts.vocabulary, facts.tensors) == (256, VOCABULARY, 2)
    assert facts.kv_values_per_token == KV_VALUES
    assert facts.origin_sha256 is None


def test_a_directory_made_here_tells_its_origin(tmp_path):
    origin = "c" * 64
    metadata = {"format": "pt", "fleetmark.origin_sha256": origin}
    facts = read_model(write_directory(tmp_path / "made", dtype="F16", metadata=metadata))
    assert (facts.origin_sha256, facts.quantization) == (origin, "F16")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("pytorch_model.bin", b"", "a pickle can run code"),
        ("training_args.pt", b"", "a pickle can run code"),
        ("modeling_mine.py", b"", "brings its own code"),
        ("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": "x.Y"}}', "auto_map"),
        ("config.json", b'{"model_type": "llama", "auto_map": {}}', "auto_map"),
        ("config.json", b"no json", "no JSON"),
        ("config.json", b'{"vocab_size": -5}', "vocab_size cannot be right"),
        ("config.json", b"[" * 100_000, "no JSON"),
        ("model.safetensors", b"", "no safetensors file, or truncated"),
        ("model.safetensors", struct.pack("<Q", 2**60) + b"{}", "no safetensors file"),
        ("model.safetensors", struct.pack("<Q", 2) + b"[]", "header cannot be read"),
        ("model-00002.safetensors", struct.pack("<Q", 2) + b"{}" + b"more", "truncated or damaged"),
        (
            "model.safetensors.index.json",
            json.dumps({"weight_map": {"lost.weight": "model-2.safetensors"}}).encode(),
            "'lost.weight' of its index is missing",
        ),
    ],
)
def test_what_must_not_be_in_a_model_directory_is_named(directory, name, content, says):
    (directory / name).write_bytes(content)
    with pytest.raises(ModelRejected, match=says):
        read_model(directory)


def test_a_directory_without_config_or_weights_is_no_model(directory):
    (directory / "model.safetensors").rename(directory.parent / "weights.safetensors")
    with pytest.raises(ModelRejected, match="without safetensors"):
        read_model(directory)
    with pytest.raises(ModelRejected, match="weights alone make no model"):
        read_model(directory.parent / "weights.safetensors")
    (directory / "config.json").unlink()
    with pytest.raises(ModelRejected, match=r"no config\.json"):
        read_model(directory)


def test_truncated_safetensors_are_rejected(directory):
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelRejected, match="truncated or damaged"):
        read_model(directory)


def test_a_link_out_of_a_model_directory_is_rejected_even_when_it_is_only_hashed(directory):
    (directory.parent / "secret").write_text("mine")
    (directory / "notes.txt").symlink_to("../secret")
    for use in (read_model, hash_model, look_at):
        with pytest.raises(ModelRejected, match="link out of the model"):
            use(directory)


def test_a_directory_in_a_model_directory_is_rejected(directory):
    (directory / "onnx").mkdir()
    with pytest.raises(ModelRejected, match="no plain file"):
        read_model(directory)


def test_the_digest_of_a_directory_is_what_the_docs_say(directory):
    command = "LC_ALL=C; export LC_ALL; sha256sum -- * | sha256sum"
    (directory / ".cache").mkdir()
    told = subprocess.run(["sh", "-c", command], cwd=directory, capture_output=True, text=True)
    assert hash_model(directory) == told.stdout.split()[0]


def test_a_copy_of_links_holds_the_files_themselves(directory, tmp_path):
    links = tmp_path / "snapshot"
    links.mkdir()
    for file in directory.iterdir():
        (links / file.name).symlink_to(file)
    copy_model(links, tmp_path / "copy")
    assert not any(file.is_symlink() for file in (tmp_path / "copy").iterdir())
    assert hash_model(tmp_path / "copy") == hash_model(directory)


def test_a_directory_looks_changed_when_one_of_its_files_is(directory):
    before = look_at(directory)
    content = (directory / "tokenizer.json").read_text()
    (directory / "tokenizer.json").write_text(content.replace("{", "["))
    assert look_at(directory) != before


# --- what earlier versions wrote ------------------------------------------------------------------


def test_a_sidecar_from_before_there_were_formats_is_still_read():
    digest = hashlib.sha256(b"").hexdigest()
    old = {
        "sha256": digest, "bytes": 5, "mtime_ns": 1, "inode": 2, "ref": "path:m.gguf",
        "origin_sha256": digest,
        "info": {
            "architecture": "llama", "parameters": 7, "quantization": "Q8_0", "mix": {"Q8_0": 1.0},
            "bits_per_weight": 8.5, "tensors": 1, "file_type": None,
        },
        "recipe": {
            "source_sha256": digest, "quantization": "Q8_0", "version": 1, "tools": "gguf 0.17",
        },
    }  # fmt: skip
    sidecar = Sidecar.model_validate_json(json.dumps(old))
    assert sidecar.info.format == "gguf"
    assert sidecar.recipe is not None
    assert (sidecar.recipe.format, sidecar.recipe.tool) == ("gguf", "gguf")


def test_a_bare_llamafile_is_kept_in_the_store_and_no_job_takes_it_for_a_model(tmp_path):
    program = write_llamafile(tmp_path / "llamafile-0.9.3")
    store = ModelStore(tmp_path / "store", ModelSettings())
    kept = store.add_file(program)
    assert (kept.format, kept.sha256) == (
        "program",
        hashlib.sha256(program.read_bytes()).hexdigest(),
    )
    assert kept.path.stat().st_mode & 0o100
    asked = ModelSpec(name="m", ref="path:llamafile-0.9.3")
    with pytest.raises(ModelRejected, match="is program; its backend reads llamafile or gguf"):
        store.ensure(asked, formats=("llamafile", "gguf"))
