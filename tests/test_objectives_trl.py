"""Every loss that TRL 1.16 has as well: the real trainers on a tiny random Llama, from the same token ids."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from inspo_hub.objectives import OBJECTIVES
from inspo_hub.views import ResponseView, View

trl = pytest.importorskip("trl", minversion="1.16")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # transformers' own deprecations, which TRL still uses
    pytest.mark.filterwarnings("ignore:.*experimental.*"),
]

ROWS = [
    {"prompt": "a b c ", "chosen": "d e f g", "rejected": "h i"},
    {"prompt": "b ", "chosen": "q", "rejected": "r s t a b"},
    {"prompt": "c d ", "chosen": "e f", "rejected": "g h"},
    {"prompt": "k l m n o p ", "chosen": "a a a b", "rejected": "c a c a c a c"},
]

# TRL's loss type -> (its options, our name, our fields).
CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "sigmoid": ({}, "dpo", {}),
    "hinge": ({}, "hinge", {}),
    "ipo": ({}, "ipo", {}),
    "robust": ({"label_smoothing": 0.2}, "robust", {"label_smoothing": 0.2}),
    "exo_pair": ({"label_smoothing": 0.1}, "exo_pair", {"label_smoothing": 0.1}),
    "nca_pair": ({}, "nca_pair", {}),
    "bco_pair": ({}, "bco_pair", {}),
    "sppo_hard": ({}, "sppo_hard", {}),
    "apo_zero": ({}, "apo_zero", {}),
    "apo_down": ({}, "apo_down", {}),
    "discopop": ({"discopop_tau": 0.3}, "discopop", {"tau": 0.3}),
    "sigmoid_norm": ({}, "sigmoid_norm", {}),
    "aot": ({"label_smoothing": 0.1}, "aot", {"label_smoothing": 0.1}),
}


def tiny_llama(seed: int, vocab: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.4,  # far from uniform, so that log-ratios are nats and not thousandths
        pad_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrst"]
    words_to_ids = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(words_to_ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


@pytest.fixture(scope="module")
def models(tokenizer: PreTrainedTokenizerFast) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    return tiny_llama(0, len(tokenizer)), tiny_llama(1, len(tokenizer))


def dpo_trainer(
    folder: Path,
    models: tuple[LlamaForCausalLM, LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    rows: list[dict[str, str]],
    **options: Any,
) -> Any:
    from datasets import Dataset

    policy, reference = (copy.deepcopy(model) for model in models)
    return trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=trl.DPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=len(rows),
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to=[],
            disable_tqdm=True,
            **options,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def summed_logps(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> Tensor:
    """log π of each row's completion, written out."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    logps = torch.log_softmax(logits.double(), dim=-1).gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    return (logps * batch["completion_mask"][:, 1:]).sum(dim=1)


def view_of(policy: LlamaForCausalLM, reference: LlamaForCausalLM, batch: dict[str, Tensor]) -> View:
    """TRL's batch is all chosen rows, then all rejected rows."""
    with torch.no_grad():
        known = summed_logps(reference, batch)
    halves = zip(
        summed_logps(policy, batch).chunk(2), known.chunk(2), batch["completion_mask"].sum(1).chunk(2), strict=True
    )
    chosen, rejected = (
        ResponseView(logps=logps, reference_logps=reference_logps, lengths=lengths)
        for logps, reference_logps, lengths in halves
    )
    return View(chosen=chosen, rejected=rejected, plain_chosen_logps=chosen.logps)


def flat_gradient(model: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def agree(trainer: Any, models: tuple[LlamaForCausalLM, LlamaForCausalLM], name: str, fields: dict[str, Any]) -> None:
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, dict(batch))
    theirs.backward()
    policy, reference = (copy.deepcopy(model) for model in models)
    ours = OBJECTIVES[name](**fields).pair_losses(view_of(policy, reference, batch)).mean()
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    mine, his = flat_gradient(policy), flat_gradient(trainer.model)
    assert his.norm() > 1e-6
    assert (mine - his).norm() <= 1e-4 * his.norm()


