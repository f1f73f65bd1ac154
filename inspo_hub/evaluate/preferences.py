"""Held-out preferences of trained variants and their base: plain, given the alternative of training, and novel ones.

The margin of a pair is log π(y_w|c_w)/π_base(y_w|c_w) - log π(y_l|c_l)/π_base(y_l|c_l), in nats, with the base in the
same contexts c as the model: what a context adds to a response's probability before any training cancels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inspo_hub.dealing import pack_micro_batches
from inspo_hub.evaluate.alternatives import BothInContext, ContextRules, NovelKind, in_novel_contexts
from inspo_hub.evaluate.generation import PromptEncoder, Sampling, generate
from inspo_hub.evaluate.preference_result import PairScores, PreferenceResult, summarise
from inspo_hub.evaluate.prompts import Prompt
from inspo_hub.evaluate.result import BASE
from inspo_hub.evaluate.systems import System, Systems
from inspo_hub.logprobs import prepare_model, restore_model, tree_logps
from inspo_hub.packing import Layout, pack_pairs, packed_tokens
from inspo_hub.views import SCORES, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from inspo_hub.pairs import PreferencePair

log = logging.getLogger(__name__)

_GIVEN: tuple[Score, ...] = ("chosen_given_rejected",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A trained variant and the held-out pairs that it is measured on."""

    system: System
    pairs: Sequence[PreferencePair]
    rules: ContextRules
    layout: Layout = "tree"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceMeasurement:
    """How preferences are measured."""

    tokenizer: PreTrainedTokenizerBase
    novel: Sequence[NovelKind] = ()
    max_new_tokens: int = 256
    """Of the model's own samples."""
    tokens_per_microbatch: int = 8192
    resamples: int = 1000
    seed: int = 0


