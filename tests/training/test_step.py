"""One optimizer step: micro-batches of any size give the gradient of the mean loss over all its pairs."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.errors import TrainingError
from inspo_hub.logprobs import prepare_model
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.packing import pack_pairs, packed_tokens
from inspo_hub.pairs import PreferencePair
from inspo_hub.training import PreferenceTrainer, TrainerParts
from inspo_hub.training.records import JsonLines
from inspo_hub.training.steps import StepDataset
from inspo_hub.views import SCORES, Score, TreeLogps
from tests.oracle import plain_logps

SEPARATOR = (1, 2)
REFERENCE_CONTEXT = {"one_sided": "conditioned", "rejected_only": "conditioned"}


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config).double()


def make_pairs(count: int = 7) -> list[PreferencePair]:
    draw = random.Random(0)

    def ids(low: int, high: int) -> list[int]:
        return draw.choices(range(3, 32), k=draw.randint(low, high))

    return [
        PreferencePair(prompt=ids(1, 9), chosen=ids(1, 12), rejected=ids(1, 12), row_id=f"row-{number}")
        for number in range(count)
    ]


def make_reference(pairs: Sequence[PreferencePair]) -> dict[Score, np.ndarray]:
    draw = np.random.default_rng(0)
    return {score: -draw.uniform(5, 40, len(pairs)) for score in SCORES}


def make_dataset(
    pairs: Sequence[PreferencePair],
    scores: tuple[Score, ...],
    reference: dict[Score, np.ndarray],
    *,
    budget: int = 60,
    processes: int = 1,
    process: int = 0,
) -> StepDataset:
    tokens = np.array([packed_tokens(pair, scores, separator=SEPARATOR) for pair in pairs])
    return StepDataset(
        steps=[np.arange(len(pairs))],
        pack=lambda rows: pack_pairs([pairs[row] for row in rows], scores, separator=SEPARATOR),
        tokens=tokens,
        costs=tokens.astype(float),
        reference=reference,
        truncated=np.zeros(len(pairs), bool),
        tokens_per_microbatch=budget,
        processes=processes,
        process=process,
    )


def make_trainer(
    folder: Path, model: Any, objective: Any, conditioning: Any, dataset: StepDataset
) -> PreferenceTrainer:
    parts = TrainerParts(
        objective=objective,
        conditioning=conditioning,
        reference_context=REFERENCE_CONTEXT.get(conditioning.name, "plain"),
        steps=dataset,
        row_id=lambda row: f"row-{row}",
        metrics_log=JsonLines(folder / "metrics.jsonl"),
        timings_log=JsonLines(folder / "timings.jsonl"),
        keep_checkpoints=1,
        on_save=lambda checkpoint, step: None,
        training_key={},
    )
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", max_steps=1, logging_steps=1, disable_tqdm=True
    )
    return PreferenceTrainer(parts, heldout=None, model=model, args=arguments)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def oracle_gradients(
    model: Any, pairs: Sequence[PreferencePair], parts: TrainerParts, scores: tuple[Score, ...]
) -> tuple[float, dict[str, torch.Tensor]]:
    """All pairs at once, by one plain forward per path: the mean loss and its gradient."""
    policy = TreeLogps(**plain_logps(model, pairs, scores, separator=SEPARATOR))
    reference = TreeLogps(**{score: torch.tensor(values).float() for score, values in parts.steps.reference.items()})

    class Lengths:
        chosen_lengths = torch.tensor([len(pair.chosen) for pair in pairs])
        rejected_lengths = torch.tensor([len(pair.rejected) for pair in pairs])

    loss = parts.losses(policy, reference if parts.objective.uses_reference else None, Lengths(), 0.0).mean()
    model.zero_grad()
    loss.backward()
    return float(loss.detach()), gradients(model)


@pytest.mark.parametrize("budget", [1, 60, 10_000])
@pytest.mark.parametrize(
    ("objective", "conditioning"),
    [
        ("dpo", "none"),
        ("dpo", "symmetric"),
        ("ipo", "averaged"),
        ("simpo", "symmetric"),
        ("orpo", "symmetric"),
        ("dpo", "one_sided"),
        ("dpo", "rejected_only"),
        ("dpo", "annealed"),
        ("aot", "symmetric"),
    ],
)
def test_a_step_is_the_gradient_of_its_mean_loss(
    tmp_path: Path, objective: str, conditioning: str, budget: int
) -> None:
    pairs, model = make_pairs(), make_model()
    chosen, condition = OBJECTIVES[objective](name=objective, nll_weight=0.3), CONDITIONINGS[conditioning]()
    scores = condition.needed_scores(with_plain_chosen=chosen.needs_plain_chosen)
    reference = make_reference(pairs) if chosen.uses_reference else {}
    dataset = make_dataset(pairs, scores, reference, budget=budget)
    plain = copy.deepcopy(model)
    trainer = make_trainer(tmp_path, prepare_model(model), chosen, condition, dataset)
    model.zero_grad()
    loss = trainer.training_step(model, dataset[0])
    expected, wanted = oracle_gradients(plain, pairs, trainer.parts, scores)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=2e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("processes", [1, 2, 3, 9])
def test_processes_share_a_step_without_loss_or_repeat_and_in_lockstep(processes: int) -> None:
    pairs = make_pairs()
    shares = [
        make_dataset(pairs, SCORES, {}, budget=70, processes=processes, process=process)[0]
        for process in range(processes)
    ]
    assert len({len(share.micro_batches) for share in shares}) == 1
    real = [micro for share in shares for micro in share.micro_batches if not micro.filler]
    assert sorted(row for micro in real for row in micro.rows) == list(range(len(pairs)))
    assert {share.pairs for share in shares} == {len(pairs)}
    for share in shares:
        fillers = [micro.filler for micro in share.micro_batches]
        assert fillers == sorted(fillers, reverse=True)  # gradients are exchanged in the last one, a real one if any


def test_progress_goes_from_the_first_step_to_the_last() -> None:
    pairs = make_pairs()
    steps = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5, 6])]
    dataset = dataclasses.replace(make_dataset(pairs, SCORES, {}), steps=steps)
    assert [dataset[step].progress for step in range(3)] == [0.0, 0.5, 1.0]
    assert [dataset[step].pairs for step in range(3)] == [2, 2, 3]


def test_a_process_without_pairs_contributes_nothing(tmp_path: Path) -> None:
    pairs, model = make_pairs(2), make_model()
    dataset = make_dataset(pairs, SCORES, make_reference(pairs), processes=3, process=2)
    trainer = make_trainer(
        tmp_path, prepare_model(model), OBJECTIVES["dpo"](name="dpo"), CONDITIONINGS["averaged"](), dataset
    )
    model.zero_grad()
    assert float(trainer.training_step(model, dataset[0])) == 0.0
    assert all(float(gradient.abs().max()) == 0.0 for gradient in gradients(model).values())
    assert trainer.train_metrics.reduce().get("pairs", 0.0) == 0.0


def test_a_loss_that_is_not_finite_names_its_rows(tmp_path: Path) -> None:
    pairs, model = make_pairs(), make_model()
    reference = make_reference(pairs)
    reference["chosen"][3] = float("nan")
    dataset = make_dataset(pairs, ("chosen", "rejected"), reference)
    trainer = make_trainer(
        tmp_path, prepare_model(model), OBJECTIVES["dpo"](name="dpo"), CONDITIONINGS["none"](), dataset
    )
    with pytest.raises(TrainingError, match=r"not finite for 1 of 7 pairs at step 1") as raised:
        trainer.training_step(model, dataset[0])
    assert "row-3" in str(raised.value)
    assert raised.value.exit_code == 4


def test_the_largest_micro_batch_is_as_large_as_any(tmp_path: Path) -> None:
    pairs = make_pairs(30)
    dataset = make_dataset(pairs, SCORES, {}, budget=120)
    largest = dataset.largest_micro_batch().batch.tokens
    assert largest >= max(micro.batch.tokens for micro in dataset[0].micro_batches) - dataset.tokens.min()


def test_a_step_that_is_not_logged_waits_for_the_device_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU. Here every way by which a value of a tensor reaches the host is counted instead."""
    pairs, model = make_pairs(), make_model()
    dataset = make_dataset(pairs, SCORES, make_reference(pairs))
    trainer = make_trainer(
        tmp_path, prepare_model(model), OBJECTIVES["dpo"](name="dpo"), CONDITIONINGS["averaged"](), dataset
    )
    trainer.args.logging_steps, trainer.state.max_steps = 5, 9
    share = dataset[0]  # packed on the host, as data loading processes do
    check = trainer._stop_if_not_finite
    monkeypatch.setattr(trainer, "_stop_if_not_finite", lambda *, always: check(always=False))  # as on a GPU
    read: list[str] = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy", "nonzero"):
        original = getattr(torch.Tensor, name)

        def counted(self: Any, *arguments: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
            if self.is_floating_point():  # what a layout holds on the host are integers
                read.append(_name)
            return _original(self, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)
    trainer.training_step(model, share)
    assert read == []
    trainer.train_metrics.reduce()
    assert read == ["tolist"], "one reading for all metrics"
