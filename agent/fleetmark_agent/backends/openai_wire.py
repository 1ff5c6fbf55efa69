"""What goes to an OpenAI-compatible endpoint, and what its events and errors mean. Pure: no I/O."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from fleetmark_agent.backends.base import Completion
from fleetmark_protocol.errors import BackendError, ModelNotFound, PromptTooLong
from fleetmark_protocol.messages import Options

Api = Literal["completions", "chat"]
MESSAGE_CHARS = 400
_TOO_LONG = ("context_length", "context length", "exceed_context_size", "context size")
_STOP_REASONS = {"length": "length", "stop": "eos"}


@dataclass
class Answer:
    """What the events of one answer have said so far.

    Attributes:
        finish: why it ended, in the endpoint's words.
        usage: its counts.
        done: whether the end was marked.
    """

    finish: str | None = None
    usage: dict[str, Any] | None = None
    done: bool = False

    def take(self, line: str) -> str:
        """Take one line of the stream; return the text that it brings, or nothing.

        Raises:
            BackendError: it is an error, or no event of this API.
        """
        if not line.startswith("data:"):
            # A comment that keeps the connection open, a name of an event, an empty line.
            return ""
        data = line[5:].strip()
        if data == "[DONE]":
            self.done = True
            return ""
        try:
            event = json.loads(data)
        except ValueError as error:
            raise BackendError(f"the endpoint sent what is no JSON: {data[:80]!r}") from error
        if not isinstance(event, dict) or "error" in event:
            raise error_of(0, event)
        self.usage = event.get("usage") or self.usage
        text = ""
        for choice in event.get("choices") or ():
            self.finish = choice.get("finish_reason") or self.finish
            delta = choice.get("delta") or choice
            text += (
                delta.get("text") or delta.get("content") or delta.get("reasoning_content") or ""
            )
        return text

    def completion(self) -> Completion:
        """Return the end of the answer.

        Raises:
            BackendError: it has no counts; chunks are not tokens and do not stand for them.
        """
        if self.usage is None:
            raise BackendError(
                "the endpoint tells no token counts",
                hint="it must honour stream_options.include_usage",
            )
        prompt_tokens = int(self.usage["prompt_tokens"])
        details = self.usage.get("prompt_tokens_details") or {}
        return Completion(
            prompt_tokens=prompt_tokens,
            prompt_tokens_evaluated=prompt_tokens - int(details.get("cached_tokens") or 0),
            output_tokens=int(self.usage["completion_tokens"]),
            stop_reason=_STOP_REASONS.get(self.finish or "", "stop"),
        )


def request_body(
    api: Api, model: str, prompt: str, output_tokens: int, options: Options
) -> dict[str, Any]:
    """Return the body of a request; only fields that every such endpoint knows."""
    asked: dict[str, Any] = {"prompt": prompt}
    if api == "chat":
        asked = {"messages": [{"role": "user", "content": prompt}]}
    return {
        "model": model,
        **asked,
        "max_tokens": output_tokens,
        "temperature": options.temperature,
        "seed": options.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def error_of(status: int, answer: Any) -> BackendError:
    """Return what an error answer means.

    Args:
        status: HTTP status; 0 for an error in the middle of a stream.
        answer: the decoded body, whatever it is.
    """
    found = answer.get("error", answer) if isinstance(answer, dict) else answer
    told = found.get("message", found) if isinstance(found, dict) else found
    where = f"the endpoint answers {status}" if status else "the endpoint says"
    message = f"{where}: {str(told)[:MESSAGE_CHARS]}"
    if any(sign in str(found) for sign in _TOO_LONG):
        return PromptTooLong(message)
    if status in (401, 403):
        return BackendError(message, hint="see engines.openai.api_key_file")
    if status == 404:
        return ModelNotFound(message, hint="see engines.openai.url, its api, and the model's name")
    if status == 429:
        return BackendError(message, hint="it limits how often or how much may be asked: wait")
    return BackendError(message)
