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
    special_texts,
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
        self._specials = special_texts(self.tokenizer)
        self._end_texts = {str(self.tokenizer.eos_token)} if self.tokenizer.eos_token is not None else set()
        if self.shape and self.shape.end_text:
            self._end_texts.add(self.shape.end_text)
        probe = self.tokenizer("a", verbose=False)["input_ids"]
        bare = encode(self.tokenizer, ["a"])[0]
        self.added_prefix: list[int] = probe[: max(len(probe) - len(bare), 0)] if probe[-len(bare) :] == bare else []
        if not self.added_prefix and probe != bare:  # a tokenizer that also adds its EOS
            at = next((i for i in range(len(probe)) if probe[i : i + len(bare)] == bare), 0)
            self.added_prefix = probe[:at]

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
            responses.append(response_text(whole, prompt, self.shape))
        return Texts(prompt, *responses)

    def _raw_texts(self, example: Example) -> Texts:
        assert isinstance(example.prompt, str)
        responses = []
        for text in (example.chosen, example.rejected):
            assert isinstance(text, str)
            text = self._without_end(text)
            if any(end in text for end in self._end_texts):
                raise RowProblem("end_token_inside", "the answer holds the end token in its text")
            responses.append(text)
        return Texts(example.prompt, *responses)

    def _without_end(self, text: str) -> str:
        """The answer without end tokens that the data set already wrote behind it."""
        shorter = text
        while any((stripped := shorter.rstrip()).endswith(end) for end in self._end_texts):
            end = next(end for end in self._end_texts if stripped.endswith(end))
            shorter = stripped.removesuffix(end)
        return shorter

    def tokenise(self, rows: Sequence[Texts]) -> list[Tokens | RowProblem]:
        """Token ids of many rows at once; a row whose boundary cannot be kept comes back as its problem."""
        prompts = self._prompt_ids([row.prompt for row in rows])
        tails = [self._tail(row.prompt) for row in rows]
        tail_ids = encode(self.tokenizer, tails)
        joint = encode(
            self.tokenizer,
            [tail + text for tail, row in zip(tails, rows, strict=True) for text in (row.chosen, row.rejected)],
        )
        results: list[Tokens | RowProblem] = []
        for index, row in enumerate(rows):
            tokens = Tokens(prompts[index], [], [])
            try:
                for offset, name in enumerate(("chosen", "rejected")):
                    ids = joint[2 * index + offset]
                    response = self._continuation(tails[index], tail_ids[index], getattr(row, name), ids, tokens)
                    setattr(tokens, name, response)
                results.append(tokens)
            except RowProblem as problem:
                results.append(problem)
        return results

    def _prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        ids = encode(self.tokenizer, prompts)
        if self.chat or not self.added_prefix:
            return ids
        prefix = self.added_prefix
        return [row if row[: len(prefix)] == prefix else [*prefix, *row] for row in ids]

    def _tail(self, prompt: str) -> str:
        """The prompt from its last special token on: what stands before a special token cannot merge with what follows.

        Only a speed-up of tokenising the whole prompt again with each response.
        """
        at = max((prompt.rfind(text) for text in self._specials), default=-1)
        return prompt[max(at, 0) :]

    def _continuation(self, tail: str, tail_ids: list[int], text: str, joint: list[int], tokens: Tokens) -> list[int]:
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


def text_hash(text: str) -> int:
    """A 64-bit hash of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def prompt_hashes(example: Example) -> tuple[int, int]:
    """The prompt's hash, and the hash of its letters and digits alone (a near-duplicate keeps it)."""
    text = prompt_text(example)
    return text_hash(text), text_hash(" ".join(_LETTERS.findall(text.casefold())))
