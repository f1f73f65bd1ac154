"""`inspo-hub migrate`: configurations of each format, written by hand as projects write them, and what they become.

Every expectation is what the other trainer does with the key, looked up in its documentation or code.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspo_hub.cli import main
from inspo_hub.errors import RecipeError
from inspo_hub.migrating import Migrated, migrate_file
from inspo_hub.migrating.trl import LOSSES
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.recipe import RecipeProblems, load_recipe

HANDBOOK = """\
model_name_or_path: alignment-handbook/zephyr-7b-sft-full
model_revision: main
torch_dtype: null
use_flash_attention_2: true
dataset_mixer:
  HuggingFaceH4/ultrafeedback_binarized: 1.0
  argilla/dpo-mix-7k: 0.5
dataset_splits:
- train_prefs
- test_prefs
preprocessing_num_workers: 12
bf16: true
beta: 0.01
do_eval: true
evaluation_strategy: steps
eval_steps: 100
gradient_accumulation_steps: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: False
hub_model_id: me/zephyr-dpo
learning_rate: 5.0e-7
log_level: info
logging_steps: 10
lr_scheduler_type: cosine
max_length: 1024
max_prompt_length: 512
num_train_epochs: 1
optim: adamw_torch
output_dir: data/zephyr-dpo
overwrite_output_dir: true
per_device_train_batch_size: 8
per_device_eval_batch_size: 8
push_to_hub: true
save_strategy: "steps"
save_steps: 100
save_total_limit: 1
seed: 42
warmup_ratio: 0.1
report_to:
- tensorboard
- wandb
"""
MIXTURE = """\
model_name_or_path: HuggingFaceTB/SmolLM3-3B
dtype: bfloat16
dataset_mixture:
  datasets:
  - id: a/one
    config: default
    split: train
    columns: [chosen, rejected]
    weight: 1.0
  - id: a/two
    split: mid
    weight: 0.25
  test_split_size: 0.02
loss_type: [apo_zero]
beta: 0.05
use_peft: true
lora_r: 64
lora_alpha: 128
lora_dropout: 0.05
lora_target_modules: all-linear
load_in_4bit: true
learning_rate: 1e-6
warmup_steps: 0.03
max_steps: -1
"""
SIMPO = """\
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
attn_implementation: flash_attention_2
dataset_mixer: {princeton-nlp/llama3-ultrafeedback-armorm: 1.0}
dataset_splits: [train, test]
beta: 10
gamma_beta_ratio: 0.3
sft_weight: 0.0
gradient_accumulation_steps: 16
per_device_train_batch_size: 2
learning_rate: 1.0e-6
max_length: 2048
max_prompt_length: 1800
num_train_epochs: 1
optim: adamw_torch
run_name: llama-3-8b instruct/simpo v2
save_steps: 1000000
hub_model_id: simpo-exps
push_to_hub: false
trainer_type: simpo
"""
TRL = """\
model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
dataset_name: trl-lib/ultrafeedback_binarized
dataset_train_split: train
eval_strategy: steps
loss_type: [sigmoid, bco_pair, sft]
loss_weights: [0.8, 0.2, 1.0]
label_smoothing: 0.1
ld_alpha: 0.5
beta: 0.1
learning_rate: 5e-6
warmup_steps: 20
max_steps: 200
lr_scheduler_type: constant_with_warmup
ref_model_name_or_path: Qwen/Qwen2.5-0.5B
optim: adamw_bnb_8bit
my_own_key: 7
"""
AXOLOTL = """\
base_model: meta-llama/Meta-Llama-3-8B-Instruct
model_type: LlamaForCausalLM
load_in_8bit: true
load_in_4bit: false
chat_template: llama3
rl: dpo
rl_beta: 0.2
datasets:
  - path: fozziethebeat/alpaca_messages_2k_dpo_test
    type: chat_template.default
    field_messages: conversation
    field_chosen: chosen
    field_rejected: rejected
  - path: Intel/orca_dpo_pairs
    split: train
    type: chatml.intel
  - path: me/mine
    type: {field_prompt: question, field_chosen: good, field_rejected: bad}
  - path: me/odd
    type: my.own_strategy
