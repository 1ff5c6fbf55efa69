"""LangChain's OllamaLLM: our ollama backend finds the server and the model, LangChain asks it."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleetmark_agent.backends.base import Completion, LoadReport, Token
from fleetmark_agent.backends.ollama import KEEP_ALIVE_S, Ollama
from fleetmark_agent.backends.ollama_service import Service
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.messages import Options


class OverOllama:
    """Everything but the request itself is the bare backend's."""

    def __init__(self, engines: EnginesSettings) -> None:
        self._bare = Ollama(engines, asks=_ask)

    def load(self, model: Path, options: Options) -> LoadReport:
        """See `Backend.load`."""
        report = self._bare.load(model, options)
        # Made now, so that no request pays for it.
        _llm(*self._bare.place)
        return report

    def prepare(self, prompt: str, options: Options) -> None:
        """See `Prepares.prepare`."""
        self._bare.prepare(prompt, options)

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """See `Backend.generate`."""
        return self._bare.generate(prompt, output_tokens, options)

    def close(self) -> None:
        """See `Backend.close`."""
        self._bare.close()


def _ask(service: Service, model: str, prompt: str, chosen: dict[str, Any]) -> Iterator[Any]:
    """Yield what Ollama's client would: parts of an answer, the last one with the counts.

    LangChain's stream is of texts alone; what the server says at the end goes to callbacks.
    """
    import ollama
    from langchain_core.callbacks import BaseCallbackHandler

    said: dict[str, Any] = {}

    def hear(response: Any, **_: Any) -> None:
        said.update(response.generations[0][0].generation_info or {})

    listener = BaseCallbackHandler()
    listener.raise_error = True
    listener.on_llm_end = hear
    stream = _llm(service.url, model).stream(
        prompt,
        config={"callbacks": [listener]},
        raw=True,
        keep_alive=KEEP_ALIVE_S,
        options=chosen,
    )
    for text in stream:
        yield ollama.GenerateResponse(response=text)
    yield ollama.GenerateResponse.model_validate({**said, "response": ""})


@lru_cache(maxsize=1)
def _llm(url: str, model: str) -> Any:
    from langchain_ollama import OllamaLLM

    return OllamaLLM(model=model, base_url=url, client_kwargs={"timeout": None})
