"""Conversion: the right types, the right numbers, the same file every time, done once."""

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest

from fakes.fake_model import write_model
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.convert import convert
from fleetmark_agent.models.formats import inspect
from fleetmark_agent.models.store import ModelStore
from fleetmark_agent.models.targets import BY_GGUF, BY_LLAMA_CPP, checked
from fleetmark_agent.models.watch import Watch
from fleetmark_protocol.errors import Canceled, ConfigError, ModelRejected, ModelTooLarge
from fleetmark_protocol.messages import ModelSpec

ORIGIN = "a" * 64


def converted(source: Path, quantization: str, **how) -> Path:
    target = source.with_name(f"{source.name}.{quantization}")
    convert(
        source,
        target,
        quantization,
        **{"origin_sha256": ORIGIN, "max_bytes": 10**9, **how},
    )
    return target


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_model(tmp_path / "source.gguf", odd_row=True)


@pytest.mark.parametrize("quantization", BY_GGUF)
def test_weights_become_what_the_gguf_package_makes_of_them(tmp_path, quantization):
    source = write_model(tmp_path / "s.gguf", kind=gguf.GGMLQuantizationType.F32, rows=9000)
    old = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    new = gguf.GGUFReader(converted(source, quantization)).tensors
    assert [tensor.name for tensor in new] == list(old)
    for tensor in new:
        wanted = (
            gguf.GGMLQuantizationType.F32
            if tensor.name.endswith("_norm.weight")
            else gguf.GGMLQuantizationType[quantization]
        )
        assert tensor.tensor_type == wanted
        assert tensor.shape.tolist() == old[tensor.name].shape.tolist()
        data = gguf.quants.quantize(np.array(old[tensor.name].data), wanted)
        assert tensor.data.tobytes() == data.tobytes()


def test_metadata_is_kept_and_says_what_the_file_is_now(source):
    old, new = gguf.GGUFReader(source), gguf.GGUFReader(converted(source, "Q4_0"))
    for key, field in old.fields.items():
        if not key.startswith("GGUF.") and key != "general.file_type":
            assert new.fields[key].contents() == field.contents(), key
    assert new.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q4_0
    assert new.fields["general.quantization_version"].contents() == 2
    assert set(new.fields) - set(old.fields) == {
        "general.quantization_version",
        "fleetmark.origin_sha256",
    }


def test_rows_that_fit_no_block_fall_back_to_f16_and_the_mix_says_so(source):
    info = inspect(converted(source, "Q8_0"))
    assert info.quantization == "Q8_0"
    assert set(info.mix) == {"Q8_0", "F16", "F32"}
    assert info.origin_sha256 == ORIGIN


def test_converting_twice_gives_the_same_file(source):
    digests = {hashlib.sha256(converted(source, "Q4_1").read_bytes()).digest() for _ in range(2)}
    assert len(digests) == 1


def test_the_first_origin_stays_the_origin(source):
    first = converted(source, "Q8_0")
    second = converted(first, "Q4_0", origin_sha256="b" * 64)
    assert inspect(second).origin_sha256 == ORIGIN


def test_an_unknown_quantization_is_the_users_mistake_and_the_possible_ones_are_listed():
    with pytest.raises(ConfigError) as caught:
        checked("IQ2_XS")
    assert all(name in str(caught.value) for name in BY_LLAMA_CPP)
    assert checked("q8_0") == "Q8_0"


def test_a_file_that_is_no_model_is_rejected(tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF but not really")
    with pytest.raises(ModelRejected, match=r"bad\.gguf"):
        converted(bad, "Q8_0")


def test_a_file_that_grows_over_its_bound_is_stopped(source):
    with pytest.raises(ModelTooLarge):
        converted(source, "Q8_0", max_bytes=10_000)


def test_a_cancel_kills_it(source):
    with pytest.raises(Canceled):
        converted(source, "Q8_0", watch=Watch(cancelled=lambda: True))


def test_progress_ends_at_the_sources_weights(source):
    seen: list[tuple[int, int | None]] = []
    converted(source, "Q8_0", watch=Watch(lambda done, total: seen.append((done, total))))
    total = sum(tensor.n_bytes for tensor in gguf.GGUFReader(source).tensors)
    assert seen[-1] == (total, total)


# --- through the store ----------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    (tmp_path / "store").mkdir()
    write_model(tmp_path / "store" / "m.gguf")
    return ModelStore(tmp_path / "store", ModelSettings())


def asked(quantization: str | None, ref: str = "path:m.gguf") -> ModelSpec:
    return ModelSpec(name="m", ref=ref, quantization=quantization)


def test_a_job_gets_the_quantization_it_asks_for_made_once(store):
    origin = store.ensure(asked(None))
    model = store.ensure(asked("q8_0"))
    made = model.path.stat()
    assert model.quantization == "Q8_0"
    assert model.origin_sha256 == origin.sha256 != model.sha256
    assert model.bits_per_weight < 9
    assert model.recipe is not None
    assert "gguf" in model.recipe.tools
    assert store.ensure(asked("Q8_0")) == model
    assert model.path.stat().st_mtime_ns == made.st_mtime_ns


def test_what_the_file_holds_already_is_not_converted(store):
    assert store.ensure(asked("F16")).path.name == "m.gguf"
    assert store.convert("m.gguf", "F16").path.name == "m.gguf"


def test_a_conversion_is_found_by_the_digest_of_a_source_that_is_gone(store):
    origin, model = store.ensure(asked(None)), store.ensure(asked("Q8_0"))
    store.remove("m.gguf")
    spec = ModelSpec(name="m", ref="path:m.gguf", sha256=origin.sha256, quantization="Q8_0")
    assert store.ensure(spec) == model


def test_a_damaged_conversion_is_made_again(store):
    model = store.ensure(asked("Q8_0"))
    model.path.write_bytes(model.path.read_bytes()[:-64])
    again = store.ensure(asked("Q8_0"))
    assert again.sha256 == model.sha256
    assert again.path.stat().st_size == model.bytes


def test_an_owner_who_forbids_conversion_is_obeyed(store):
    strict = ModelStore(store.directory, ModelSettings(allow_convert=False))
    with pytest.raises(ModelRejected, match="does not convert"):
        strict.ensure(asked("Q8_0"))


@pytest.mark.parametrize("quantization", ["IQ2_XS", "Q9_9"])
def test_a_job_that_asks_for_the_impossible_is_told_what_is_possible(store, quantization):
    with pytest.raises(ConfigError, match="cannot be made here"):
        store.ensure(asked(quantization))


def test_a_cancelled_conversion_leaves_nothing_behind(store):
    store.ensure(asked(None))
    with pytest.raises(Canceled):
        store.ensure(asked("Q8_0"), cancelled=lambda: True)
    assert [info.name for info in store.list()] == ["m.gguf"]
    assert list((store.directory / ".tmp").glob("*")) == []
