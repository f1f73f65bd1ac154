"""Counts of steps, tokens, micro-batches and FLOPs: the trainer's own where lengths are known, estimates elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.cost import pair_flops
from inspo_hub.dealing import step_indices
from inspo_hub.plan.variants import Variant, reference_passes
from inspo_hub.training.steps import StepDataset
from tests.plan.facts import EIGHT, data_of, draw_rows, model_of, recipe_of, variant_of

ROWS = draw_rows(100)


def trainer_steps(variant: Variant, *, processes: int, budget: int) -> StepDataset:
    """The data set of the real training over the same lengths; nothing is packed."""
    train = variant.recipe.train
    tokens = np.array(variant.workload.tokens_of)
    order = step_indices(len(tokens), train.pairs_per_step, train.epochs, variant.recipe.seed)
    return StepDataset(
        steps=order[: train.max_steps],
        pack=lambda rows: pytest.fail("nothing needs to be packed"),
        tokens=tokens,
        costs=tokens.astype(np.float64),
        reference={},
        truncated=np.zeros(len(tokens), bool),
        tokens_per_microbatch=budget,
        processes=processes,
        process=0,
    )


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("budget", [500, 4000, 10**6])
@pytest.mark.parametrize(
    "train", [{"pairs_per_step": 16}, {"pairs_per_step": 7, "epochs": 2.3}, {"pairs_per_step": 16, "max_steps": 3}]
)
def test_known_lengths_give_the_trainer_s_own_counts(train: dict[str, float], budget: int, processes: int) -> None:
    workload = variant_of(ROWS, train=train).workload
    dataset = trainer_steps(variant_of(ROWS, train=train), processes=processes, budget=budget)
    expected = [max(len(share) for share in dataset.shares(step)) for step in range(len(dataset))]
    rows = np.concatenate(list(dataset.steps))
    assert workload.exact
    assert (workload.steps, workload.pairs) == (len(dataset), len(rows))
    assert workload.tokens == dataset.tokens[rows].sum()
    assert workload.micro_batches(processes=processes, budget=budget) == sum(expected)


def test_the_largest_micro_batch_is_the_trainer_s() -> None:
    for budget in (500, 4000, 10**6):
        variant = variant_of(ROWS, train={"pairs_per_step": 16})
        dataset = trainer_steps(variant, processes=1, budget=budget)
        largest = max(
            sum(int(dataset.tokens[row]) for row in members)
            for step in range(len(dataset))
            for members in dataset.shares(step)[0]
        )
        assert largest <= variant.workload.largest_micro_batch(budget) <= max(budget, largest)


def test_a_sample_comes_near_the_whole() -> None:
    rows = draw_rows(3000, seed=1)
    whole = variant_of(rows, train={"pairs_per_step": 64}).workload
    part = variant_of(rows[::6], pairs=3000, train={"pairs_per_step": 64}).workload
    assert not part.exact
    assert (part.steps, part.pairs) == (whole.steps, whole.pairs) == (47, 3000)
    assert part.tokens == pytest.approx(whole.tokens, rel=0.05)
    for processes, budget in ((1, 8192), (4, 4096)):
        counts = [workload.micro_batches(processes=processes, budget=budget) for workload in (whole, part)]
        assert counts[1] == pytest.approx(counts[0], rel=0.07)


def test_a_sample_smaller_than_a_step_still_makes_one() -> None:
    workload = variant_of(ROWS[:10], pairs=1000, train={"pairs_per_step": 64}).workload
    assert workload.steps == 16
    assert workload.tokens == pytest.approx(1000 * np.mean(workload.tokens_of), rel=0.1)


@pytest.mark.parametrize("name", list(CONDITIONINGS))
def test_flops_are_those_of_the_cost_model(name: str) -> None:
    objective = {"name": "dpo", "nll_weight": 0.1} if name == "none" else "dpo"
    context = {"context": "conditioned"} if CONDITIONINGS[name](name=name).refuses_plain_reference else {}
    variant = variant_of(ROWS, conditioning=name, objective=objective, reference=context)
    packing = variant.workload.packing
    for row, work in zip(ROWS[:10], variant.works(checkpointing=True), strict=False):
        layers = pair_flops(EIGHT, row[:3], scores=packing.scores, checkpointing=True)
        head = pair_flops(EIGHT, row[:3], scores=packing.trained, head_recomputed=False).head
        assert (work.body, work.attention, work.head) == (layers.body, layers.attention, head)
        assert work.tokens == packing.pair(row).tokens


def test_logits_that_do_not_fit_are_computed_twice() -> None:
    variant = variant_of(ROWS)
    kept, again = (variant.works(kept_bytes=limit) for limit in (float("inf"), 1.0))
    assert [work.head * 4 / 3 for work in kept] == pytest.approx([work.head for work in again])
    coupled = variant_of(ROWS, objective="aot")
    assert coupled.works(kept_bytes=float("inf"))[0].head == pytest.approx(again[0].head)


def test_a_frozen_base_has_no_gradients_of_its_matrices() -> None:
    whole, adapter = variant_of(ROWS), variant_of(ROWS, adapter={"r": 8})
    assert adapter.trained == 8 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14_336))
    assert whole.trained == model_of(EIGHT).parameters
    share = adapter.works()[0].body / whole.works()[0].body
    assert 2 / 3 < share < 0.68
    assert adapter.works()[0].attention == whole.works()[0].attention
    data = data_of(ROWS)
    goes_on = Variant.of(
        "on", recipe_of(adapter={"base_adapter": "owner/lora"}), model_of(EIGHT), data, base_adapter=77
    )
    assert goes_on.trained == 77
    only_queries = variant_of(ROWS, adapter={"r": 8, "target_modules": ("q_proj",), "use_dora": True})
    assert only_queries.trained == 32 * (8 * 8192 + 4096)


# --- the reference pass


def twins(*conditionings: str, context: str = "plain", heldout: int = 10, **keys: object) -> list[Variant]:
    data = data_of(ROWS, heldout=heldout, separator=7)
    return [
        variant_of(ROWS, name=name, data=data, conditioning=name, reference={"context": context}, **keys)
        for name in conditionings
    ]


def test_twins_share_one_reference_pass() -> None:
    (one,) = reference_passes(twins("none", "symmetric"))
    assert (one.variant, one.train, one.heldout) == ("none", ("chosen", "rejected"), ("chosen", "rejected"))
    assert one.pairs == 110
    forward = sum(pair_flops(EIGHT, row[:3], scores=("chosen", "rejected"), training=False).total for row in ROWS)
    held = sum(pair_flops(EIGHT, row[:3], scores=("chosen", "rejected"), training=False).total for row in ROWS[:10])
    assert sum(one.work[1:]) == pytest.approx(forward + held)


def test_a_conditioned_reference_is_a_pass_of_its_own() -> None:
    plain_twin, conditioned = twins("none", context="conditioned") + twins("symmetric", context="conditioned")
    first, second = reference_passes([plain_twin, conditioned])
    assert first.train == ("chosen", "rejected")
    assert len(first.heldout) == 4
    assert len(second.train) == 4
    assert second.heldout == (), "held-out pairs got all four scores before"
    assert [one.variant for one in reference_passes([conditioned, plain_twin])] == ["symmetric"]


def test_no_reference_no_pass() -> None:
    assert reference_passes([variant_of(ROWS, objective="simpo")]) == []


def test_another_reference_model_is_scored_for_itself() -> None:
    data = data_of(ROWS)
    own = variant_of(ROWS, data=data)
    other = variant_of(
        ROWS,
        data=data,
        name="other",
        reference_model=model_of(EIGHT, name="owner/other@1"),
        reference={"source": "model", "id": "owner/other"},
    )
    assert [one.variant for one in reference_passes([own, other])] == ["planned", "other"]


def test_how_often_held_out_pairs_are_scored_and_checkpoints_written() -> None:
    variant = variant_of(ROWS, heldout=5, train={"pairs_per_step": 10, "eval_every": 4, "save_every": 3})
    assert (variant.workload.steps, variant.evaluations, variant.saves) == (10, 1 + 2, 4)
    by_default = variant_of(ROWS, heldout=5, train={"pairs_per_step": 10})
    assert (by_default.evaluations, by_default.saves) == (2, 10)
    assert variant_of(ROWS, train={"pairs_per_step": 10}).evaluations == 0


def test_recipes_made_for_tests_are_valid() -> None:
    assert recipe_of().train.pairs_per_step == 128


def test_a_budget_of_tokens_ends_both_twins_at_the_same_cost() -> None:
    most = 150_000
    for exact in (True, False):
        found = {
            name: variant_of(
                ROWS,
                pairs=None if exact else 5000,
                conditioning={"name": name},
                train={"pairs_per_step": 10, "epochs": 10, "max_tokens": most},
            ).workload
            for name in ("none", "symmetric")
        }
        steps = {name: one.steps for name, one in found.items()}
        assert steps["symmetric"] < steps["none"]
        for name, one in found.items():
            assert 0.85 * most < one.tokens <= most * (1 if exact else 1.01), name
            if exact:
                whole = variant_of(ROWS, conditioning={"name": name}, train={"pairs_per_step": 10, "epochs": 10})
                ordered = whole.workload
                longer = sum(ordered.tokens_of[row] for rows in ordered.order[: one.steps + 1] for row in rows)
                assert longer > most