def measure_preferences(
    base: System,
    variants: Mapping[str, Measured],
    how: PreferenceMeasurement,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> PreferenceResult:
    """Scores every variant and the base, one model in memory at a time; the base comes last and scores all contexts."""
    assert variants, "at least one variant is measured"
    systems = Systems(dtype=dtype, device=device)
    laid_out: dict[str, _LaidOut] = {}
    scored: dict[str, _Scores] = {}
    first = next(iter(variants.values()))
    base_as = Measured(system=base, pairs=first.pairs, rules=first.rules, layout=first.layout)
    for name, measured in [*variants.items(), (BASE, base_as)]:
        with systems.open(measured.system) as model:
            laid_out[name] = _lay_out(model, measured, how)
            if name == BASE:
                reference = _score(model, laid_out.values(), how)
            else:
                scored[name] = _score(model, [laid_out[name]], how)
                log.info("preferences of %s: %d pairs scored", name, len(measured.pairs))
        del model  # before the next one is loaded
    found = {name: laid_out[name].values(scored.get(name, reference), reference) for name in [BASE, *variants]}
    settings = {"novel": list(how.novel), "max_new_tokens": how.max_new_tokens, "seed": how.seed}
    return summarise(found, resamples=how.resamples, seed=how.seed, settings=settings)


@dataclass(frozen=True)
class _Item:
    """Something to score: a pair, and under which rules; equal items are scored once."""

    pair: PreferencePair
    scores: tuple[Score, ...]
    rules: ContextRules
    layout: Layout
    key: tuple[object, ...] = field(compare=False)

    @classmethod
    def of(cls, pair: PreferencePair, scores: tuple[Score, ...], measured: Measured) -> _Item:
        ids = (tuple(pair.prompt), tuple(pair.chosen), tuple(pair.rejected), pair.max_alternative_tokens)
        return cls(pair, scores, measured.rules, measured.layout, (ids, scores, measured.rules, measured.layout))


_Scores = Mapping[tuple[object, ...], Mapping[Score, float]]


@dataclass(frozen=True)
class _LaidOut:
    """A system's pairs as items: as in training, and in each novel context."""

    pairs: Sequence[PreferencePair]
    seen: list[_Item]
    novel: dict[NovelKind, list[tuple[_Item, _Item]]]

    def items(self) -> Iterable[_Item]:
        yield from self.seen
        for both in self.novel.values():
            for chosen, rejected in both:
                yield from (chosen, rejected)

    def values(self, policy: _Scores, reference: _Scores) -> PairScores:
        """The log-probabilities as arrays by context."""

        def look(scores: _Scores) -> dict[str, np.ndarray]:
            rows = [scores[item.key] for item in self.seen]
            found = {
                "plain": np.array([(row["chosen"], row["rejected"]) for row in rows]),
                "seen": np.array([(row["chosen_given_rejected"], row["rejected_given_chosen"]) for row in rows]),
            }
            for kind, both in self.novel.items():
                found[kind] = np.array([[scores[item.key][_GIVEN[0]] for item in sides] for sides in both])
            return found

        return PairScores(
            row_ids=tuple(pair.row_id for pair in self.pairs),
            prompts=tuple(hash(tuple(pair.prompt)) for pair in self.pairs),
            lengths=np.array([(len(pair.chosen), len(pair.rejected)) for pair in self.pairs]),
            logps=look(policy),
            reference_logps=look(reference),
        )


def _lay_out(model: PreTrainedModel, measured: Measured, how: PreferenceMeasurement) -> _LaidOut:
    own = own_samples(model, measured.pairs, how) if "own" in how.novel else None
    novel: dict[NovelKind, list[tuple[_Item, _Item]]] = {}
    for kind in how.novel:
        both = in_novel_contexts(measured.pairs, kind, measured.rules, own=own, seed=how.seed)
        if both:
            novel[kind] = [_items(pair, measured) for pair in both]
    return _LaidOut(measured.pairs, [_Item.of(pair, SCORES, measured) for pair in measured.pairs], novel)


def _items(both: BothInContext, measured: Measured) -> tuple[_Item, _Item]:
    return _Item.of(both.chosen, _GIVEN, measured), _Item.of(both.rejected, _GIVEN, measured)


def _score(model: PreTrainedModel, laid_out: Iterable[_LaidOut], how: PreferenceMeasurement) -> _Scores:
    """Every item once, packed with others of its kind under the token budget."""
    items = {item.key: item for system in laid_out for item in system.items()}
    groups: dict[tuple[tuple[Score, ...], ContextRules, Layout], list[_Item]] = {}
    for item in items.values():
        groups.setdefault((item.scores, item.rules, item.layout), []).append(item)
    found: dict[tuple[object, ...], Mapping[Score, float]] = {}
    for (scores, rules, layout), members in groups.items():
        values = score_pairs(
            model,
            [item.pair for item in members],
            scores,
            rules=rules,
            layout=layout,
            tokens_per_microbatch=how.tokens_per_microbatch,
        )
        for index, item in enumerate(members):
            found[item.key] = {score: float(values[score][index]) for score in scores}
    return found


@torch.no_grad()
def score_pairs(
    model: PreTrainedModel,
    pairs: Sequence[PreferencePair],
    scores: tuple[Score, ...],
    *,
    rules: ContextRules,
    layout: Layout = "tree",
    tokens_per_microbatch: int = 8192,
) -> dict[Score, np.ndarray]:
    """Log-probabilities of the pairs' responses in nats, float64 `(pairs,)` for each score.

    Equivalent to a plain forward over each score's context and response, one at a time.
    """
    options: dict[str, Any] = {
        "separator": rules.separator,
        "max_alternative_tokens": rules.max_alternative_tokens,
        "layout": layout,
    }
    tokens = [packed_tokens(pair, scores, **options) for pair in pairs]
    values = {score: np.empty(len(pairs)) for score in scores}
    prepare_model(model, layout=layout)
    try:
        for rows in pack_micro_batches(tokens, tokens_per_microbatch):
            batch = pack_pairs([pairs[row] for row in rows], scores, **options).to(model.device)
            logps = tree_logps(model, batch, scores=scores)
            for score in scores:
                values[score][rows] = logps.get(score).double().cpu().numpy()
    finally:
        restore_model(model)
    return values


@dataclass(frozen=True, eq=False)
class _AsTokenised(PromptEncoder):
    """Prompts that are token ids already, by the name of their row."""

    ids: Mapping[str, list[int]] = field(default_factory=dict)

    def __call__(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        return [self.ids[prompt.row_id] for prompt in prompts]


def own_samples(model: PreTrainedModel, pairs: Sequence[PreferencePair], how: PreferenceMeasurement) -> list[list[int]]:
    """One answer of the model to each pair's prompt, sampled at temperature 1, with an end token also where it was cut.

    Pairs of one prompt share the answer; an answer depends on prompt and seed, not on which pairs are measured.
    """
    ids = {str(list(map(int, pair.prompt))): [int(token) for token in pair.prompt] for pair in pairs}
    prompts = [Prompt(({"role": "user", "content": name},), name) for name in ids]
    template = bool(getattr(how.tokenizer, "chat_template", None))
    answers = generate(
        model,
        how.tokenizer,
        prompts,
        Sampling(max_new_tokens=how.max_new_tokens, seed=how.seed),
        encoder=_AsTokenised(how.tokenizer, chat=template, ids=ids),
    )
    end = {pair.chosen[-1] for pair in pairs}
    by_prompt = {}
    for name, answer in zip(ids, answers, strict=True):
        cut = [] if answer.finished or len(end) != 1 else [int(next(iter(end)))]
        by_prompt[name] = [*answer.response_ids, *cut]
    return [by_prompt[str(list(map(int, pair.prompt)))] for pair in pairs]
