"""One row of a preference data set, in any of the known formats -> prompt, chosen and rejected. No tokens yet.

Known formats: strings or message lists; an explicit prompt, or one that both responses repeat (implicit). An implicit
prompt is found on messages, or on the "\\n\\nAssistant:" turns of Anthropic-HH transcripts, never on characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
_ASSISTANT_TURN = "\n\nAssistant:"


class RowProblem(Exception):
    """Why a row cannot become a pair. Counted in the report under its kind; never seen by the user as such."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, slots=True)
class Example:
    """A row as text: messages and two assistant messages (chat), or three strings (raw)."""

    prompt: list[Message] | str
    chosen: Message | str
    rejected: Message | str

    @property
    def is_chat(self) -> bool:
        return not isinstance(self.prompt, str)


def read_example(row: Mapping[str, Any], *, chat: bool) -> Example:
    """The row's prompt and two responses; `chat` says whether strings become messages. Raises RowProblem."""
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    for name, response in (("chosen", chosen), ("rejected", rejected)):
        if response is None or len(response) == 0:
            raise RowProblem(f"empty_{name}")
    if not chat:
        return _read_raw(prompt, chosen, rejected)
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        chosen, rejected = read_transcript(chosen), read_transcript(rejected)
    context = [] if prompt is None else _as_messages(prompt, role="user")
    if row.get("system") and (not context or context[0]["role"] != "system"):
        context = [{"role": "system", "content": row["system"]}, *context]
    example = _split(_whole(context, chosen), _whole(context, rejected))
    _check_not_empty(example)
    return example


def _read_raw(prompt: Any, chosen: Any, rejected: Any) -> Example:
    if not all(value is None or isinstance(value, str) for value in (prompt, chosen, rejected)):
        raise RowProblem("needs_chat_template")
    if prompt is None:
        prompt, chosen = _cut_transcript(chosen)
        prompt_of_rejected, rejected = _cut_transcript(rejected)
        if prompt != prompt_of_rejected:
            raise RowProblem("diverging_turns")
    for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            raise RowProblem(f"empty_{name}")
    return Example(prompt, chosen, rejected)


def _cut_transcript(text: str) -> tuple[str, str]:
    """An Anthropic-HH transcript cut behind its last "Assistant:"; the blank that follows belongs to the answer."""
    at = text.rfind(_ASSISTANT_TURN)
    if at < 0:
        raise RowProblem("no_boundary")
    return text[: at + len(_ASSISTANT_TURN)], text[at + len(_ASSISTANT_TURN) :]


def read_transcript(text: str) -> list[Message]:
    """The messages of an Anthropic-HH transcript ("\\n\\nHuman: …\\n\\nAssistant: …")."""
    turns = list(_TURN.finditer(text))
    if not turns or text[: turns[0].start()].strip() or turns[-1][1] != "Assistant":
        raise RowProblem("no_boundary")
    ends = [*(turn.start() for turn in turns[1:]), len(text)]
    return [
        {"role": _HH_ROLES[turn[1]], "content": text[turn.end() : end].strip()}
        for turn, end in zip(turns, ends, strict=True)
    ]


def _as_messages(value: Any, *, role: str) -> list[Message]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, Mapping):
        value = [value]
    return [_clean_message(message) for message in value]


def _clean_message(message: Any) -> Message:
    """A message without the None fields that Arrow's one schema adds, its content as one string."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise RowProblem("bad_message", "a message is not {role, content}")
    clean = {key: value for key, value in message.items() if value is not None}
    content = clean.get("content", "")
    if isinstance(content, Sequence) and not isinstance(content, str):
        if any(not isinstance(part, Mapping) or part.get("type", "text") != "text" for part in content):
            raise RowProblem("not_text", "a message holds an image, a sound or another part that is not text")
        content = "".join(str(part.get("text") or "") for part in content)
    if not isinstance(content, str):
        raise RowProblem("bad_message", "a message's content is not text")
    return {**clean, "content": content}


def _whole(context: list[Message], response: Any) -> list[Message]:
    """The whole conversation, whether the response repeats the prompt or only continues it."""
    messages = _as_messages(response, role="assistant")
    if not context or messages[0]["role"] == "assistant":
        return [*context, *messages]
    if messages[: len(context)] == context:
        return messages
    asked = [message["content"].strip() for message in context if message["role"] == "user"]
    said = [message["content"].strip() for message in messages[:-1] if message["role"] == "user"]
    if len(messages) > 1 and all(text in said for text in asked):
        system = [context[0]] if context[0]["role"] == "system" and messages[0]["role"] != "system" else []
        return [*system, *messages]
    if len(asked) <= 1 and len(context) == len(asked):
        raise RowProblem("prompt_mismatch", "the response repeats a conversation that does not hold the prompt")
    return [*context, *messages]


def _split(chosen: list[Message], rejected: list[Message]) -> Example:
    """Cut before the last assistant turn: the prompt is what both conversations share, whole messages only."""
    if chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise RowProblem("no_assistant_turn", "a conversation does not end in an assistant message")
    if chosen[:-1] != rejected[:-1]:
        raise RowProblem("diverging_turns", "chosen and rejected differ before their last message")
    return Example(chosen[:-1], chosen[-1], rejected[-1])


def _check_not_empty(example: Example) -> None:
    for name, message in (("chosen", example.chosen), ("rejected", example.rejected)):
        assert isinstance(message, dict)
        if not message["content"].strip() and not message.get("tool_calls"):
            raise RowProblem(f"empty_{name}")
    assert isinstance(example.prompt, list)
    if not any(message["content"].strip() for message in example.prompt if message["role"] != "system"):
        raise RowProblem("empty_prompt")


def prompt_text(example: Example) -> str:
    """The prompt as one canonical string: equal prompts are equal strings, whatever the tokenizer and format."""
    if isinstance(example.prompt, str):
        return example.prompt.strip()
    return json.dumps([[m["role"], m["content"].strip()] for m in example.prompt], ensure_ascii=False)
