"""A policy's judged answers to a round's prompts; what is answered and asked is kept, so that a cut round goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inspo_hub import hub
from inspo_hub.evaluate import Prompt, Sampling, System
from inspo_hub.evaluate.answering import Answering, SaidProgress, answer_all
from inspo_hub.evaluate.comparing import Answers, Judged, judge_answers
from inspo_hub.evaluate.generation import PromptEncoder
from inspo_hub.evaluate.judges import judge_of
from inspo_hub.evaluate.systems import Systems
from inspo_hub.iterating.pairing import Answer, Answered, Pairing, make_pairs
from inspo_hub.iterating.rounds import round_name
from inspo_hub.models import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspo_hub.evaluate import Generation
    from inspo_hub.iterating.rounds import Policy
    from inspo_hub.recipe import JudgeSection, Recipe

BATCH_SIZE = 64
"""Answers that are generated, and written down, together: what a cut loses at most."""


def judge_section(recipe: Recipe) -> JudgeSection:
    """Who judges the rounds of a recipe."""
    assert recipe.iterate is not None
    if recipe.iterate.judge is not None:
        return recipe.iterate.judge
    assert recipe.evaluate is not None, "the recipe was checked to name a judge"
    return recipe.evaluate.judge


def judge_path(judge: JudgeSection) -> Path | None:
    """Where the judge's model is; None for judges that are none of this machine."""
    local = judge.model or judge.reward_model
    return None if local is None else hub.fetch(hub.resolve("model", local.id, local.revision))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How one round's policy answers, and who judges it."""

    recipe: Recipe
    """One variant, pinned."""
    policy: Policy
    number: int

    def pairing(self, prompts: Sequence[Prompt], kept: Path) -> tuple[Pairing, dict[str, Any]]:
        """(The pairs of all prompts, how they were made); what is in the folder `kept` is not asked for again."""
        answering = Answering(
            systems=Systems(),
            encoder=self._encoder(),
            prompts=prompts,
            sampling=self.sampling,
            batch_size=BATCH_SIZE,
            progress=SaidProgress(),
            kept=kept,
        )
        name, system = round_name(self.number), self.system()
        generations = answer_all(answering, None, {name: system})[name].answers
        judged = self._judge(prompts, generations, kept)
        several = self.sampling.samples_per_prompt
        scores = scores_of(judged, several)
        answered = []
        for row, prompt in enumerate(prompts):
            shown = prompt.messages if answering.encoder.chat else prompt.text
            some = zip(generations[row * several : (row + 1) * several], scores[:, row], strict=True)
            answers = [
                Answer(text=each.text, finished=each.finished, score=None if np.isnan(score) else float(score))
                for each, score in some
            ]
            answered.append(Answered(prompt=shown, answers=answers))
        how = {"policy": answering.identity(system), "judge": judged.name, "seed": self.sampling.seed}
        return make_pairs(answered), how

    @property
    def sampling(self) -> Sampling:
        section = self.recipe.iterate
        assert section is not None
        return Sampling(
            max_new_tokens=section.max_new_tokens,
            temperature=section.temperature,
            top_p=section.top_p,
            samples_per_prompt=section.samples_per_prompt,
            # Random numbers of its own for every round, and none that the evaluation uses.
            seed=self.recipe.seed + 1_000_003 * self.number,
        )

    def system(self) -> System:
        """The policy's files on this machine."""
        code, adapter = self.recipe.model.trust_remote_code, None
        model = hub.fetch(hub.resolve("model", self.policy.model, self.policy.revision), code=code)
        if self.policy.adapter is not None:
            adapter = hub.fetch(hub.resolve("model", self.policy.adapter, self.policy.adapter_revision))
        quantized = self.recipe.adapter is not None and self.recipe.adapter.quantize is not None
        return System(model=model, adapter=adapter, quantized=quantized)

    def _encoder(self) -> PromptEncoder:
        """Prompts -> token ids, by the tokenizer that the round trains with."""
        model, data = self.recipe.model, self.recipe.data
        name = model.tokenizer or self.policy.model
        # A trained folder holds the tokenizer that it was trained with, and has no revisions.
        own = model.tokenizer is None and self.policy.revision is None
        pin = hub.resolve("model", name, None if own else model.tokenizer_revision or self.policy.revision)
        tokenizer = load_tokenizer(
            hub.fetch(pin, "tokenizer", code=model.trust_remote_code),
            chat_template=Path(model.chat_template) if model.chat_template else None,
            trust_remote_code=model.trust_remote_code,
        )
        has_template = bool(getattr(tokenizer, "chat_template", None))
        chat = data.text_format == "chat" or (data.text_format == "auto" and has_template)
        return PromptEncoder(tokenizer, chat, data.chat_template_kwargs)

    def _judge(self, prompts: Sequence[Prompt], generations: Sequence[Generation], kept: Path) -> Judged:
        """Sample i of every prompt as a system of its own, so that judges of pairs see every two of a prompt's."""
        section, several = judge_section(self.recipe), self.sampling.samples_per_prompt
        names = [str(sample) for sample in range(several)]
        answers = Answers(
            prompts=prompts,
            texts={name: [each.text for each in generations[int(name) :: several]] for name in names},
            tokens={},
            opponents=names[:1],
        )
        judge = judge_of(section, folder=Path(), kept=kept, model_path=judge_path(section))
        seed = self.sampling.seed
        return judge_answers(judge, answers, order=section.order, max_failed=section.max_failed, seed=seed)


def scores_of(judged: Judged, several: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Score of every answer, `(samples, prompts)`: the judge's own, or the mean preference for it over the prompt's
    other answers by a judge of pairs; not a number where no verdict on it came."""
    if judged.scores is not None:
        return np.array([judged.scores[str(sample)] for sample in range(several)], dtype=np.float64)
    assert judged.preferences is not None, "a judge scores or compares"
    prompts = len(next(iter(judged.preferences.values())).preferences)
    sums, counts = np.zeros((several, prompts)), np.zeros((several, prompts))
    for (first, second), verdicts in judged.preferences.items():
        known = np.isfinite(verdicts.preferences)
        preferred = np.where(known, verdicts.preferences, 0.0)
        for sample, values in ((int(first), preferred), (int(second), known - preferred)):
            sums[sample] += values
            counts[sample] += known
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
