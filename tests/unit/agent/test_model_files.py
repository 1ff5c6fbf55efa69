"""A model of the owner's that cannot be read is his mistake, told before the store is touched."""

import os

import pytest

from fakes.fake_model import write_model
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.errors import ConfigError, ModelNotFound


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "store"
    made.mkdir()
    return made


def store_in(directory):
    return ModelStore(directory, ModelSettings())


def test_a_file_that_this_user_may_not_read_is_named_with_what_to_do(directory, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    model = write_model(closed / "model.gguf")
    closed.chmod(0)
    store = store_in(directory)
    try:
        if os.geteuid() == 0:
            os.seteuid(65534)
        with pytest.raises(ConfigError, match=r"model\.gguf: Permission denied") as caught:
            store.add_file(model)
    finally:
        os.seteuid(os.getuid())
        closed.chmod(0o700)
    assert "fleetmark-agent" in str(caught.value.hint)
    assert not list(directory.glob("*"))


def test_what_is_no_file_is_not_waited_for(directory, tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    for name in ("pipe.gguf", "nothing.gguf"):
        with pytest.raises(ModelNotFound, match=f"no file or directory .*{name}"):
            store_in(directory).add_file(tmp_path / name)
