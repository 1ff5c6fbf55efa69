"""`fleetmark-agent model` as its owner uses it."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fakes.fake_hub import FakeHub
from fakes.fake_model import write_directory, write_llama, write_model
from fleetmark_agent.cli.model import app
from fleetmark_protocol.errors import ConfigError, FleetmarkError, ModelNotFound


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[models]\ndir = "{tmp_path}/store"\n'
        'allow_sources = ["path:", "http://"]\nallow_private_hosts = ["127.0.0.1"]\n'
    )
    return file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_model(tmp_path / "mine.gguf")


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--config", str(config)])


def ok(config: Path, *words: str) -> str:
    done = run(config, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_an_empty_store_says_how_to_fill_it(config):
    assert "model add" in ok(config, "list")


def test_a_file_is_added_listed_shown_converted_verified_and_removed(config, source):
    assert "F16" in ok(config, "add", str(source))
    assert "mine.gguf" in ok(config, "list")
    assert "llama" in ok(config, "show", "mine.gguf")
    assert "by gguf" in ok(config, "convert", "mine.gguf", "Q8_0", "--tool", "gguf")
    assert ok(config, "verify").count("ok") == 2
    assert "removed mine.gguf" in ok(config, "rm", "mine.gguf")
    assert "Q8_0" in ok(config, "list")


def test_list_and_show_speak_json(config, source):
    ok(config, "add", str(source), "--quantization", "Q4_0")
    listed = json.loads(ok(config, "list", "--json"))
    assert sorted(model["quantization"] for model in listed["models"]) == ["F16", "Q4_0"]
    assert (listed["unknown"], listed["unfinished"]) == ([], [])
    shown = json.loads(ok(config, "show", "mine.gguf", "--json"))
    assert shown["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert sum(shown["mix"].values()) == pytest.approx(1)


def test_a_directory_is_added_and_listed_with_its_format(config, tmp_path):
    assert "safetensors" in ok(config, "add", str(write_directory(tmp_path / "hub-model")))
    assert "safetensors  F32 32.00 b/w     hub-model" in ok(config, "list")


def test_another_format_is_made_and_says_what_of(config, tmp_path):
    origin = write_llama(tmp_path / "whole.gguf")
    ok(config, "add", str(origin))
    digest = hashlib.sha256(origin.read_bytes()).hexdigest()
    assert f"gguf-2023 of {digest} by gguf" in ok(config, "convert", "whole.gguf", "gguf-2023")
    assert run(config, "convert", "whole.gguf", "Q8_0", "--tool", "magic").exit_code == 2


def test_a_reference_is_downloaded_with_its_digest(config, source):
    content = source.read_bytes()
    with FakeHub() as hub:
        url = hub.serve("/m.gguf", content)
        with pytest.raises(ConfigError, match="SHA-256"):
            raise run(config, "add", url).exception or AssertionError
        assert "m-" in ok(config, "add", url, "--sha256", hashlib.sha256(content).hexdigest())


def test_a_changed_file_makes_verify_exit_with_one(config, source, tmp_path):
    ok(config, "add", str(source))
    (tmp_path / "store" / "mine.gguf").write_bytes(b"rot")
    done = run(config, "verify")
    assert done.exit_code == 1
    assert "bad" in done.stdout
    assert "has changed" in done.stdout


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["add", "/no/such/file.gguf"], ModelNotFound),
        (["add", "hf://only"], ConfigError),
        (["add", "https://" + "x" * 2000], ConfigError),
        (["show", "none.gguf"], ModelNotFound),
        (["show", "../x"], ConfigError),
        (["rm", "none.gguf"], ModelNotFound),
        (["convert", "none.gguf", "Q8_0"], ModelNotFound),
        (["convert", "none.gguf", "Q1"], ConfigError),
    ],
)
def test_a_mistake_is_a_typed_error_that_the_command_line_can_show(config, words, kind):
    error = run(config, *words).exception
    assert isinstance(error, FleetmarkError)
    assert type(error) is kind


def test_a_digest_that_is_none_is_a_usage_error(config, source):
    assert run(config, "add", str(source), "--sha256", "abc").exit_code == 2
