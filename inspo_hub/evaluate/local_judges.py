"""Judges that are models on this machine: a causal model read by the probabilities of its labels, and a reward model.

Neither generates. The causal model is asked what a judge behind an address is asked, through its own chat template, and
the probabilities of `A` and `B` as its next token are the verdict. A reward model scores one answer on its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from inspo_hub.errors import JudgeError, ResolutionError
from inspo_hub.evaluate.generation import PromptEncoder
from inspo_hub.evaluate.likelihood import logits_between
from inspo_hub.evaluate.prompts import Prompt
from inspo_hub.evaluate.verdicts import Ask, Verdict, too_many_failures
from inspo_hub.evaluate.wording import LABELS, LEAST_MASS, Template, neutralised
from inspo_hub.models import compute_dtype, disable_dropout, load_model, load_tokenizer
from inspo_hub.pairs.formats import RowProblem
from inspo_hub.pairs.template import encode, render, special_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def device_or_default(device: torch.device | str | None) -> torch.device:
    """The device given, else a GPU where there is one."""
    return torch.device(device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu"))


class CausalJudge:
    """A pairwise judge: P(A) / (P(A) + P(B)) as the next token after the question."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        *,
        name: str,
        least_mass: float = LEAST_MASS,
        tokens_per_batch: int = 16384,
    ) -> None:
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.shown_name, self.least_mass, self.tokens_per_batch = name, least_mass, tokens_per_batch
        self.label_ids = [_spellings(tokenizer, label) for label in LABELS]
        self._control = sorted(special_texts(tokenizer))
        self._encoder = PromptEncoder(tokenizer, chat=bool(getattr(tokenizer, "chat_template", None)))

    @classmethod
    def load(
        cls, path: Path, template: Template, *, name: str, device: torch.device | str | None = None
    ) -> CausalJudge:
        """The model in a folder."""
        where = device_or_default(device)
        model: Any = load_model(path, dtype=compute_dtype("auto", where))
        return cls(model.to(where).eval(), load_tokenizer(path), template, name=name)

    @property
    def facts(self) -> dict[str, Any]:
        return {"model": self.shown_name, "template_sha256": self.template.sha256, "verdict": "label probabilities"}

    def compare(self, asks: Sequence[Ask], *, may_fail: int) -> list[Verdict]:
        """One verdict per ask; a question that is longer than the model's positions is a failure."""
        rows = [self._encode(ask) for ask in asks]
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        verdicts = [Verdict(preference=None, failure=f"the question has {len(row)} tokens") for row in rows]
        fitting = [index for index in range(len(rows)) if len(rows[index]) <= limit]
        for batch in batches_by_length([len(rows[index]) for index in fitting], self.tokens_per_batch):
            chosen = [fitting[place] for place in batch]
            for index, verdict in zip(chosen, self._judge([rows[index] for index in chosen]), strict=True):
                verdicts[index] = verdict
        failed = [verdict.failure for verdict in verdicts if verdict.preference is None]
        if len(failed) > 2 * may_fail + 1:
            raise too_many_failures(self.shown_name, len(failed), len(asks), failed[0])
        return verdicts

    def _encode(self, ask: Ask) -> list[int]:
        text = self.template.fill(ask.prompt, ask.first, ask.second, self._control)
        if not self._encoder.chat:
            text += "\n\nThe better answer is answer"
        return self._encoder([Prompt(({"role": "user", "content": text},), "judge")])[0]

    @torch.no_grad()
    def _judge(self, rows: Sequence[Sequence[int]]) -> list[Verdict]:
        """Padding on the right, where causal attention does not see it; rows of one batch end near one another."""
        width, shortest = max(map(len, rows)), min(map(len, rows))
        ids = torch.tensor([[*row, *([0] * (width - len(row)))] for row in rows], device=self.model.device)
        kept = logits_between(self.model, ids, shortest - 1, width)
        last = torch.tensor([len(row) - shortest for row in rows], device=kept.device)
        logits: Float[Tensor, "rows vocab"] = kept[torch.arange(len(rows), device=kept.device), last]
        probabilities = torch.softmax(logits.float(), dim=-1)
        mass = torch.stack([probabilities[:, spellings].sum(dim=1) for spellings in self.label_ids]).cpu().numpy()
        return [self._verdict(float(first), float(second)) for first, second in mass.T]

    def _verdict(self, first: float, second: float) -> Verdict:
        if not first + second >= self.least_mass:
            return Verdict(preference=None, failure=f"A and B have {first + second:.1%} of the probability")
        return Verdict(preference=first / (first + second), weighted=True)


