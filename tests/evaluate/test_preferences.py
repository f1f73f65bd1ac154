"""Preferences in every context against plain forwards, context by context as the words define them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from inspo_hub.evaluate.alternatives import CONTEXTS, NOVEL, ContextRules, in_novel_contexts
from inspo_hub.evaluate.preference_result import PairScores, summarise
from inspo_hub.evaluate.preferences import (
    Measured,
    PreferenceMeasurement,
    measure_preferences,
    own_samples,
    score_pairs,
)
from inspo_hub.evaluate.result import BASE
from inspo_hub.evaluate.systems import System
from inspo_hub.models import load_model
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import SCORES
from tests.oracle import plain_logps

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SEPARATOR = (5, 6)
RULES = ContextRules(separator=SEPARATOR, max_length=60)


def make_pairs(end: int, count: int = 7) -> list[PreferencePair]:
    """Two pairs of one prompt, responses of many lengths, every token in the quickstart's vocabulary."""
    draw = np.random.default_rng(0)

    def ids(low: int, high: int) -> list[int]:
        return draw.integers(4, 60, size=draw.integers(low, high)).tolist()

    pairs = [PreferencePair(ids(2, 6), [*ids(1, 15), end], [*ids(1, 15), end], f"r/{i}") for i in range(count)]
    pairs[1] = replace(pairs[1], prompt=pairs[0].prompt)
    return pairs


@pytest.fixture(scope="module")
def pairs(tokenizer: PreTrainedTokenizerBase) -> list[PreferencePair]:
    assert isinstance(tokenizer.eos_token_id, int)
    return make_pairs(tokenizer.eos_token_id)


def logp(model: PreTrainedModel, context: Sequence[int], response: Sequence[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *response]])).logits[0, len(context) - 1 : -1].double()
    return float(logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum())


# --- alternatives


def test_every_kind_gives_what_its_name_says(pairs: list[PreferencePair]) -> None:
    own = [[9, 9, pair.chosen[-1]] for pair in pairs]
    responses = {tuple(side): tuple(pair.prompt) for pair in pairs for side in (pair.chosen, pair.rejected)}
    for kind in NOVEL:
        for pair, both in zip(pairs, in_novel_contexts(pairs, kind, RULES, own=own), strict=True):
            for placed, response, other in (
                (both.chosen, pair.chosen, pair.rejected),
                (both.rejected, pair.rejected, pair.chosen),
            ):
                assert placed.chosen == response
                room = RULES.max_length - len(pair.prompt) - len(SEPARATOR) - len(response)
                limit, given = placed.max_alternative_tokens, list(placed.rejected)
                assert limit is not None
                if kind == "empty":
                    assert limit == 0
                elif kind == "truncated":
                    assert (given, limit) == (other, min(room, math.ceil(len(other) / 2)))
                elif kind == "shuffled":
                    assert sorted(given) == sorted(other)
                    assert (given[-1], limit) == (other[-1], room)
                elif kind == "own":
                    assert given == own[0]
                else:
                    assert responses[tuple(given)] != tuple(pair.prompt)
            if kind in ("own", "other_prompt"):
                assert both.chosen.rejected == both.rejected.rejected


def test_alternatives_are_seeded_and_a_shuffle_shuffles(pairs: list[PreferencePair]) -> None:
    for kind in ("shuffled", "other_prompt"):
        first, again, other = (in_novel_contexts(pairs, kind, RULES, seed=seed) for seed in (0, 0, 1))  # type: ignore[arg-type]
        assert first == again != other
    long = [pair for pair in pairs if len(pair.rejected) > 6]
    shuffled = in_novel_contexts(long, "shuffled", RULES)
    assert all(both.chosen.rejected != pair.rejected for pair, both in zip(long, shuffled, strict=True))


def test_the_recipes_cap_holds_and_one_prompt_has_no_other(pairs: list[PreferencePair]) -> None:
    capped = in_novel_contexts(pairs, "shuffled", replace(RULES, max_alternative_tokens=3))
    assert {both.chosen.max_alternative_tokens for both in capped} == {3}
    short = in_novel_contexts(pairs, "shuffled", replace(RULES, max_length=4))
    assert {both.chosen.max_alternative_tokens for both in short} == {0}
    assert in_novel_contexts(pairs[:2], "other_prompt", RULES) == []


