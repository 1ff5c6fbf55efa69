"""Other formats out of one origin: for CTransformers' old reader, by llama.cpp's quantizer."""

import importlib.util
from pathlib import Path

import gguf
import pytest

from fakes.fake_hub import FakeHub
from fakes.fake_model import (
    CONTROL,
    MERGES,
    write_directory,
    write_ggjt,
    write_llama,
    write_llamafile,
    write_model,
)
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models import targets
from fleetmark_agent.models.convert_2023 import obstacle
from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.models.safetensors_dir import read_header
from fleetmark_agent.models.store import ModelStore
from fleetmark_agent.models.targets import BY_GGUF, BY_LLAMA_CPP, Target, for_job, for_owner
from fleetmark_protocol.errors import (
    BackendUnavailable,
    ConfigError,
    ModelRejected,
    ModelTooLarge,
    SourceNotAllowed,
)
from fleetmark_protocol.messages import ModelSpec

OLD = ("gguf-2023", "ggml")
LLAMA_CPP = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def store_in(directory: Path, **how) -> ModelStore:
    return ModelStore(directory, ModelSettings(**how))


def asked(ref: str, **what) -> ModelSpec:
    return ModelSpec(name="m", ref=ref, **what)


# --- what a backend reads ------------------------------------------------------------------------


def test_a_backend_gets_no_format_that_it_does_not_read(directory):
    write_ggjt(directory / "old.bin")
    write_directory(directory / "hub-model")
    store = store_in(directory)
    assert store.ensure(asked("path:old.bin"), formats=OLD).format == "ggml"
    assert store.ensure(asked("path:hub-model"), formats=("safetensors",)).format == "safetensors"
    for name in ("old.bin", "hub-model"):
        with pytest.raises(ModelRejected, match="its backend reads gguf"):
            store.ensure(asked(f"path:{name}"))
    assert sorted(info.format for info in store.list()) == ["ggml", "safetensors"]


def test_another_quantization_of_what_is_no_gguf_file_cannot_be_made(directory):
    write_directory(directory / "hub-model")
    with pytest.raises(ModelRejected, match="only a GGUF file"):
        store_in(directory).ensure(
            asked("path:hub-model", quantization="Q8_0"), formats=("safetensors",)
        )


def test_a_llamafile_has_the_origin_of_the_weights_inside(directory, tmp_path):
    weights = write_model(directory / "m.gguf")
    write_llamafile(directory / "m.llamafile", weights)
    store = store_in(directory)
    bare = store.ensure(asked("path:m.gguf"))
    program = store.ensure(asked("path:m.llamafile"), formats=("llamafile", "gguf"))
    assert program.origin_sha256 == bare.sha256 != program.sha256
    assert program.quantization == bare.quantization


def test_a_llamafile_that_is_fetched_can_be_executed(directory, tmp_path):
    content = write_llamafile(tmp_path / "m.llamafile", write_model(tmp_path / "i.gguf"))
    with FakeHub() as hub:
        ref = hub.serve("/m.llamafile", content.read_bytes())
        store = store_in(
            directory,
            allow_sources=("http://",),
            allow_private_hosts=("127.0.0.1",),
            require_sha256=False,
        )
        model = store.ensure(asked(ref), formats=("llamafile",))
    assert model.path.suffix == ".llamafile"
    assert model.path.stat().st_mode & 0o111 == 0o111


# --- models of a server ---------------------------------------------------------------------------


def test_a_servers_model_is_nothing_but_its_name(directory):
    store = store_in(directory, allow_sources=("remote:llama3",))
    model = store.ensure(asked("remote:llama3:8b"), formats=("gguf", "remote"), context_tokens=10)
    assert (str(model.path), model.format) == ("llama3:8b", "remote")
    assert (model.sha256, model.origin_sha256, model.bytes) == (None, None, None)
    assert store.list() == []


def test_a_servers_model_must_be_allowed_and_readable(directory):
    with pytest.raises(SourceNotAllowed):
        store_in(directory).ensure(asked("remote:llama3"), formats=("remote",))
    store = store_in(directory, allow_sources=("remote:",))
    with pytest.raises(ModelRejected, match="a model of a server"):
        store.ensure(asked("remote:llama3"))
    for what in ({"sha256": "a" * 64}, {"quantization": "Q8_0"}):
        with pytest.raises(ConfigError, match="no digest or quantization"):
            store.ensure(asked("remote:llama3", **what), formats=("remote",))


