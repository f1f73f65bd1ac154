"""Conditionings: which scores meet which references, with which weights, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from inspo_hub.conditioning import CONDITIONINGS, PLAIN_SCORE, Conditioning, ReferenceContext
from inspo_hub.views import SCORES, Score, TreeLogps, View

CONTEXTS: tuple[ReferenceContext, ...] = get_args(ReferenceContext)
# Each tensor is told by its value: policy scores are 1 to 4, reference scores 10 to 40.
NUMBER: dict[Score, float] = {
    "chosen": 1.0,
    "rejected": 2.0,
    "chosen_given_rejected": 3.0,
    "rejected_given_chosen": 4.0,
}
CHOSEN_LENGTH, REJECTED_LENGTH = 5, 7


def logps(scores: tuple[Score, ...], scale: float = 1.0) -> TreeLogps:
    return TreeLogps(**{score: torch.tensor([scale * NUMBER[score]]) for score in scores})


def views_of(
    conditioning: Conditioning,
    *,
    context: ReferenceContext = "conditioned",
    progress: float = 0.0,
    with_plain_chosen: bool = False,
    reference: bool = True,
) -> list[tuple[float, View]]:
    """From no more scores than the conditioning says it needs."""
    return conditioning.views(
        logps(conditioning.needed_scores(with_plain_chosen=with_plain_chosen)),
        logps(conditioning.reference_scores(context), 10.0) if reference else None,
        chosen_lengths=torch.tensor([CHOSEN_LENGTH]),
        rejected_lengths=torch.tensor([REJECTED_LENGTH]),
        reference_context=context,
        progress=progress,
        with_plain_chosen=with_plain_chosen,
    )


def seen(view: View) -> tuple[float, float, float, float]:
    """(chosen, its reference, rejected, its reference) as numbers."""

    def number(value: Tensor | None) -> float:
        assert value is not None
        return value.item()

    return (
        number(view.chosen.logps),
        number(view.chosen.reference_logps),
        number(view.rejected.logps),
        number(view.rejected.reference_logps),
    )


PLAIN = (1.0, 10.0, 2.0, 20.0)
SYMMETRIC = {"conditioned": (3.0, 30.0, 4.0, 40.0), "plain": (3.0, 10.0, 4.0, 20.0)}


@pytest.mark.parametrize("context", CONTEXTS)
def test_who_meets_whom(context: ReferenceContext) -> None:
    conditioned = context == "conditioned"
    expected: dict[str, tuple[dict[str, Any], list[tuple[float, tuple[float, ...]]]]] = {
        "none": ({}, [(1.0, PLAIN)]),
        "symmetric": ({}, [(1.0, SYMMETRIC[context])]),
        "averaged": ({}, [(0.5, SYMMETRIC[context]), (0.5, PLAIN)]),
        "one_sided": ({}, [(1.0, (3.0, 30.0 if conditioned else 10.0, 2.0, 20.0))]),
        "rejected_only": ({}, [(1.0, (0.0, 0.0, 4.0, 40.0 if conditioned else 20.0))]),
        "annealed": ({"start": 0.25, "end": 0.75}, [(0.75, SYMMETRIC[context]), (0.25, PLAIN)]),
    }
    assert set(expected) == set(CONDITIONINGS)
    for name, (parameters, weighted) in expected.items():
        views = views_of(CONDITIONINGS[name](**parameters), context=context)
        assert [(weight, seen(view)) for weight, view in views] == weighted, name


def test_one_sided_may_condition_the_rejected_response() -> None:
    conditioning = CONDITIONINGS["one_sided"](conditioned="rejected")  # type: ignore[call-arg]
    ((weight, view),) = views_of(conditioning)
    assert (weight, seen(view)) == (1.0, (1.0, 10.0, 4.0, 40.0))
    assert conditioning.scores == ("chosen", "rejected_given_chosen")


@pytest.mark.parametrize("name", CONDITIONINGS)
def test_lengths_follow_their_response(name: str) -> None:
    for _, view in views_of(CONDITIONINGS[name]()):  # type: ignore[call-arg]
        assert (view.chosen.lengths.item(), view.rejected.lengths.item()) == (CHOSEN_LENGTH, REJECTED_LENGTH)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", CONDITIONINGS)
def test_scores_are_exactly_what_the_views_use(name: str, context: ReferenceContext) -> None:
    conditioning = CONDITIONINGS[name]()  # type: ignore[call-arg]
    used, known = set(), set()
    for _, view in views_of(conditioning, context=context, progress=0.5):
        numbers = seen(view)
        used |= {numbers[0], numbers[2]} - {0.0}
        known |= {numbers[1] / 10, numbers[3] / 10} - {0.0}
    assert {NUMBER[score] for score in conditioning.scores} == used
    assert {NUMBER[score] for score in conditioning.reference_scores(context)} == known
    assert list(conditioning.scores) == [score for score in SCORES if score in conditioning.scores]


def test_a_plain_reference_needs_plain_scores_only() -> None:
    for row in CONDITIONINGS.values():
        assert set(row().reference_scores("plain")) <= {"chosen", "rejected"}  # type: ignore[call-arg]


@pytest.mark.parametrize("name", CONDITIONINGS)
def test_the_plain_chosen_score_is_handed_over_where_it_is_asked_for(name: str) -> None:
    conditioning = CONDITIONINGS[name]()  # type: ignore[call-arg]
    for _, view in views_of(conditioning, with_plain_chosen=True):
        assert view.plain_chosen_logps is not None
        assert view.plain_chosen_logps.item() == NUMBER["chosen"], "the plain score, never the conditioned one"
    assert all(view.plain_chosen_logps is None for _, view in views_of(conditioning))
    needed = conditioning.needed_scores(with_plain_chosen=True)
    assert set(needed) == {*conditioning.scores, "chosen"}
    assert len(needed) == len(set(needed))


@pytest.mark.parametrize("name", ["none", "symmetric", "averaged", "annealed"])
def test_without_a_reference_there_is_none_in_the_views(name: str) -> None:
    for _, view in views_of(CONDITIONINGS[name](), reference=False):  # type: ignore[call-arg]
        assert view.chosen.reference_logps is None
        assert view.rejected.reference_logps is None


@pytest.mark.parametrize("progress", [0.0, 0.01, 1 / 3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("name", CONDITIONINGS)
def test_weights_are_positive_and_sum_to_one(name: str, progress: float) -> None:
    weights = [weight for weight, _ in views_of(CONDITIONINGS[name](), progress=progress)]  # type: ignore[call-arg]
    assert sum(weights) == pytest.approx(1.0)
    assert min(weights) > 0


def test_annealing_goes_from_start_to_end() -> None:
    conditioning = CONDITIONINGS["annealed"](start=0.2, end=0.9)  # type: ignore[call-arg]
    plain = {
        progress: dict((seen(view), w) for w, view in views_of(conditioning, progress=progress))[PLAIN]
        for progress in (0.0, 0.5, 1.0)
    }
    assert plain == pytest.approx({0.0: 0.2, 0.5: 0.55, 1.0: 0.9})
    backwards = CONDITIONINGS["annealed"](start=1.0, end=0.0)  # type: ignore[call-arg]
    assert [seen(view) for _, view in views_of(backwards, progress=0.0)] == [PLAIN]
    assert [seen(view) for _, view in views_of(backwards, progress=1.0)] == [SYMMETRIC["conditioned"]]


def test_by_default_annealing_ends_with_the_policy_that_is_used() -> None:
    annealed = CONDITIONINGS["annealed"]()  # type: ignore[call-arg]
    assert [seen(view) for _, view in views_of(annealed, progress=0.0)] == [SYMMETRIC["conditioned"]]
    assert [seen(view) for _, view in views_of(annealed, progress=1.0)] == [PLAIN]


def test_the_ends_of_averaged_are_symmetric_and_none() -> None:
    for weight, name in ((0.0, "symmetric"), (1.0, "none")):
        end = views_of(CONDITIONINGS["averaged"](weight=weight))  # type: ignore[call-arg]
        assert [(w, seen(v)) for w, v in end] == [(w, seen(v)) for w, v in views_of(CONDITIONINGS[name]())]  # type: ignore[call-arg]


def one_pair(**scores: float) -> TreeLogps:
    return TreeLogps(**{score: torch.tensor([value]) for score, value in scores.items()})


def margins(conditioning: str, policy: TreeLogps, reference: TreeLogps, context: ReferenceContext) -> list[float]:
    views = CONDITIONINGS[conditioning]().views(  # type: ignore[call-arg]
        policy,
        reference,
        chosen_lengths=torch.tensor([1]),
        rejected_lengths=torch.tensor([1]),
        reference_context=context,
    )
    return [(view.chosen.log_ratio - view.rejected.log_ratio).item() for _, view in views]


def test_averaged_keeps_its_views_apart_for_the_objective() -> None:
    # A mean of losses, not the loss of a mean: with margins 6 and 1 a squared loss is 18.5, not 12.25.
    policy = one_pair(chosen=-1.0, rejected=-2.0, chosen_given_rejected=-1.0, rejected_given_chosen=-7.0)
    reference = one_pair(chosen=0.0, rejected=0.0)
    assert margins("averaged", policy, reference, "plain") == [6.0, 1.0]


def test_the_constant_side_of_rejected_only_has_no_gradient_and_no_ratio() -> None:
    score = torch.tensor([-3.0, float("inf")], requires_grad=True)
    ((_, view),) = CONDITIONINGS["rejected_only"]().views(  # type: ignore[call-arg]
        TreeLogps(rejected_given_chosen=score),
        TreeLogps(rejected=torch.tensor([-5.0, -5.0])),
        chosen_lengths=torch.tensor([1, 1]),
        rejected_lengths=torch.tensor([1, 1]),
        reference_context="plain",
    )
    assert view.chosen.log_ratio.tolist() == [0.0, 0.0]
    assert not view.chosen.logps.requires_grad
    assert view.rejected.logps is score


def test_a_plain_reference_leaves_a_conditioned_margin_at_the_start() -> None:
    # Policy and reference are one model. In the same context the margin is 0; in the plain one it is what the
    # alternative does to either response, which is there before anything was learned.
    model = one_pair(chosen=-10.0, rejected=-20.0, chosen_given_rejected=-8.0, rejected_given_chosen=-19.5)
    assert margins("symmetric", model, model, "conditioned") == [0.0]
    assert margins("symmetric", model, model, "plain") == [2.0 - 0.5]
    assert margins("none", model, model, "plain") == [0.0]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_what_is_refused() -> None:
    refused = {
        (name, context, uses_reference)
        for name, context, uses_reference in itertools.product(CONDITIONINGS, CONTEXTS, (True, False))
        if CONDITIONINGS[name]().refusal(reference_context=context, uses_reference=uses_reference)  # type: ignore[call-arg]
    }
    assert refused == {
        ("one_sided", "plain", True),
        ("one_sided", "plain", False),
        ("one_sided", "conditioned", False),
        ("rejected_only", "plain", False),
        ("rejected_only", "conditioned", False),
    }


def test_a_refusal_says_what_and_why() -> None:
    one_sided = CONDITIONINGS["one_sided"]()  # type: ignore[call-arg]
    said = one_sided.refusal(reference_context="plain", uses_reference=True)
    assert "one_sided" in said
    assert "reference.context: conditioned" in said
    assert "recognising the format" in said


def test_only_the_degenerate_ablation_comes_with_a_caution() -> None:
    assert [name for name, row in CONDITIONINGS.items() if row.caution] == ["rejected_only"]
    assert "collapse" in CONDITIONINGS["rejected_only"].caution


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("averaged", {"weight": -0.1}),
        ("averaged", {"weight": 1.1}),
        ("averaged", {"weight": float("nan")}),
        ("annealed", {"start": -0.1}),
        ("annealed", {"end": 1.1}),
        ("one_sided", {"conditioned": "both"}),
        ("symmetric", {"weight": 0.5}),
        ("none", {"name": "symmetric"}),
    ],
)
def test_values_out_of_range_are_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CONDITIONINGS[name](**parameters)


@pytest.mark.parametrize("progress", [-0.01, 1.01])
def test_progress_is_a_share(progress: float) -> None:
    with pytest.raises(AssertionError, match="progress"):
        views_of(CONDITIONINGS["annealed"](), progress=progress)  # type: ignore[call-arg]


def test_a_missing_score_is_named() -> None:
    with pytest.raises(AssertionError, match="chosen_given_rejected was not computed"):
        CONDITIONINGS["symmetric"]().views(  # type: ignore[call-arg]
            logps(("chosen", "rejected")),
            None,
            chosen_lengths=torch.tensor([1]),
            rejected_lengths=torch.tensor([1]),
            reference_context="plain",
        )


def test_every_score_has_a_plain_one() -> None:
    assert set(PLAIN_SCORE) == set(SCORES)
    assert set(PLAIN_SCORE.values()) == {"chosen", "rejected"}