# --- scores


@pytest.mark.parametrize("layout", ["tree", "flat"])
@pytest.mark.parametrize("kind", NOVEL)
def test_scores_are_those_of_plain_forwards(
    base: PreTrainedModel, pairs: list[PreferencePair], kind: str, layout: str
) -> None:
    own = [[9, 8, 7, pair.chosen[-1]] for pair in pairs]
    both = in_novel_contexts(pairs, kind, RULES, own=own)  # type: ignore[arg-type]
    placed = [each.chosen for each in both] + [each.rejected for each in both]
    scores = ("chosen_given_rejected",)
    found = score_pairs(base, placed, scores, rules=RULES, layout=layout, tokens_per_microbatch=90)  # type: ignore[arg-type]
    expected = plain_logps(base, placed, scores, separator=SEPARATOR)  # type: ignore[arg-type]
    np.testing.assert_allclose(found[scores[0]], expected[scores[0]].detach().numpy(), atol=2e-4)  # type: ignore[index]
    again = score_pairs(base, pairs, SCORES, rules=RULES, layout=layout, tokens_per_microbatch=90)  # type: ignore[arg-type]
    for score, values in plain_logps(base, pairs, separator=SEPARATOR).items():
        np.testing.assert_allclose(again[score], values.detach().numpy(), atol=2e-4)


def test_own_samples_are_the_models_and_do_not_depend_on_the_others(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: list[PreferencePair]
) -> None:
    how = PreferenceMeasurement(tokenizer=tokenizer, max_new_tokens=6)
    samples = own_samples(base, pairs, how)
    assert samples[0] == samples[1]
    assert samples[2:] == own_samples(base, pairs[2:], how)
    assert all(sample[-1] == tokenizer.eos_token_id and len(sample) <= 7 for sample in samples)
    assert samples != own_samples(base, pairs, replace(how, seed=1))


@pytest.fixture(scope="module")
def moved(base: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory, quickstart: Path) -> Path:
    """The base with noise in its weights."""
    folder = tmp_path_factory.mktemp("moved")
    model = load_model(quickstart / "base")
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


def test_margins_are_against_the_base_in_the_same_context(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[PreferencePair],
    moved: Path,
    quickstart: Path,
) -> None:
    how = PreferenceMeasurement(tokenizer=tokenizer, novel=NOVEL, max_new_tokens=6, resamples=50)
    variants = {
        "first": Measured(system=System(model=moved), pairs=pairs, rules=RULES),
        "same": Measured(system=System(model=quickstart / "base"), pairs=pairs, rules=RULES, layout="flat"),
    }
    result = measure_preferences(System(model=quickstart / "base"), variants, how)
    policy = load_model(moved).eval()
    own = own_samples(policy, pairs, how)
    expected: dict[str, list[float]] = {context: [] for context in CONTEXTS}
    for index, pair in enumerate(pairs):
        contexts = {
            "plain": ([], []),
            "seen": ([*pair.rejected, *SEPARATOR], [*pair.chosen, *SEPARATOR]),
            "own": ([*own[index], *SEPARATOR],) * 2,
            "empty": (list(SEPARATOR),) * 2,
        }
        for kind in ("other_prompt", "truncated", "shuffled"):
            both = in_novel_contexts(pairs, kind, RULES)[index]  # type: ignore[arg-type]
            cut = []
            for side in (both.chosen, both.rejected):
                given, limit = list(side.rejected), side.max_alternative_tokens
                assert limit is not None
                kept = given if limit >= len(given) else [*given[: limit - 1], given[-1]]
                cut.append([*kept, *SEPARATOR])
            contexts[kind] = (cut[0], cut[1])
        for context, (for_chosen, for_rejected) in contexts.items():
            sides = [([*pair.prompt, *for_chosen], pair.chosen), ([*pair.prompt, *for_rejected], pair.rejected)]
            ratios = [logp(policy, *side) - logp(base, *side) for side in sides]
            expected[context].append(ratios[0] - ratios[1])
    for context, margins in expected.items():
        found = result.systems["first"][context]
        assert found.margin is not None
        assert found.accuracy is not None
        assert found.margin.value == pytest.approx(np.mean(margins), abs=1e-4)
        assert found.accuracy.value == pytest.approx(np.mean(np.array(margins) > 0))
        assert found.margin.clusters == len(pairs) - 1
        still = result.systems["same"][context].margin
        assert still is not None
        assert still.value == pytest.approx(0, abs=1e-4)
    gap = np.mean(expected["seen"]) - np.mean(expected["plain"])
    assert result.distillation_gaps["first"].value == pytest.approx(gap, abs=2e-4)
    assert result.systems[BASE]["plain"].margin is None
    assert {(each.first, each.context) for each in result.differences} == {("same", context) for context in CONTEXTS}
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["contexts"] == dict(CONTEXTS)


