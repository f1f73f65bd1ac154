"""Metrics against means over all pairs at once, whatever the batches, the processes and the missing scores."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from inspo_hub.metrics import METRICS, PairMetrics
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.views import SCORES, Score, TreeLogps

PAIRS = 13
BETA = 0.3
DPO = OBJECTIVES["dpo"](beta=BETA).rewards  # type: ignore[call-arg]
CPO = OBJECTIVES["cpo"](beta=1.0).rewards  # type: ignore[call-arg]
"""β·log_ratio, and without a reference β·logps."""


@pytest.fixture
def data() -> SimpleNamespace:
    draw = torch.Generator().manual_seed(0)

    def logps() -> dict[Score, Tensor]:
        return {score: -40 * torch.rand(PAIRS, generator=draw) - 1 for score in SCORES}

    policy, reference = logps(), logps()
    # Two ties: margins of exactly zero, plain and conditioned.
    for score in ("chosen", "rejected", "chosen_given_rejected", "rejected_given_chosen"):
        policy[score][3], reference[score][3] = -7.0, -7.0
    return SimpleNamespace(
        policy=policy,
        reference=reference,
        chosen_lengths=torch.randint(1, 30, (PAIRS,), generator=draw),
        rejected_lengths=torch.randint(1, 30, (PAIRS,), generator=draw),
        losses=torch.rand(PAIRS, generator=draw),
        truncated=torch.rand(PAIRS, generator=draw) < 0.3,
    )


def take(data: SimpleNamespace, rows: slice, metrics: PairMetrics, context: str = "conditioned") -> None:
    metrics.update(
        TreeLogps(**{score: value[rows] for score, value in data.policy.items()}),
        TreeLogps(**{score: value[rows] for score, value in data.reference.items()}),
        SimpleNamespace(chosen_lengths=data.chosen_lengths[rows], rejected_lengths=data.rejected_lengths[rows]),
        losses=data.losses[rows],
        reference_context=context,
        truncated=data.truncated[rows],
    )


def oracle(data: SimpleNamespace, context: str) -> dict[str, float]:
    """Every metric written out over all pairs at once, in float64."""
    policy = {score: value.double() for score, value in data.policy.items()}
    reference = {score: value.double() for score, value in data.reference.items()}
    lengths = {"chosen": data.chosen_lengths.double(), "rejected": data.rejected_lengths.double()}
    partner = {"chosen": "chosen_given_rejected", "rejected": "rejected_given_chosen"}
    result = {"loss": data.losses.double().mean()}
    margins = {}
    for side in ("plain", "conditioned"):
        rewards = {}
        for response in ("chosen", "rejected"):
            score = response if side == "plain" else partner[response]
            known = reference[score if context == "conditioned" else response]
            rewards[response] = BETA * (policy[score] - known)
            result[f"{side}_reward_{response}"] = rewards[response].mean()
            result[f"{side}_logp_per_token_{response}"] = policy[score].sum() / lengths[response].sum()
        margins[side] = rewards["chosen"] - rewards["rejected"]
        result[f"{side}_margin"] = margins[side].mean()
        result[f"{side}_margin_std"] = margins[side].std(correction=0)
        result[f"{side}_accuracy"] = ((margins[side] > 0).double() + 0.5 * (margins[side] == 0)).mean()
    result["distillation_gap"] = result["conditioned_margin"] - result["plain_margin"]
    ratios = {response: policy[response] - reference[response] for response in ("chosen", "rejected")}
    for response, ratio in ratios.items():
        result[f"plain_log_ratio_per_token_{response}"] = ratio.sum() / lengths[response].sum()
        result[f"length_{response}"] = lengths[response].mean()
    result["offline_kl_estimate"] = -torch.cat(list(ratios.values())).mean()
    longer = lengths["chosen"] - lengths["rejected"]
    result["longer_chosen_share"] = ((longer > 0).double() + 0.5 * (longer == 0)).mean()
    result["truncated_share"] = data.truncated.double().mean()
    return {name: float(value) for name, value in result.items()} | {"pairs": float(PAIRS)}


@pytest.mark.parametrize("context", ["plain", "conditioned"])
@pytest.mark.parametrize("batch", [1, 4, 13])
def test_any_grouping_gives_the_mean_over_all_pairs(data: SimpleNamespace, batch: int, context: str) -> None:
    metrics = PairMetrics("cpu", rewards=DPO)
    for start in range(0, PAIRS, batch):
        take(data, slice(start, start + batch), metrics, context)
    result = metrics.reduce()
    assert result == pytest.approx(oracle(data, context), rel=1e-6, abs=1e-6)
    assert list(result) == list(METRICS), "every metric of the table, in its order"


def test_accuracies_are_not_a_mean_of_batch_means(data: SimpleNamespace) -> None:
    # Two batches of 12 and 1: averaging their means would weigh the last pair twelvefold.
    metrics = PairMetrics("cpu", rewards=DPO)
    take(data, slice(0, 12), metrics)
    take(data, slice(12, 13), metrics)
    assert metrics.reduce()["plain_accuracy"] * PAIRS == pytest.approx(oracle(data, "plain")["plain_accuracy"] * PAIRS)


def test_a_tie_counts_a_half_and_nan_is_not_a_loss() -> None:
    lengths = SimpleNamespace(chosen_lengths=torch.tensor([2, 2, 2]), rejected_lengths=torch.tensor([1, 2, 3]))
    logps = TreeLogps(chosen=torch.tensor([-1.0, -2.0, -3.0]), rejected=torch.full((3,), -2.0))
    metrics = PairMetrics("cpu", rewards=CPO)
    metrics.update(logps, None, lengths)
    assert metrics.reduce()["plain_accuracy"] == 0.5
    assert metrics.reduce()["longer_chosen_share"] == 0.5
    metrics.reset()
    tied = TreeLogps(chosen=torch.tensor([-2.0, -2.0, -2.0]), rejected=torch.full((3,), -2.0))
    metrics.update(tied, None, lengths)
    assert metrics.reduce()["plain_accuracy"] == 0.5
    metrics.update(TreeLogps(chosen=torch.full((3,), math.nan), rejected=torch.zeros(3)), None, lengths)
    assert math.isnan(metrics.reduce()["plain_accuracy"])
    assert metrics.reduce()["pairs"] == 6, "one metric's NaN spoils no other"


def test_two_processes_agree_after_one_all_reduce(data: SimpleNamespace) -> None:
    first, second, idle = (PairMetrics("cpu", rewards=DPO) for _ in range(3))
    take(data, slice(0, 5), first)
    take(data, slice(5, PAIRS), second)
    calls = []

    class Accelerator:
        def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
            calls.append(reduction)
            return tensor.add_(second._sums).add_(idle._sums)  # in place, as the collective is

    for _ in range(2):
        assert first.reduce(Accelerator()) == pytest.approx(oracle(data, "conditioned"), rel=1e-6, abs=1e-6)
    assert calls == ["sum", "sum"], "one collective for each reading, and reading twice changes nothing"


def test_a_process_without_pairs_has_nothing_to_say() -> None:
    metrics = PairMetrics("cpu", rewards=CPO)
    empty = torch.zeros(0)
    none = torch.zeros(0, dtype=torch.int64)
    metrics.update(
        TreeLogps(chosen=empty, rejected=empty), None, SimpleNamespace(chosen_lengths=none, rejected_lengths=none)
    )
    assert metrics.reduce() == {}


def test_only_what_was_computed_is_logged(data: SimpleNamespace) -> None:
    plain: dict[Score, Tensor] = {score: data.policy[score] for score in ("chosen", "rejected")}
    metrics = PairMetrics("cpu", rewards=CPO)
    metrics.update(TreeLogps(**plain), None, data)
    names = metrics.reduce()
    assert not [name for name in names if name.startswith("conditioned")]
    assert not {"distillation_gap", "offline_kl_estimate", "loss", "truncated_share"} & set(names)
    assert "plain_margin" in names

    metrics = PairMetrics("cpu", rewards=CPO)
    metrics.update(
        TreeLogps(chosen_given_rejected=data.policy["chosen_given_rejected"]),
        TreeLogps(rejected=data.reference["rejected"]),
        data,
    )
    names = metrics.reduce()
    assert "conditioned_logp_per_token_chosen" in names
    assert not [name for name in names if "reward" in name or "margin" in name]


def test_one_sided_margins_compare_the_conditioned_with_the_plain_response(data: SimpleNamespace) -> None:
    metrics = PairMetrics("cpu", rewards=DPO)
    shown: tuple[Score, ...] = ("chosen_given_rejected", "rejected")
    metrics.update(
        TreeLogps(**{score: data.policy[score] for score in shown}),
        TreeLogps(**{score: data.reference[score] for score in shown}),
        data,
        reference_context="conditioned",
    )
    expected = BETA * sum(
        sign * (data.policy[score] - data.reference[score]).double().mean()
        for sign, score in zip((1, -1), shown, strict=True)
    )
    assert metrics.reduce()["conditioned_margin"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_rewards_are_the_objective_s_own(data: SimpleNamespace, name: str) -> None:
    objective = OBJECTIVES[name]()  # type: ignore[call-arg]
    metrics = PairMetrics("cpu", rewards=objective.rewards)
    reference = TreeLogps(**data.reference) if objective.uses_reference else None
    metrics.update(TreeLogps(**data.policy), reference, data)
    logps = data.policy["chosen"].double() - (data.reference["chosen"].double() if objective.uses_reference else 0.0)
    by_token = name in {"simpo", "orpo", "ipo", "sigmoid_norm"}
    scale = getattr(objective, "beta", getattr(objective, "odds_weight", None))
    expected = scale * logps / (data.chosen_lengths if by_token else 1)
    assert metrics.reduce()["plain_reward_chosen"] == pytest.approx(float(expected.mean()), rel=1e-5)


def test_a_checkpoint_carries_the_open_interval(data: SimpleNamespace) -> None:
    whole, before, after = (PairMetrics("cpu", rewards=DPO) for _ in range(3))
    take(data, slice(0, PAIRS), whole)
    take(data, slice(0, 6), before)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.reduce() == before.reduce(), "bit for bit, through JSON"
    take(data, slice(6, PAIRS), after)
    assert after.reduce() == pytest.approx(whole.reduce(), rel=1e-12)


def test_updates_keep_no_graph(data: SimpleNamespace) -> None:
    policy = TreeLogps(**{score: value.requires_grad_() for score, value in data.policy.items()})
    metrics = PairMetrics("cpu", rewards=CPO)
    metrics.update(policy, TreeLogps(**data.reference), data, losses=data.losses.requires_grad_())
    assert not metrics._sums.requires_grad


def test_the_table_documents_every_metric() -> None:
    assert all(metric.unit and metric.meaning for metric in METRICS.values())
    assert all(name == name.lower() and "/" not in name for name in METRICS)


@pytest.mark.gpu
def test_only_reading_waits_for_the_device(data: SimpleNamespace) -> None:
    moved = SimpleNamespace(chosen_lengths=data.chosen_lengths.cuda(), rejected_lengths=data.rejected_lengths.cuda())
    policy, reference = (
        TreeLogps(**{score: value.cuda() for score, value in logps.items()}) for logps in (data.policy, data.reference)
    )
    losses, metrics = data.losses.cuda(), PairMetrics("cuda", rewards=DPO)
    torch.cuda.set_sync_debug_mode("error")
    try:
        metrics.update(policy, reference, moved, losses=losses, reference_context="conditioned")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = oracle(data, "conditioned")
    expected.pop("truncated_share")
    assert metrics.reduce() == pytest.approx(expected, rel=1e-5, abs=1e-7)
