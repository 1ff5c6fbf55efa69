"""What a device's owner sets for engines; readable without any engine installed."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from fleetmark_protocol.ids import Sha256
from fleetmark_protocol.settings import Section, is_loopback


class LlamaServerSettings(Section):
    """llama.cpp's own server program."""

    executable: Path | None = None
    """Default: `llama-server` beside the agent's Python, or on the PATH."""


class LlamafileSettings(Section):
    """llamafiles: programs, so none runs that the owner has not named by its digest."""

    executable: Path | None = None
    """The bare llamafile program, for models without one inside: its name in the model store."""
    trusted_sha256: tuple[Sha256, ...] = ()
    """Digests of the llamafiles, bare or with weights inside, that may be executed."""


class OllamaSettings(Section):
    """An Ollama server, running already or started for the job."""

    url: str = "http://127.0.0.1:11434"
    """Where a running one answers."""
    serve: Literal["auto", "always", "never"] = "auto"
    """Start one's own: where none answers, for every job, or never."""
    executable: Path | None = None
    """Default: `ollama` on the PATH."""
    models_dir: Path | None = None
    """Where one that was started keeps what it imported, for the next job; default: nowhere."""

    @field_validator("url")
    @classmethod
    def _web_address(cls, url: str) -> str:
        return _checked_url(url)


class OpenAISettings(Section):
    """An endpoint that speaks OpenAI's API."""

    url: str | None = None
    """Its base, with the version: `https://api.openai.com/v1`."""
    api_key_file: Path | None = None
    """File with the key alone; never the key itself, which would end up in backups."""
    api: Literal["completions", "chat"] = "completions"
    """`chat` wraps each prompt in a message, so that its prompt is not the same as others'."""

    @field_validator("url")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        return None if url is None else _checked_url(url)

    @model_validator(mode="after")
    def _no_key_in_clear(self) -> Self:
        if self.url is None or self.api_key_file is None:
            return self
        parts = urlsplit(self.url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ValueError(f"would send a key to {parts.hostname} in clear; use https")
        return self


class EnginesSettings(Section):
    """One table for each engine that needs one."""

    llama_server: LlamaServerSettings = LlamaServerSettings()
    llamafile: LlamafileSettings = LlamafileSettings()
    ollama: OllamaSettings = OllamaSettings()
    openai: OpenAISettings = OpenAISettings()


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no web address (http://HOST:PORT)")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must hold neither name and password nor a query")
    return url.rstrip("/")
