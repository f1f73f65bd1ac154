"""Answers of a model to prompts, batched and seeded so that an answer does not depend on which rows share its batch.

Sampling is the inverse of the cumulative distribution at uniform numbers that belong to the row: they come from a
counter-based generator keyed by (seed, prompt, sample). Two systems given the same seed use the same numbers for the
same prompt. Batches change logits in the last bits, so equality across batch sizes holds up to floating-point ties.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from inspo_hub.errors import DataError
from inspo_hub.evaluate.prompts import Prompt
from inspo_hub.pairs.formats import RowProblem
from inspo_hub.pairs.template import encode, probe_chat, render
from inspo_hub.pairs.tokenise import PairTokeniser

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from inspo_hub.evaluate.kept import KeptAnswers

log = logging.getLogger(__name__)

Row = tuple[Prompt, int, list[int]]
"""A prompt, the number of its sample, and the prompt's token ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How answers are drawn. Temperature 0 takes the most probable token."""

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    samples_per_prompt: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether answers come from the model's own distribution, as an estimate of KL needs them."""
        return self.temperature == 1.0 and self.top_p == 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One answer: the row it belongs to, its text, and the token ids that made it, the end token included."""

    row_id: str
    sample: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    text: str
    finished: bool
    """False where max_new_tokens cut the answer off."""


class InverseCdfSampler(LogitsProcessor):
    """Leaves each row the one token whose share of the cumulative distribution holds the row's uniform number.

    Equivalent to `torch.multinomial(softmax(scores / temperature), 1)` with the randomness given from outside.
    """

    def __init__(
        self, uniforms: Float[Tensor, "rows steps"], *, prompt_width: int, temperature: float, top_p: float
    ) -> None:
        self.uniforms, self.prompt_width = uniforms, prompt_width
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: Int[Tensor, "rows width"], scores: Float[Tensor, "rows vocab"]) -> Tensor:
        # float64: a float32 running sum over 150k tokens is off by more than the rarest of them. MPS has none.
        wide = torch.float32 if scores.device.type == "mps" else torch.float64
        uniform = self.uniforms[:, input_ids.shape[1] - self.prompt_width].to(scores.device, wide)
        probabilities = torch.softmax(scores.to(wide) / self.temperature, dim=-1)
        if self.top_p < 1.0:
            probabilities = _nucleus(probabilities, self.top_p)
        running = probabilities.cumsum(dim=-1)
        total = running[:, -1:]
        # Below the total even where the product rounds up to it: the token found has probability then.
        target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        token = torch.searchsorted(running, target, right=True)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def _nucleus(probabilities: Float[Tensor, "rows vocab"], top_p: float) -> Float[Tensor, "rows vocab"]:
    """Zeroes what lies outside the smallest set of tokens that holds `top_p` of the mass."""
    ordered, order = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    return probabilities.scatter(1, order, torch.where(before < top_p, ordered, 0.0))


@dataclass(frozen=True, eq=False)
class PromptEncoder:
    """Prompts -> token ids, as training makes them: through the chat template, or as the raw text after its BOS."""

    tokenizer: PreTrainedTokenizerBase
    chat: bool = True
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        if self.chat and not getattr(self.tokenizer, "chat_template", None):
            raise DataError(
                "the tokenizer has no chat template, and the prompts are conversations",
                where=prompts[0].row_id,
                expected="a tokenizer with a chat template",
                fix="set model.chat_template to a template file, or data.text_format: raw",
            )
        encoded = encode(self.tokenizer, [self._text(prompt) for prompt in prompts])
        prefix = [] if self.chat else PairTokeniser(self.tokenizer, chat=False).added_prefix
        return [ids if ids[: len(prefix)] == prefix else [*prefix, *ids] for ids in encoded]

    def _text(self, prompt: Prompt) -> str:
        if not self.chat:
            return prompt.text
        try:
            return render(
                self.tokenizer,
                [dict(turn) for turn in prompt.messages],
                generation_prompt=True,
                template_kwargs=self.template_kwargs,
            )
        except RowProblem as problem:
            raise DataError(
                f"the chat template refuses the prompt: {problem.detail}",
                where=prompt.row_id,
                fix="leave the row out, or bring its messages into an order that the template takes",
            ) from problem

    def end_ids(self) -> list[int]:
        """The tokens that end an answer by the tokenizer: its end of sequence and the template's end of turn."""
        ends = [self.tokenizer.eos_token_id]
        if self.chat:
            ends.append(probe_chat(self.tokenizer, self.template_kwargs).end_id)
        return sorted({int(end) for end in ends if end is not None})


