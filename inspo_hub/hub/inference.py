"""Chat models behind an OpenAI-compatible address, or an inference provider of the Hub, through the Hub's client.

The client itself never tries again and never looks at what it got: both are done here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inspo_hub.errors import JudgeError
from inspo_hub.hub.client import HubFailure, Line, Patience, call
from inspo_hub.hub.faults import Fault, classify, client_errors

if TYPE_CHECKING:
    from huggingface_hub import InferenceClient

NO_KEY = "unused"
"""Sent where an address needs no key: without one the client would send the user's Hub token to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """One completion. Token counts are None where the server does not tell."""

    text: str
    first_token: tuple[tuple[str, float], ...]
    """The likeliest first tokens with their log-probabilities; empty where the server gives none."""
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True, slots=True)
class ChatPart:
    """What one event of a streamed answer added. `finish` says why the answer ended, empty before."""

    text: str
    finish: str = ""


class ChatEndpoint:
    """A chat model that can be asked from many threads at once.

    Args:
        model: its name, sent with every request.
        base_url: the server, with or without `/v1`; None: an inference provider of the Hub.
        provider: that provider; None: the Hub's router chooses one.
        key_variable: environment variable that holds the key. None: the Hub's own token for a provider, none else.
        timeout_s: for one answer.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        provider: str | None = None,
        key_variable: str | None = None,
        bill_to: str | None = None,
        timeout_s: float = 120.0,
        patience: Patience = Patience(attempts=6, base_s=1.0, ceiling_s=60.0, jitter=0.5),  # noqa: B008
    ) -> None:
        from huggingface_hub import InferenceClient

        self.model, self.patience, self._line = model, patience, Line()
        self.place = urlsplit(base_url).netloc if base_url is not None else f"provider {provider or 'auto'}"
        """Whom it asks, without a path or a key: for caches and reports."""
        key = _key(key_variable) if key_variable is not None else (NO_KEY if base_url is not None else None)
        where: dict[str, Any] = {"base_url": base_url} if base_url is not None else {"provider": provider}
        self._client: InferenceClient = InferenceClient(**where, api_key=key, bill_to=bill_to, timeout=timeout_s)

    def ask(self, messages: Sequence[Mapping[str, str]], **parameters: Any) -> ChatAnswer:
        """The model's answer. Raises HubFailure: after the last attempt, or at once where another cannot help."""
        return call(lambda: self._ask(messages, parameters), patience=self.patience, line=self._line)

    def stream(self, messages: Sequence[Mapping[str, str]], **parameters: Any) -> Iterator[ChatPart]:
        """The model's answer in parts, as they arrive. Raises HubFailure; nothing is tried again once words came."""
        try:
            events: Any = self._client.chat_completion(
                [dict(each) for each in messages], model=self.model, stream=True, **parameters
            )
            for event in events:
                for choice in event.choices:
                    yield ChatPart(choice.delta.content or "", choice.finish_reason or "")
        except client_errors() as error:
            raise HubFailure(classify(error)) from None
        except (TypeError, AttributeError, KeyError, IndexError) as error:
            raise HubFailure(_garbage(f"the answer is no completion ({type(error).__name__})")) from None

    def _ask(self, messages: Sequence[Mapping[str, str]], parameters: Mapping[str, Any]) -> ChatAnswer:
        found: Any
        try:
            found = self._client.chat_completion([dict(each) for each in messages], model=self.model, **parameters)
            choice = found.choices[0]
            text, usage, scored = choice.message.content, found.usage, choice.logprobs
            if text is None:
                raise HubFailure(_garbage("the answer has no text"))
            top = scored.content[0].top_logprobs if scored is not None and scored.content else None
            return ChatAnswer(
                text=str(text),
                first_token=tuple((str(each.token), float(each.logprob)) for each in top or ()),
                prompt_tokens=usage.prompt_tokens if usage is not None else None,
                completion_tokens=usage.completion_tokens if usage is not None else None,
            )
        except (TypeError, AttributeError, KeyError, IndexError, UnicodeDecodeError) as error:
            raise HubFailure(_garbage(f"the answer is no completion ({type(error).__name__})")) from None


def _garbage(what: str) -> Fault:
    return Fault("refused", what, status=200)


def _key(variable: str) -> str:
    found = os.environ.get(variable)
    if not found:
        raise JudgeError(
            f"the environment variable {variable} is not set",
            where="evaluate.judge.endpoint.api_key_env",
            expected="a variable that holds the key of the judge's server",
            fix=f"export {variable}=…; the key is written nowhere",
        )
    return found