# --- directories in the store ---------------------------------------------------------------------


def test_a_directory_is_copied_in_verified_and_removed(directory, tmp_path):
    source = write_directory(tmp_path / "hub-model")
    store = store_in(directory)
    model = store.add_file(source)
    assert (model.path, model.format) == (directory / "hub-model", "safetensors")
    assert store.verify("hub-model") == model
    with pytest.raises(ConfigError, match="already"):
        store.add_file(source)
    weights = directory / "hub-model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelRejected, match="has changed"):
        store.verify("hub-model")
    store.remove("hub-model")
    assert list(directory.glob("hub-model*")) == []


def test_a_directory_of_links_as_a_hubs_cache_has_it_is_copied_with_what_they_lead_to(
    directory, tmp_path
):
    blobs, snapshot = write_directory(tmp_path / "blobs"), tmp_path / "snapshot"
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("..") / "blobs" / file.name)
    model = store_in(directory).add_file(snapshot)
    assert model.bytes == sum(file.stat().st_size for file in blobs.iterdir())
    assert not any(file.is_symlink() for file in model.path.iterdir())


def test_a_directory_with_a_pickle_is_not_copied_in(directory, tmp_path):
    source = write_directory(tmp_path / "hub-model")
    (source / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelRejected, match="pickle"):
        store_in(directory).add_file(source)
    assert [path.name for path in directory.iterdir() if not path.name.startswith(".")] == []


# --- for the reader of 2023 -----------------------------------------------------------------------


def test_a_copy_for_the_old_reader_is_made_once_and_holds_the_same_weights(directory):
    write_llama(directory / "m.gguf")
    store = store_in(directory)
    origin = store.ensure(asked("path:m.gguf"))
    copy = store.ensure(asked("path:m.gguf"), formats=OLD)
    assert store.ensure(asked("path:m.gguf"), formats=OLD) == copy
    assert copy.origin_sha256 == origin.sha256
    assert copy.recipe is not None
    assert copy.recipe.format == "gguf-2023"
    old, new = gguf.GGUFReader(origin.path), gguf.GGUFReader(copy.path)
    before = {tensor.name: tensor.data.tobytes() for tensor in old.tensors}
    after = {tensor.name: tensor.data.tobytes() for tensor in new.tensors}
    assert after == {**before, "output.weight": before["token_embd.weight"]}


def test_the_copys_vocabulary_is_the_originals_in_sentencepieces_manner(directory):
    write_llama(directory / "m.gguf")
    path = store_in(directory).ensure(asked("path:m.gguf"), formats=OLD).path
    fields = gguf.GGUFReader(path).fields
    pieces = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    scores = fields["tokenizer.ggml.scores"].contents()
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    assert pieces[0:256] == [f"<0x{byte:02X}>" if byte != 0x20 else "▁" for byte in range(256)]
    assert set(kinds[:0x20] + kinds[0x21:256]) == {6}
    assert pieces[256:] == ["▁t", "he", "▁the", "▁▁", "<0xE2><0x82>", CONTROL]
    assert kinds[256:] == [1, 1, 1, 1, 5, 3]
    assert scores[256:] == [0, -1, -2, -3, -4, 0]
    # For whoever must make the original's tokens.
    assert fields["tokenizer.ggml.merges"].contents() == list(MERGES)
    assert fields["fleetmark.tokenizer_pre"].contents() == "gpt-2"


def test_a_quantization_for_the_old_reader_is_that_of_other_engines(directory):
    write_llama(directory / "m.gguf", output=True)
    store = store_in(directory)
    plain = store.ensure(asked("path:m.gguf", quantization="Q8_0"))
    copy = store.ensure(asked("path:m.gguf", quantization="Q8_0"), formats=OLD)
    assert copy.recipe is not None
    assert copy.recipe.source_sha256 == plain.sha256
    assert copy.origin_sha256 == plain.origin_sha256
    assert [tensor.data.tobytes() for tensor in gguf.GGUFReader(copy.path).tensors] == [
        tensor.data.tobytes() for tensor in gguf.GGUFReader(plain.path).tensors
    ]


