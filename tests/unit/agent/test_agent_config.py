"""What an owner's settings for engines mean."""

from pathlib import Path

import pytest

from fleetmark_agent.config import AgentSettings, load_settings
from fleetmark_protocol.errors import ConfigError


def test_a_bare_llamafile_is_named_in_the_model_store():
    settings = AgentSettings(
        device_id="d",
        models={"dir": "/models"},
        engines={"llamafile": {"executable": "llamafile-0.9.3", "trusted_sha256": ["0" * 64]}},
    )
    assert settings.engines_here.llamafile.executable == Path("/models/llamafile-0.9.3")
    assert settings.engines_here.llamafile.trusted_sha256 == ("0" * 64,)
    assert settings.engines_here.ollama == settings.engines.ollama


@pytest.mark.parametrize("name", ["/usr/bin/env", "../bin/llamafile", "bin/llamafile", "."])
def test_no_program_is_executed_from_elsewhere(name, tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text(f'device_id = "d"\n[engines.llamafile]\nexecutable = "{name}"\n')
    with pytest.raises(ConfigError, match="out of the model store alone"):
        load_settings(file)


def test_a_key_is_only_sent_over_tls_or_to_this_machine(tmp_path):
    file = tmp_path / "agent.toml"
    asked = 'device_id = "d"\n[engines.openai]\nurl = "{}"\napi_key_file = "key"\n'
    file.write_text(asked.format("http://example.org/v1"))
    with pytest.raises(ConfigError, match="https"):
        load_settings(file)
    file.write_text(asked.format("http://127.0.0.1:8080/v1"))
    assert load_settings(file).engines.openai.api_key_file == Path("key")
