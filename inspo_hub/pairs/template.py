"""What a tokenizer's chat template does around an answer, found by rendering probes, never by reading Jinja.

A rendered conversation is `prompt · lead · content · gap · end · after`: `prompt` is what inference feeds, the response
is `lead · content · gap · end`, and what the template writes `after` the end token belongs to nobody's response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from inspo_hub.errors import DataError
from inspo_hub.pairs.formats import Message, RowProblem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_TURN_TEXT = "Please give another answer to my previous message."
_ASKED, _ANSWERED = "Which river is longest?", "Opinions differ about it"
_ASKED_2, _ANSWERED_2 = "Add two and three", "Five, as far as we know"


@dataclass(frozen=True)
class ChatShape:
    """The parts of a rendered answer that do not depend on the conversation."""

    end_text: str
    """The end token as text; "" where the template writes none and the tokenizer's EOS is appended."""
    end_id: int
    after: str
    """What the template writes after the end token (ChatML's newline)."""
    generation_prompt: str
    """What `add_generation_prompt=True` adds."""
    markers: tuple[str, ...]
    """Special tokens that the template writes into every prompt."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    generation_prompt: bool,
    template_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """The conversation as the chat template writes it; a template that refuses it raises RowProblem."""
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generation_prompt, **(template_kwargs or {})
        )
    except (TemplateError, TypeError, KeyError, ValueError) as refusal:
        raise RowProblem("template_refused", str(refusal)) from refusal
    assert isinstance(text, str)
    return text


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts as they stand: special tokens are read where they are written, none is added."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return encoded["input_ids"]


def special_texts(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Special tokens (EOS and turn markers among them) that are read as one token wherever they are written."""
    added = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    if tokenizer.eos_token is not None:
        added[str(tokenizer.eos_token)] = tokenizer.eos_token_id
    return {text: index for text, index in added.items() if text.strip()}


def probe_chat(tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any] | None = None) -> ChatShape:
    """End token, what follows it, and the generation prompt, from one rendered dummy answer."""
    question = [{"role": "user", "content": _ASKED}]
    try:
        plain = render(tokenizer, question, generation_prompt=False, template_kwargs=template_kwargs)
        prompt = render(tokenizer, question, generation_prompt=True, template_kwargs=template_kwargs)
        answered = [*question, {"role": "assistant", "content": _ANSWERED}]
        whole = render(tokenizer, answered, generation_prompt=False, template_kwargs=template_kwargs)
    except RowProblem as problem:
        raise DataError(
            f"the chat template cannot render a user message and its answer: {problem.detail}",
            where=tokenizer_name(tokenizer),
            fix="choose a model whose tokenizer has a chat template for user and assistant messages",
        ) from problem
    if not whole.startswith(prompt) or _ANSWERED not in whole:
        raise DataError(
            f"the chat template writes an answer as {whole!r}, but inference feeds {prompt!r}",
            where=tokenizer_name(tokenizer),
            expected="a template whose generation prompt is the beginning of the rendered assistant turn",
            fix="turn the template's thinking off (chat_template_kwargs: {enable_thinking: false}) or use another one",
        )
    tail = whole[whole.rindex(_ANSWERED) + len(_ANSWERED) :]
    end_text, end_id = _first_special(tokenizer, tail)
    after = tail[tail.index(end_text) + len(end_text) :] if end_text else tail[len(tail.rstrip()) :]
    generation_prompt = prompt.removeprefix(plain) if prompt.startswith(plain) else ""
    markers = tuple(text for text in special_texts(tokenizer) if text in prompt)
    return ChatShape(end_text, end_id, after, generation_prompt, markers)


def _first_special(tokenizer: PreTrainedTokenizerBase, tail: str) -> tuple[str, int]:
    found = [(tail.index(text), -len(text), text) for text in special_texts(tokenizer) if text in tail]
    if found:
        text = min(found)[2]
        return text, special_texts(tokenizer)[text]
    return "", end_of_sequence(tokenizer)


def end_of_sequence(tokenizer: PreTrainedTokenizerBase) -> int:
    """The EOS id; a tokenizer without one cannot end a response."""
    if tokenizer.eos_token_id is None:
        raise DataError(
            "the tokenizer has no end-of-sequence token, so a response could never end",
            where=tokenizer_name(tokenizer),
            fix="use the tokenizer that belongs to the model, or set its eos_token",
        )
    return int(tokenizer.eos_token_id)