def test_what_the_old_reader_takes_is_used_as_it_is(directory):
    write_llama(directory / "m.gguf")
    store = store_in(directory)
    copy = store.ensure(asked("path:m.gguf"), formats=OLD)
    assert store.ensure(asked(f"path:{copy.path.name}"), formats=OLD) == copy


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"architecture": "qwen2"}, "architecture is 'qwen2'"),
        ({"more": ("rope_freqs.weight",)}, "'rope_freqs.weight' is unknown to it"),
        ({"kind": gguf.GGMLQuantizationType.BF16}, "of type BF16, unknown to it"),
        ({"tokenizer": "bert"}, "its tokenizer is 'bert'"),
    ],
)
def test_what_the_old_reader_can_never_take_is_rejected_with_the_reason(directory, how, says):
    write_llama(directory / "m.gguf", **how)
    with pytest.raises(ModelRejected, match=says):
        store_in(directory).ensure(asked("path:m.gguf"), formats=OLD)


def test_an_owner_who_forbids_conversion_is_told_what_the_old_reader_lacks(directory):
    write_llama(directory / "m.gguf")
    with pytest.raises(ModelRejected, match=r"it has no output\.weight.*does not convert"):
        store_in(directory, allow_convert=False).ensure(asked("path:m.gguf"), formats=OLD)


def test_what_the_old_reader_lacks_is_said_of_a_file_by_itself(tmp_path):
    assert obstacle(write_llama(tmp_path / "a.gguf")) == "it has no output.weight"
    why = obstacle(write_llama(tmp_path / "b.gguf", output=True))
    assert why == "its tokenizer is 'gpt2', not 'llama'"
    with pytest.raises(ModelRejected, match="not a GGUF file"):
        obstacle(write_ggjt(tmp_path / "c.gguf"))


# --- which tool -----------------------------------------------------------------------------------


def test_jobs_take_the_gguf_package_where_it_can_and_llama_cpp_for_the_rest():
    assert {for_job(name).tool for name in BY_GGUF} == {"gguf"}
    assert {for_job(name).tool for name in set(BY_LLAMA_CPP) - set(BY_GGUF)} == {"llama.cpp"}


def test_owners_get_llama_cpps_quantizer_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(targets, "llama_cpp_here", lambda: True)
    assert for_owner("q8_0") == Target("gguf", "Q8_0", "llama.cpp")
    assert for_owner("Q8_0", "gguf") == Target("gguf", "Q8_0", "gguf")
    assert for_owner("gguf-2023") == Target("gguf-2023")
    with pytest.raises(ConfigError, match="not made by the gguf package"):
        for_owner("Q4_K_M", "gguf")


def test_without_llama_cpp_owners_get_the_gguf_package_or_the_command_to_install(monkeypatch):
    monkeypatch.setattr(targets, "llama_cpp_here", lambda: False)
    assert for_owner("Q8_0") == Target("gguf", "Q8_0", "gguf")
    for wanted, tool in (("Q4_K_M", "auto"), ("Q8_0", "llama.cpp")):
        with pytest.raises(BackendUnavailable) as caught:
            for_owner(wanted, tool)
        assert "pip install 'fleetmark[llama-cpp]'" in str(caught.value)


def test_a_job_that_needs_llama_cpps_quantizer_where_there_is_none_is_told_how_to_get_it(
    directory, monkeypatch
):
    write_llama(directory / "m.gguf")
    monkeypatch.setattr(targets, "llama_cpp_here", lambda: False)
    with pytest.raises(BackendUnavailable, match="llama-cpp-python is not installed"):
        store_in(directory).ensure(asked("path:m.gguf", quantization="Q4_K_M"))


def test_a_mixture_that_is_named_like_a_type_goes_by_either():
    facts = ModelFacts(quantization="Q5_0", file_type="Q6_K")
    assert facts.holds("Q6_K")
    assert facts.holds("q5_0")
    assert not ModelFacts(quantization="Q5_0", file_type="Q8_0").holds("Q8_0")


@LLAMA_CPP
def test_llama_cpps_quantizer_makes_a_mixture_that_tells_its_origin(directory):
    write_llama(directory / "m.gguf", kind=gguf.GGMLQuantizationType.Q8_0)
    store = store_in(directory)
    origin = store.ensure(asked("path:m.gguf"))
    seen: list[tuple[int, int | None]] = []
    made = store.convert("m.gguf", "Q4_K_M", progress=lambda *told: seen.append(told))
    assert made.facts.file_type == "Q4_K_M"
    assert made.origin_sha256 == origin.sha256
    assert made.recipe is not None
    assert made.recipe.tool == "llama.cpp"
    assert "llama-cpp-python" in made.recipe.tools
    assert seen[-1][0] == seen[-1][1]
    assert store.ensure(asked("path:m.gguf", quantization="Q4_K_M", sha256=origin.sha256)) == made