val_set_size: 0.05
output_dir: ./outputs/lora-out
sequence_len: 4096
sample_packing: no
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: yes
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
gradient_checkpointing: true
logging_steps: 1
warmup_steps: 10
evals_per_epoch: 4
wandb_project: mine
weight_decay: 0.0
context_parapllel_size: 2
"""
ALL = {"handbook": HANDBOOK, "mixture": MIXTURE, "simpo": SIMPO, "trl": TRL, "axolotl": AXOLOTL}


def migrated(folder: Path, text: str, **options: object) -> Migrated:
    file = folder / "other.yaml"
    file.write_text(text, encoding="utf-8")
    return migrate_file(file, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ALL)
def test_every_key_is_carried_lost_with_a_reason_or_named_as_unknown(tmp_path: Path, name: str) -> None:
    from inspo_hub.recipe.reading import read_tree

    done = migrated(tmp_path, ALL[name])
    told = set(done.carried) | set(done.lost) | set(done.unknown)
    for key, value in read_tree(ALL[name], name).plain().items():
        off = value is None or key in ("load_in_4bit", "sft_weight")  # switched off: nothing to tell
        assert off or key in told or key in ("model_revision", "max_steps"), f"{key} went silently"
    assert all(done.lost.values())


@pytest.mark.parametrize("name", ALL)
def test_the_recipe_validates_as_a_file_and_as_twins(tmp_path: Path, name: str) -> None:
    done = migrated(tmp_path, ALL[name], twins=True)
    file = tmp_path / "recipe.yaml"
    file.write_text(done.text, encoding="utf-8")
    recipe = load_recipe(file)
    assert recipe.sha256() == done.recipe.sha256()
    assert {name: one.conditioning.name for name, one in recipe.variant_recipes().items()} == {
        "plain": "none",
        "inspo": "symmetric",
    }


def test_the_handbook(tmp_path: Path) -> None:
    done = migrated(tmp_path, HANDBOOK, processes=8)
    recipe = done.recipe
    assert done.format == "alignment-handbook"
    assert recipe.model.id == "alignment-handbook/zephyr-7b-sft-full"
    assert [(one.id, one.split) for one in recipe.data.train] == [
        ("HuggingFaceH4/ultrafeedback_binarized", "train_prefs"),
        ("argilla/dpo-mix-7k", "train_prefs"),
    ]
    assert isinstance(recipe.data.heldout, tuple)
    assert [one.split for one in recipe.data.heldout] == ["test_prefs", "test_prefs"]
    assert (recipe.objective.name, recipe.objective.beta, recipe.conditioning.name) == ("dpo", 0.01, "none")  # type: ignore[attr-defined]
    train = recipe.train
    assert (train.lr, train.epochs, train.pairs_per_step, train.warmup_fraction) == (5e-7, 1, 8 * 2 * 8, 0.1)
    assert (train.eval_every, train.save_every, train.keep_checkpoints, train.log_every) == (100, 100, 1, 10)
    assert (recipe.seed, recipe.data.max_length, train.report_to) == (42, 1024, "tensorboard")
    assert recipe.publish is not None
    assert recipe.publish.repo == "me/zephyr-dpo"
    assert "max_prompt_length" in done.lost
    assert any("argilla/dpo-mix-7k: a share of 0.5" in note for note in done.notes)
    assert any("8 a device × 2 accumulated × 8 processes" in note for note in done.notes)


def test_the_handbooks_mixture_with_an_adapter(tmp_path: Path) -> None:
    done = migrated(tmp_path, MIXTURE)
    recipe = done.recipe
    assert [(one.id, one.config, one.split) for one in recipe.data.train] == [
        ("a/one", "default", "train"),
        ("a/two", None, "mid"),
    ]
    assert recipe.data.heldout.fraction == 0.02  # type: ignore[union-attr]
    assert recipe.objective.name == "apo_zero"
    assert recipe.adapter is not None
    assert (recipe.adapter.r, recipe.adapter.alpha, recipe.adapter.quantize) == (64, 128, "nf4")
    assert recipe.adapter.target_modules == "auto"
    assert "an adapter has no dropout here" in done.lost["lora_dropout"]
    assert (recipe.model.compute_dtype, recipe.train.warmup_fraction, recipe.train.max_steps) == (
        "bfloat16",
        0.03,
        None,
    )


def test_simpo_has_its_margin_in_absolute_terms(tmp_path: Path) -> None:
    """Their trainer's loss is -log σ(β (Δ - ratio)): γ of the paper, and ours, is β × ratio."""
    done = migrated(tmp_path, SIMPO)
    recipe = done.recipe
    assert (done.format, recipe.objective.name) == ("SimPO", "simpo")
    assert (recipe.objective.beta, recipe.objective.gamma) == (10, 3)  # type: ignore[attr-defined]
    assert recipe.name == "llama-3-8b-instruct-simpo-v2"
    assert recipe.publish is None
    assert done.lost["hub_model_id"] == "push_to_hub is false; add publish.repo to publish"
    assert "so many steps never come" in done.lost["save_steps"]