def response_text(whole: str, prompt: str, shape: ChatShape) -> str:
    """The response of a rendered conversation, with its one end token and nothing behind it. Raises RowProblem."""
    if not whole.startswith(prompt):
        raise RowProblem("template_mismatch", "the rendered answer does not continue the generation prompt")
    response = whole[len(prompt) :].removesuffix(shape.after)
    if not shape.end_text:
        return response
    if not response.endswith(shape.end_text):
        response = response[: response.rfind(shape.end_text) + len(shape.end_text)]
    if response.count(shape.end_text) != 1:
        raise RowProblem("end_token_inside", f"the answer holds {shape.end_text!r} in its text")
    return response


def separator_ids(
    tokenizer: PreTrainedTokenizerBase,
    format: Literal["turn", "concat"] = "turn",
    turn_text: str = DEFAULT_TURN_TEXT,
    template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[int, ...]:
    """Tokens between the alternative, which ends in its end token, and the target ([SEP] of arXiv:2512.23126).

    `concat`: none. `turn`: what the chat template writes between an assistant turn's end token and the next assistant
    answer where a user turn with `turn_text` stands between them; it must not depend on the conversation.
    """
    if format == "concat":
        return ()
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "alternative.format: turn needs a chat template, and the tokenizer has none",
            where=tokenizer_name(tokenizer),
            fix="set alternative.format: concat, or use a tokenizer with a chat template",
        )
    shape = probe_chat(tokenizer, template_kwargs)
    question, answer = _message("user", _ASKED), _message("assistant", _ANSWERED)
    question_2, answer_2 = _message("user", _ASKED_2), _message("assistant", _ANSWERED_2)
    histories = ([question, answer], [question_2, answer_2], [question, answer, question_2, answer_2])
    texts = [_between(tokenizer, history, turn_text, shape, template_kwargs) for history in histories]
    if len(set(texts)) > 1:
        raise DataError(
            f"what the chat template writes between two answers depends on the conversation: {texts[0]!r}, "
            f"but also {next(text for text in texts if text != texts[0])!r}",
            where=tokenizer_name(tokenizer),
            fix="set alternative.format: concat",
        )
    anchor = shape.end_text or str(tokenizer.eos_token)
    ids = encode(tokenizer, [anchor + texts[0]])[0]
    assert ids[0] == shape.end_id, "the end token is not read as one token"
    return tuple(ids[1:])


def _between(
    tokenizer: PreTrainedTokenizerBase,
    history: list[Message],
    turn_text: str,
    shape: ChatShape,
    template_kwargs: Mapping[str, Any] | None,
) -> str:
    messages = [*history, _message("user", turn_text)]
    try:
        whole = render(tokenizer, messages, generation_prompt=True, template_kwargs=template_kwargs)
    except RowProblem as problem:
        raise DataError(
            f"the chat template cannot render a second user turn: {problem.detail}",
            where=tokenizer_name(tokenizer),
            fix="set alternative.format: concat",
        ) from problem
    tail = whole[whole.rindex(history[-1]["content"]) + len(history[-1]["content"]) :]
    asked = tail.find(turn_text.strip())
    if asked < 0 or not turn_text.strip():
        raise DataError(
            f"the chat template leaves the user turn {turn_text!r} out",
            where=f"alternative.turn_text, {tokenizer_name(tokenizer)}",
            fix="set another alternative.turn_text, or alternative.format: concat",
        )
    end = tail.find(shape.end_text, 0, asked)  # some templates end only the last assistant turn
    return tail[max(end, 0) + len(shape.end_text) * (end >= 0) :]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def tokenizer_name(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or "the tokenizer")


def check_vocabulary(max_id: int, embedding_rows: int, *, where: str = "tokenizer") -> None:
    """Raises DataError where a token id has no row in the model's embedding: the tokenizer is another model's."""
    if max_id >= embedding_rows:
        raise DataError(
            f"token id {max_id} has no row in the model's embedding of {embedding_rows} rows",
            where=where,
            expected=f"ids from 0 to {embedding_rows - 1}",
            fix="use the tokenizer that belongs to the model, or resize the model's embedding",
        )