@LLAMA_CPP
def test_a_job_prefers_its_own_tools_file_but_takes_the_owners(directory):
    write_llama(directory / "m.gguf")
    store = store_in(directory)
    origin = store.ensure(asked("path:m.gguf"))
    spec = asked("path:m.gguf", quantization="Q8_0", sha256=origin.sha256)
    by_owner = store.convert("m.gguf", "Q8_0", tool="llama.cpp")
    assert store.ensure(spec) == by_owner
    by_gguf = store.convert("m.gguf", "Q8_0", tool="gguf")
    assert by_gguf.path != by_owner.path
    assert store.ensure(spec) == by_gguf


@LLAMA_CPP
def test_what_llama_cpp_cannot_quantize_is_rejected_in_its_own_words(directory):
    write_model(directory / "half.gguf")  # a frame that lacks most of a model
    with pytest.raises(
        ModelRejected, match=r"half\.gguf: llama\.cpp cannot quantize it: .*key not"
    ):
        store_in(directory).convert("half.gguf", "Q4_K_M")


@LLAMA_CPP
def test_llama_cpps_quantizer_stops_at_the_quota(directory):
    write_llama(directory / "m.gguf", kind=gguf.GGMLQuantizationType.F32)
    with pytest.raises(ModelTooLarge):
        store_in(directory, quota_bytes=(directory / "m.gguf").stat().st_size + 1000).convert(
            "m.gguf", "Q4_K_M"
        )


# --- safetensors ----------------------------------------------------------------------------------


def test_safetensors_hold_the_same_numbers_under_hugging_faces_names(directory):
    write_llama(directory / "m.gguf", kind=gguf.GGMLQuantizationType.Q8_0)
    store = store_in(directory)
    origin = store.ensure(asked("path:m.gguf"))
    model = store.ensure(asked("path:m.gguf"), formats=("safetensors",))
    assert store.ensure(asked("path:m.gguf"), formats=("safetensors",)) == model
    assert model.path.is_dir()
    assert (model.quantization, model.origin_sha256) == ("F32", origin.sha256)
    assert model.facts.parameters == origin.facts.parameters
    assert model.facts.kv_values_per_token == origin.facts.kv_values_per_token
    rows, metadata = read_header(model.path / "model.safetensors")
    assert metadata["fleetmark.weights_from"] == "Q8_0"
    old = {tensor.name: tensor for tensor in gguf.GGUFReader(origin.path).tensors}
    content = (model.path / "model.safetensors").read_bytes()
    start = len(content) - max(row.data_offsets[1] for row in rows.values())
    for theirs, ours in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ):
        begin, end = rows[theirs].data_offsets
        weights = gguf.quants.dequantize(old[ours].data, old[ours].tensor_type)
        assert content[start + begin : start + end] == weights.tobytes(), theirs


def test_safetensors_of_the_type_asked_for_are_made_in_one_step(directory):
    write_llama(directory / "m.gguf", kind=gguf.GGMLQuantizationType.Q8_0)
    spec = asked("path:m.gguf", quantization="BF16")
    store = store_in(directory)
    model = store.ensure(spec, formats=("safetensors", "gguf"))
    assert (model.format, model.quantization) == ("safetensors", "BF16")
    assert len(store.list()) == 2


def test_a_model_whose_tensors_have_no_place_at_hugging_face_is_rejected(directory):
    write_llama(directory / "m.gguf", more=("blk.0.secret.weight",))
    with pytest.raises(ModelRejected, match=r"'blk\.0\.secret\.weight' has no place"):
        store_in(directory).convert("m.gguf", "safetensors")


def test_a_safetensors_backend_is_not_given_a_quantization_that_it_cannot_hold(directory):
    write_llama(directory / "m.gguf")
    with pytest.raises(ModelRejected, match="its backend reads safetensors"):
        store_in(directory).ensure(
            asked("path:m.gguf", quantization="Q8_0"), formats=("safetensors",)
        )