def test_trl(tmp_path: Path) -> None:
    done = migrated(tmp_path, TRL)
    recipe = done.recipe
    assert done.format == "TRL"
    assert (recipe.objective.name, recipe.objective.label_smoothing) == ("dpo", 0.1)  # type: ignore[attr-defined]
    assert recipe.objective.nll_weight == pytest.approx(1.0 / 0.8), "relative to the preference loss"
    assert any("only sigmoid was carried over" in note for note in done.notes)
    assert (recipe.reference.source, recipe.reference.id) == ("model", "Qwen/Qwen2.5-0.5B")
    assert (recipe.train.warmup_fraction, recipe.train.lr_schedule) == (0.1, "constant")
    assert recipe.train.optimizer == "adamw_8bit"
    assert isinstance(recipe.data.heldout, tuple)
    assert recipe.data.heldout[0].split == "test"
    assert "length desensitisation" in done.lost["ld_alpha"]
    assert done.unknown == ("my_own_key",)


def test_axolotl(tmp_path: Path) -> None:
    done = migrated(tmp_path, AXOLOTL)
    recipe = done.recipe
    assert done.format == "axolotl"
    assert [one.columns for one in recipe.data.train] == [
        {"prompt": "conversation"},
        {"prompt": "question"},
        {"prompt": "question", "chosen": "good", "rejected": "bad"},
        {},
    ]
    assert (recipe.objective.name, recipe.objective.beta) == ("dpo", 0.2)  # type: ignore[attr-defined]
    assert recipe.adapter is not None
    assert (recipe.adapter.r, recipe.adapter.alpha, recipe.adapter.quantize) == (32, 16, "nf4")
    assert recipe.adapter.target_modules == "auto"
    assert (recipe.train.epochs, recipe.train.pairs_per_step, recipe.train.lr) == (4, 8, 2e-4)
    assert recipe.data.heldout.fraction == 0.05  # type: ignore[union-attr]
    assert any("me/odd: type 'my.own_strategy' is not known here" in note for note in done.notes)
    assert done.unknown == ("context_parapllel_size",), "the typo that axolotl reads past"


@pytest.mark.parametrize(("theirs", "ours"), LOSSES.items())
def test_every_loss_is_an_objective_of_ours(tmp_path: Path, theirs: str, ours: str) -> None:
    assert ours in OBJECTIVES
    text = f"model_name_or_path: a/b\ndataset_name: a/c\nlearning_rate: 1e-6\nloss_type: {theirs}\n"
    assert migrated(tmp_path, text).recipe.objective.name == ours


def test_what_is_wrong_there_is_wrong_here(tmp_path: Path) -> None:
    with pytest.raises(RecipeProblems, match=r"train\.lr"):
        migrated(tmp_path, "model_name_or_path: a/b\ndataset_name: a/c\nlearning_rate: -1\n")
    with pytest.raises(RecipeError, match="it names no data set"):
        migrated(tmp_path, "model_name_or_path: a/b\nlearning_rate: 1e-6\n")
    with pytest.raises(RecipeError, match="none of its keys tells its format: foo"):
        migrated(tmp_path, "foo: 1\n")
    with pytest.raises(RecipeError, match="a recipe of inspo_hub already"):
        migrated(tmp_path, "version: 1\nmodel: {id: a/b}\ndata: {}\n")
    with pytest.raises(RecipeError, match="another form than axolotl takes"):
        migrated(tmp_path, "base_model: a/b\nrl: dpo\ndatasets: [just/a/name]\nlearning_rate: 1e-6\n")


def test_the_command_prints_the_recipe_and_tells_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, written = tmp_path / "other.yaml", tmp_path / "recipe.yaml"
    file.write_text(TRL)
    assert main(["migrate", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == migrate_file(file).text
    assert "not known, left out: my_own_key" in err
    assert main(["migrate", str(file), "--output", str(written), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["ok"], facts["written"], facts["unknown"]) == (True, str(written), ["my_own_key"])
    assert main(["validate", str(written)]) == 0
    assert main(["migrate", str(file), "--output", str(written)]) == 1
    assert "already there" in capsys.readouterr().err