def _spellings(tokenizer: PreTrainedTokenizerBase, label: str) -> list[int]:
    """The single tokens that say a label: bare, and after a space."""
    found = set()
    for text in (label, f" {label}"):
        ids = encode(tokenizer, [text])[0]
        if len(ids) == 1:
            found.add(ids[0])
    if not found:
        raise JudgeError(
            f"the judge's tokenizer has no token for {label!r}",
            where="evaluate.judge.model",
            expected="a causal model whose tokenizer knows single letters",
            fix="choose another judge",
        )
    return sorted(found)


class RewardJudge:
    """A scoring judge: the reward model's number for prompt and answer. Its preference is σ of a difference."""

    well_formed = None

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        tokens_per_batch: int = 16384,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.shown_name, self.tokens_per_batch = name, tokens_per_batch
        self._control = sorted(special_texts(tokenizer))
        # The head reads the last token that is no padding, which only a padding token tells it.
        self._pad = model.config.pad_token_id if model.config.pad_token_id is not None else tokenizer.pad_token_id
        if self._pad is not None:
            model.config.pad_token_id = self._pad

    @classmethod
    def load(cls, path: Path, *, name: str, device: torch.device | str | None = None) -> RewardJudge:
        """The model in a folder: one number per sequence, from safetensors only."""
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification

        where, key = device_or_default(device), f"evaluate.judge.reward_model: {name}"
        try:
            model: Any
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=compute_dtype("auto", where), use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ResolutionError(
                f"no reward model could be loaded: {str(error).splitlines()[0]}",
                where=key,
                expected="config.json and *.safetensors of a sequence classifier",
            ) from error
        # Of a model without the head, transformers would make one up at random.
        if model.config.num_labels != 1 or loaded["missing_keys"]:
            lacks = ", ".join(sorted(loaded["missing_keys"])[:3])
            raise JudgeError(
                f"the weights lack {lacks}" if lacks else f"the model gives {model.config.num_labels} numbers",
                where=key,
                expected="a reward model: one number (num_labels: 1), higher for better answers",
                fix="choose another model",
            )
        disable_dropout(model)
        return cls(model.to(where).eval(), load_tokenizer(path), name=name)

    @property
    def facts(self) -> dict[str, Any]:
        return {"model": self.shown_name, "verdict": "σ of a difference of rewards"}

    def score_all(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """The reward of each answer in its conversation."""
        rows = [self._encode(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        limit = getattr(self.model.config, "max_position_embeddings", None) or math.inf
        longest = max(range(len(rows)), key=lambda index: len(rows[index]))
        if len(rows[longest]) > limit:
            raise JudgeError(
                f"prompt and answer have {len(rows[longest])} tokens",
                where=f"{self.shown_name}, {prompts[longest].row_id}",
                expected=f"at most the {limit} positions of the reward model",
                fix="lower evaluate.max_new_tokens, or choose another judge",
            )
        scores = np.empty(len(rows))
        for batch in batches_by_length(
            [len(row) for row in rows], self.tokens_per_batch if self._pad is not None else 1
        ):
            scores[batch] = self._score([rows[index] for index in batch])
        if not np.isfinite(scores).all():
            raise JudgeError("the reward model gave what is no number", where=self.shown_name)
        return [float(score) for score in scores]

    def _encode(self, prompt: Prompt, response: str) -> list[int]:
        turns = [*(dict(turn) for turn in prompt.messages), {"role": "assistant", "content": response}]
        for turn in turns:
            turn["content"] = neutralised(turn["content"], self._control)
        if getattr(self.tokenizer, "chat_template", None):
            text = self._render(turns, prompt.row_id)
        else:
            text = "\n\n".join(turn["content"] for turn in turns)
        return encode(self.tokenizer, [text])[0]

    def _render(self, turns: Sequence[dict[str, str]], row_id: str) -> str:
        try:
            return render(self.tokenizer, turns, generation_prompt=False)
        except RowProblem as problem:
            raise JudgeError(
                f"the reward model's chat template refuses the conversation: {problem.detail}",
                where=f"{self.shown_name}, {row_id}",
            ) from problem

    @torch.no_grad()
    def _score(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        width = max(map(len, rows))
        pad = 0 if self._pad is None else self._pad
        ids = torch.tensor([[*row, *([pad] * (width - len(row)))] for row in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.model.device)
        scores: np.ndarray = self.model(input_ids=ids, attention_mask=mask).logits[:, 0].double().cpu().numpy()
        return scores


def batches_by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Rows in batches of like length that have at most `tokens` with their padding, or one row."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