def stop_token_ids(model: PreTrainedModel, encoder: PromptEncoder) -> list[int]:
    """Every token that ends an answer: the model's own end tokens and the encoder's."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    own = configured if isinstance(configured, list | tuple) else [configured]
    found = sorted({*encoder.end_ids(), *(int(end) for end in own if end is not None)})
    if not found:
        log.warning("neither model nor tokenizer names an end token: every answer runs to max_new_tokens")
    return found


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    batch_size: int = 64,
    encoder: PromptEncoder | None = None,
    progress: Callable[[int, int], None] | None = None,
    kept: KeptAnswers | None = None,
) -> list[Generation]:
    """Answers in the order of the prompts; `progress(done, total)` after each batch. Default encoder: chat template.

    With `kept`, rows that were answered before are taken from there, and every batch is on the disk when it is done.
    """
    encoder = encoder or PromptEncoder(tokenizer)
    rows = [
        (prompt, sample, prompt_ids)
        for prompt, prompt_ids in zip(prompts, encoder(prompts), strict=True)
        for sample in range(sampling.samples_per_prompt)
    ]
    _check_room(model, rows, sampling.max_new_tokens)
    stops = stop_token_ids(model, encoder)
    responses = {} if kept is None else kept.known(rows, sampling, stops)
    # Prompts of like length share a batch: little padding, and the order does not depend on the batch size.
    order = sorted(set(range(len(rows))) - responses.keys(), key=lambda index: (len(rows[index][2]), index))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        made = _generate_batch(model, tokenizer, [rows[index] for index in batch], sampling, stops)
        responses.update(zip(batch, made, strict=True))
        if kept is not None:
            kept.keep({index: responses[index] for index in batch}, rows, sampling, stops)
        if progress is not None:
            progress(len(responses), len(rows))
    return [_generation(tokenizer, row, responses[index], stops) for index, row in enumerate(rows)]


def _generation(
    tokenizer: PreTrainedTokenizerBase, row: Row, response: Sequence[int], stops: Sequence[int]
) -> Generation:
    prompt, sample, prompt_ids = row
    return Generation(
        row_id=prompt.row_id,
        sample=sample,
        prompt_ids=tuple(prompt_ids),
        response_ids=tuple(response),
        text=str(tokenizer.decode(list(response), skip_special_tokens=True)),
        finished=bool(response) and response[-1] in stops,
    )


def row_uniforms(sampling: Sampling, prompt: Prompt, sample: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The row's own uniform numbers in [0, 1), one for each token it may make."""
    key = f"{sampling.seed}\x1f{sample}\x1f{prompt.text}".encode()
    number = int.from_bytes(hashlib.sha256(key).digest()[:16], "big")
    return np.random.Generator(np.random.Philox(key=number)).random(sampling.max_new_tokens)


@torch.no_grad()
def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    sampling: Sampling,
    stops: Sequence[int],
) -> list[list[int]]:
    """Response ids of one batch, cut after their first end token; left padding starts all answers in one column."""
    width = max(len(ids) for _, _, ids in rows)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (stops[0] if stops else 0)
    ids = torch.tensor([[pad] * (width - len(row)) + row for _, _, row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for _, _, row in rows], device=model.device)
    processors = LogitsProcessorList()
    if sampling.temperature > 0:
        uniforms = np.stack([row_uniforms(sampling, prompt, sample) for prompt, sample, _ in rows])
        processors.append(
            InverseCdfSampler(
                torch.from_numpy(uniforms),
                prompt_width=width,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
            )
        )
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,  # the sampler above leaves one token, so the most probable one is the sample
        eos_token_id=list(stops) or None,
        pad_token_id=pad,
    )
    with only_these_settings(model, config):
        output = cast("Any", model).generate(input_ids=ids, attention_mask=mask, logits_processor=processors)
    return [_until_end(row, stops) for row in output[:, width:].tolist()]


@contextmanager
def only_these_settings(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """The model's own generation defaults (penalties, top_k, …) put aside: a report says how its answers were drawn."""
    own, was_training = model.generation_config, model.training
    model.generation_config = config
    model.eval()
    try:
        yield
    finally:
        model.generation_config = own
        model.train(was_training)


def _until_end(ids: Sequence[int], stops: Sequence[int]) -> list[int]:
    end = next((index for index, token in enumerate(ids) if token in stops), len(ids) - 1)
    return list(ids[: end + 1])


def _check_room(model: PreTrainedModel, rows: Sequence[Row], new_tokens: int) -> None:
    """Refuses a prompt whose longest answer would leave the positions that the model was built for."""
    limit = getattr(model.config, "max_position_embeddings", None)
    longest = max(rows, key=lambda row: len(row[2]))
    if limit is not None and len(longest[2]) + new_tokens > limit:
        raise DataError(
            f"a prompt of {len(longest[2])} tokens and {new_tokens} new ones pass the model's {limit} positions",
            where=longest[0].row_id,
            expected=f"at most {limit} tokens together",
            fix="lower evaluate.max_new_tokens or leave the prompt out",
        )