def test_every_loss_of_trl_is_compared() -> None:
    # Not ours: aot_unpaired, which compares responses of different prompts. sft is our nll_weight, compared below.
    documented = trl.DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    assert set(re.findall(r"'(\w+)'", documented)) == {*CASES, "aot_unpaired", "sft"}
    # simpo, cpo and orpo have peers among the experimental trainers, below; rdpo has none.
    assert set(OBJECTIVES) - {name for _, name, _ in CASES.values()} == {"simpo", "rdpo", "orpo", "cpo"}


@pytest.mark.parametrize("loss_type", CASES)
def test_dpo_trainer_computes_the_same_loss_and_gradient(
    loss_type: str,
    tmp_path: Path,
    models: tuple[LlamaForCausalLM, LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    options, name, fields = CASES[loss_type]
    trainer = dpo_trainer(tmp_path, models, tokenizer, ROWS, loss_type=[loss_type], beta=0.3, **options)
    agree(trainer, models, name, {"beta": 0.3, **fields})


def test_sft_weight_is_our_nll_weight(
    tmp_path: Path, models: tuple[LlamaForCausalLM, LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    # TRL's is a mean over the tokens of its device batch, ours over each pair's tokens: the same for one pair.
    for row in ROWS[:2]:
        trainer = dpo_trainer(
            tmp_path, models, tokenizer, [row], loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.3], beta=0.3
        )
        agree(trainer, models, "dpo", {"beta": 0.3, "nll_weight": 0.3})


# --- losses of TRL's experimental trainers: functions of log-probabilities -------------------------------------------


@pytest.fixture
def view() -> View:
    draw = torch.Generator().manual_seed(0)
    lengths = [torch.randint(1, 20, (8,), generator=draw) for _ in range(2)]
    logps = [-length * (0.1 + 2 * torch.rand(8, generator=draw)) for length in lengths]
    chosen, rejected = (
        ResponseView(logps=value, reference_logps=None, lengths=length)
        for value, length in zip(logps, lengths, strict=True)
    )
    return View(chosen=chosen, rejected=rejected, plain_chosen_logps=chosen.logps)


def cpo_trainer(**options: Any) -> Any:
    defaults = {"alpha": 0.0, "label_smoothing": 0.0, "accelerator": SimpleNamespace(device="cpu")}
    return SimpleNamespace(**(defaults | options))


def token_nll(view: View) -> Tensor:
    return -view.chosen.logps / view.chosen.lengths


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cpo_trainer_computes_the_same_cpo(view: View, smoothing: float) -> None:
    from trl.experimental.cpo import CPOTrainer

    me = cpo_trainer(loss_type="sigmoid", beta=0.3, label_smoothing=smoothing)
    theirs = CPOTrainer.cpo_loss(me, view.chosen.logps, view.rejected.logps)[0]
    objective = OBJECTIVES["cpo"](beta=0.3, label_smoothing=smoothing)  # type: ignore[call-arg]
    torch.testing.assert_close(objective.preference_losses(view), theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(objective.pair_losses(view), theirs + token_nll(view), rtol=1e-5, atol=1e-6)


def test_cpo_trainer_computes_the_same_simpo(view: View) -> None:
    from trl.experimental.cpo import CPOTrainer

    me = cpo_trainer(loss_type="simpo", beta=2.5, simpo_gamma=0.75)
    means = (view.chosen.logps / view.chosen.lengths, view.rejected.logps / view.rejected.lengths)
    theirs = CPOTrainer.cpo_loss(me, *means)[0]
    objective = OBJECTIVES["simpo"](beta=2.5, gamma=0.75)  # type: ignore[call-arg]
    torch.testing.assert_close(objective.pair_losses(view), theirs, rtol=1e-5, atol=1e-6)


def test_orpo_trainer_computes_the_same_odds_ratio(view: View) -> None:
    from trl.experimental.orpo import ORPOTrainer

    means = (view.chosen.logps / view.chosen.lengths, view.rejected.logps / view.rejected.lengths)
    theirs = ORPOTrainer.odds_ratio_loss(cpo_trainer(beta=0.2), *means)[0]  # which is its weight times log σ
    objective = OBJECTIVES["orpo"](odds_weight=0.2)  # type: ignore[call-arg]
    torch.testing.assert_close(objective.pair_losses(view), token_nll(view) - theirs, rtol=1e-5, atol=1e-6)