# --- estimates


def scores_of(margins: Sequence[float], lengths: Sequence[tuple[int, int]], prompts: Sequence[int]) -> PairScores:
    chosen = np.array([(margin - 10.0, -10.0) for margin in margins])
    flat = np.full_like(chosen, -10.0)
    return PairScores(
        row_ids=tuple(map(str, range(len(margins)))),
        prompts=tuple(prompts),
        lengths=np.array(lengths),
        logps={"plain": chosen, "seen": chosen},
        reference_logps={"plain": flat, "seen": flat},
    )


def test_accuracies_by_length_with_ties_and_clusters() -> None:
    lengths = [(9, 2), (9, 2), (2, 9), (2, 9), (5, 5)]
    one = scores_of([1.0, 2.0, -1.0, 0.0, 3.0], lengths, [0, 0, 1, 2, 3])
    base = scores_of([0.0] * 5, lengths, [0, 0, 1, 2, 3])
    other = scores_of([-1.0, -2.0, -1.0, 0.0, -3.0], lengths, [0, 0, 1, 2, 3])
    result = summarise({"one": one, "other": other, BASE: base}, resamples=200)
    plain = result.systems["one"]["plain"]
    assert plain.accuracy is not None
    assert plain.chosen_longer is not None
    assert plain.chosen_shorter is not None
    assert (plain.accuracy.value, plain.accuracy.clusters, plain.accuracy.rows) == (0.7, 4, 5)
    assert (plain.chosen_longer.value, plain.chosen_longer.rows, plain.chosen_longer.clusters) == (1.0, 2, 1)
    assert plain.chosen_shorter.value == 0.25
    means = [(-9 / 9, -10 / 2), (-8 / 9, -10 / 2), (-11 / 2, -10 / 9), (-10 / 2, -10 / 9), (-7 / 5, -10 / 5)]
    assert plain.accuracy_per_token.value == np.mean([chosen > rejected for chosen, rejected in means])
    assert (result.pairs, result.prompts, result.longer_chosen) == (5, 4, 0.5)
    # By hand: residuals of the four clusters are 0.6, -0.7, -0.2 and 0.3 about 0.7.
    error = math.sqrt(4 / 3 * (0.6**2 + 0.7**2 + 0.2**2 + 0.3**2)) / 5
    assert plain.accuracy.standard_error == pytest.approx(error)
    (difference, _) = result.differences
    assert (difference.first, difference.second, difference.accuracy.value) == ("other", "one", pytest.approx(-0.6))


def test_no_difference_is_said_where_the_interval_holds_it() -> None:
    lengths, prompts = [(3, 2)] * 40, list(range(40))
    signs = np.where(np.arange(40) % 2, 1.0, -1.0)
    mixed, opposite, right = (scores_of(margins.tolist(), lengths, prompts) for margins in (signs, -signs, abs(signs)))
    base = scores_of([0.0] * 40, lengths, prompts)
    result = summarise({"mixed": mixed, "opposite": opposite, "right": right, BASE: base})
    verdicts = {each.first: each.verdict for each in result.differences if each.context == "plain"}
    assert verdicts == {"opposite": "no difference", "right": "right is right more often"}


def test_variants_of_other_pairs_are_not_compared() -> None:
    one = scores_of([1.0, 2.0], [(3, 2)] * 2, [0, 1])
    moved = replace(one, row_ids=("x", "y"))
    assert summarise({"one": one, "moved": moved, BASE: one}).differences == ()
