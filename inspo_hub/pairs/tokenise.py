"""Examples -> token ids. The prompt is what inference feeds; a response continues it, token by token.

Equivalent to `tokenizer.apply_chat_template(prompt, add_generation_prompt=True)` for the prompt, and to the ids of the
whole rendered conversation behind it for a response, wherever no token reaches across the boundary.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inspo_hub.pairs.formats import Example, RowProblem, prompt_text
from inspo_hub.pairs.template import (
    ChatShape,
    encode,
    end_of_sequence,
    probe_chat,
    render,
    response_text,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Characters that some tokenizer keeps apart from any answer that follows them.
_ANCHORS = ("", "\n", ":", "0", "\t")
_LETTERS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Texts:
    """One row as the three texts that are tokenised; `end_id` is appended to responses that do not hold it."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(slots=True)
class Tokens:
    """One row as token ids."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    merged: int = 0
    """Responses whose first token would, in the joint tokenisation, have merged with the prompt's last."""


@dataclass(eq=False)
class PairTokeniser:
    """Rows -> ids with one tokenizer: through its chat template (`chat`), or as raw strings."""

    tokenizer: PreTrainedTokenizerBase
    chat: bool
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shape: ChatShape | None = probe_chat(self.tokenizer, self.template_kwargs) if self.chat else None
        self.end_id = self.shape.end_id if self.shape else end_of_sequence(self.tokenizer)
        self._end_texts = {str(self.tokenizer.eos_token)} if self.tokenizer.eos_token is not None else set()
        if self.shape and self.shape.end_text:
            self._end_texts.add(self.shape.end_text)
        self.added_prefix = [] if self.chat else _added_prefix(self.tokenizer)

    @property
    def floor(self) -> int:
        """Prompt tokens that no truncation may take: BOS and the generation prompt."""
        generation = encode(self.tokenizer, [self.shape.generation_prompt])[0] if self.shape else []
        return max(len(generation), 1) + 1

    def texts(self, example: Example, row_kwargs: Mapping[str, Any] | None = None) -> Texts:
        """The texts to tokenise. Raises RowProblem where the template refuses the row."""
        if not example.is_chat:
            return self._raw_texts(example)
        assert self.shape is not None
        assert isinstance(example.prompt, list)
        kwargs = {**self.template_kwargs, **(row_kwargs or {})}
        prompt = render(self.tokenizer, example.prompt, generation_prompt=True, template_kwargs=kwargs)
        responses = []
        for message in (example.chosen, example.rejected):
            assert isinstance(message, dict)
            message = {**message, "content": self._without_end(message["content"])}
            whole = render(self.tokenizer, [*example.prompt, message], generation_prompt=False, template_kwargs=kwargs)
            response = response_text(whole, prompt, self.shape)
            self._refuse_end_inside(response.removesuffix(self.shape.end_text))
            responses.append(response)
        return Texts(prompt, *responses)

    def _raw_texts(self, example: Example) -> Texts:
        assert isinstance(example.prompt, str)
        responses = []
        for text in (example.chosen, example.rejected):
            assert isinstance(text, str)
            text = self._without_end(text)
            self._refuse_end_inside(text)
            responses.append(text)
        return Texts(example.prompt, *responses)

    def _refuse_end_inside(self, text: str) -> None:
        for end in self._end_texts:
            if end in text:
                raise RowProblem(
                    "end_token_inside", f"an answer holds {end!r} in its text, where generation would stop"
                )

    def _without_end(self, text: str) -> str:
        """The answer without end tokens that the data set already wrote behind it."""
        shorter = text
        while any((stripped := shorter.rstrip()).endswith(end) for end in self._end_texts):
            end = next(end for end in self._end_texts if stripped.endswith(end))
            shorter = stripped.removesuffix(end)
        return shorter

    def tokenise(self, rows: Sequence[Texts]) -> list[Tokens | RowProblem]:
        """Token ids of many rows at once; a row whose boundary cannot be kept comes back as its problem."""
        bare = encode(self.tokenizer, [row.prompt for row in rows])
        tails, tail_ids = self._tails([row.prompt for row in rows], bare)
        behind = [tail + text for tail, row in zip(tails, rows, strict=True) for text in (row.chosen, row.rejected)]
        joint = encode(self.tokenizer, behind)
        results: list[Tokens | RowProblem] = []
        for index, row in enumerate(rows):
            tokens = Tokens(self._with_prefix(bare[index]), [], [])
            try:
                tokens.chosen = self._continuation(tail_ids[index], row.chosen, joint[2 * index], tokens)
                tokens.rejected = self._continuation(tail_ids[index], row.rejected, joint[2 * index + 1], tokens)
                results.append(tokens)
            except RowProblem as problem:
                results.append(problem)
        return results

    def _with_prefix(self, prompt: list[int]) -> list[int]:
        """The prompt with the BOS that the tokenizer adds to raw texts, once."""
        prefix = self.added_prefix
        return prompt if prompt[: len(prefix)] == prefix else [*prefix, *prompt]

    def _tails(self, prompts: Sequence[str], ids: Sequence[list[int]]) -> tuple[list[str], list[list[int]]]:
        """Each prompt from its last special token on, as text and ids: nothing before that merges with a response.

        Only a speed-up of tokenising the whole prompt again with each response; where the prompt's ids do not end in
        its tail's, the tail is the whole prompt.
        """
        markers = self.shape.markers if self.shape else ()
        starts = [max([0, *(prompt.rfind(text) for text in markers)]) for prompt in prompts]
        tails = [prompt[start:] for prompt, start in zip(prompts, starts, strict=True)]
        short = list(dict.fromkeys(tail for tail, start in zip(tails, starts, strict=True) if start))
        known = dict(zip(short, encode(self.tokenizer, short), strict=True))
        tail_ids = [known[tail] if start else row for tail, start, row in zip(tails, starts, ids, strict=True)]
        for index, (end, row) in enumerate(zip(tail_ids, ids, strict=True)):
            if row[len(row) - len(end) :] != end:
                tails[index], tail_ids[index] = prompts[index], row
        return tails, tail_ids

    def _continuation(self, tail_ids: list[int], text: str, joint: list[int], tokens: Tokens) -> list[int]:
        """The response's ids behind the prompt's; where a token would straddle the boundary, the response alone."""
        if joint[: len(tail_ids)] == tail_ids:
            response = joint[len(tail_ids) :]
        else:
            response = self._alone(tail_ids, text, joint)
            tokens.merged += 1
        if self.shape is None or not self.shape.end_text:
            response = [*response, self.end_id]
        if len(response) < 2 or response[-1] != self.end_id:
            raise RowProblem("empty_response", "no token is left of a response")
        return response

    def _alone(self, tail_ids: list[int], text: str, joint: list[int]) -> list[int]:
        """The response tokenised on its own such that prompt and response together still decode to the same text."""
        wanted = self._decode(joint)
        for anchor in (*_ANCHORS, *self._end_texts):
            lead = encode(self.tokenizer, [anchor])[0] if anchor else []
            ids = encode(self.tokenizer, [anchor + text])[0]
            if ids[: len(lead)] == lead and self._decode([*tail_ids, *ids[len(lead) :]]) == wanted:
                return ids[len(lead) :]
        raise RowProblem("boundary", "no tokenisation keeps the boundary between prompt and response")

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def notes_on(tokeniser: PairTokeniser) -> list[str]:
    """What a user may not expect of this tokenizer and template; said in the data report."""
    tokenizer, shape = tokeniser.tokenizer, tokeniser.shape
    if shape is None:
        return ["no chat template is applied: prompt and response strings are joined as they stand"]
    notes = ["the chat template renders every row; a string prompt becomes one user message"]
    end = tokenizer.convert_ids_to_tokens(shape.end_id)
    if shape.end_id != tokenizer.eos_token_id:
        notes.append(f"responses end in {end}, which is not the tokenizer's eos_token {tokenizer.eos_token}")
    if not shape.end_text:
        notes.append(f"the chat template writes no end token after an answer; {end} is appended")
    if renders_date(tokenizer) and "date_string" not in tokeniser.template_kwargs:
        notes.append("the chat template writes today's date: fix it with chat_template_kwargs: {date_string: …}")
    return notes


def renders_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template may write today's date: tomorrow's run would train on other prompts."""
    return "strftime_now" in str(getattr(tokenizer, "chat_template", None))


def _added_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text of its own accord: BOS, or nothing."""
    with_added = tokenizer("a", verbose=False)["input_ids"]
    bare = encode(tokenizer, ["a"])[0]
    starts = range(len(with_added) - len(bare) + 1)
    return with_added[: next((at for at in starts if with_added[at : at + len(bare)] == bare), 0)]


def text_hash(text: str) -> int:
    """A 64-bit hash of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def prompt_hashes(example: Example) -> tuple[int, int]:
    """The prompt's hash, and the hash of its letters and digits alone (a near-duplicate keeps it)."""
    text = prompt_text(example)
    return text_hash(text), text_hash(" ".join(_LETTERS.findall(text.casefold())))
