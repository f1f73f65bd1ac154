"""What a user gets for a run that cannot work: one message, where, how to fix it, the exit code, and no debris."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.cli import main
from tests.training.conftest import Project, make_rows, write_rows


@pytest.fixture
def copy(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the project that a test may break, in this process."""
    shutil.copytree(project.folder, tmp_path / "project")
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "cache"))
    return Project(tmp_path / "project")


def fail(project: Project, capsys: pytest.CaptureFixture[str], exit_code: int, *arguments: str) -> str:
    """Runs the recipe, expects the exit code and no result, and returns what was said."""
    output = project.folder / "out"
    assert main(["run", str(project.recipe), "--output", str(output), *arguments]) == exit_code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert not list(output.rglob("trained.json"))
    assert not (output / "model.safetensors").exists()
    return said


def test_a_typo_names_file_line_and_the_nearest_key(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    copy.recipe.write_text(copy.recipe.read_text().replace("log_every:", "log_evry:"), encoding="utf-8")
    said = fail(copy, capsys, 2)
    assert "recipe.yaml:11: train.log_evry" in said
    assert "log_every" in said


def test_an_empty_data_set(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (copy.folder / "train.jsonl").write_text("", encoding="utf-8")
    assert "train.jsonl" in fail(copy, capsys, 2)


def test_every_row_dropped_says_how_many_and_why(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "a", "chosen": "same", "rejected": "same"}, {"prompt": "b", "chosen": "", "rejected": "x"}]
    write_rows(copy.folder / "train.jsonl", rows)
    said = fail(copy, capsys, 2)
    assert "of 2 rows" in said
    assert "identical" in said
    assert "empty_chosen" in said


def test_over_long_rows_with_on_overlong_error_name_their_rows(
    copy: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    row = make_rows(1)[0] | {"chosen": "on and on " * 200}
    write_rows(copy.folder / "train.jsonl", [*make_rows(3), row])
    assert "train.jsonl/train/3" in fail(copy, capsys, 2, "--set", "data.on_overlong=error")


def test_a_tokenizer_of_another_model(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(copy.folder / "base")
    model.resize_token_embeddings(100)
    model.save_pretrained(copy.folder / "base")
    said = fail(copy, capsys, 2)
    assert "no row in the model's embedding of 100 rows" in said


def test_a_model_without_chat_template_where_a_turn_needs_one(
    copy: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy.folder / "base" / "chat_template.jinja").unlink()
    said = fail(copy, capsys, 2)
    assert "chat template" in said
    assert "alternative.format: concat" in said


def test_a_base_model_that_is_not_there(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy.folder / "base")
    assert "base" in fail(copy, capsys, 2)


def test_a_base_model_with_pickled_weights_only(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (copy.folder / "base" / "model.safetensors").rename(copy.folder / "base" / "pytorch_model.bin")
    assert "safetensors" in fail(copy, capsys, 3)


def test_a_broken_weights_file(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    weights = copy.folder / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "no causal language model could be loaded" in fail(copy, capsys, 3)


def test_a_diverging_run_stops_with_its_rows_and_no_model(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    said = fail(copy, capsys, 4, "--set", "train.lr=1e30", "--set", "train.max_grad_norm=null")
    assert "not finite" in said
    assert "train.jsonl/train/" in said
    assert "train.lr" in said


def test_weights_that_a_gradient_spoiled_are_never_saved(
    copy: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every loss is finite, and the gradient of the fourth step is not: step 2 stays the last checkpoint."""
    from inspo_hub.training.trainer import PreferenceTrainer

    step = PreferenceTrainer.training_step

    def spoiled(self: PreferenceTrainer, model: Any, inputs: Any, *arguments: Any) -> Any:
        loss = step(self, model, inputs, *arguments)
        if self.state.global_step == 3:
            next(model.parameters()).grad.view(-1)[0] = float("inf")
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(PreferenceTrainer, "training_step", spoiled)
        said = fail(copy, capsys, 4, "--set", "train.save_every=2")
    assert "weights are not finite after step 4" in said
    assert "train.lr" in said
    checkpoints = sorted(path.name for path in (copy.folder / "out" / "checkpoints").glob("checkpoint-*"))
    assert checkpoints == ["checkpoint-2"]


def test_errors_as_one_json_object(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (copy.folder / "train.jsonl").write_text("", encoding="utf-8")
    assert main(["run", str(copy.recipe), "--output", str(copy.folder / "out"), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["exit_code"] == 2


def test_a_second_run_in_the_same_folder_is_refused(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    from inspo_hub.workflow import _only_run_in

    with _only_run_in(copy.folder / "out"):
        said = fail(copy, capsys, 2)
    assert "another run is working in this output folder" in said
    assert "--output" in said
    assert not (copy.folder / "out").exists(), "nothing was touched"
    with _only_run_in(copy.folder / "out"):
        pass  # let go of


def test_an_output_that_is_a_file(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (copy.folder / "out").write_text("mine", encoding="utf-8")
    said = fail(copy, capsys, 2)
    assert "out is no folder that this user may write to" in said
    assert "--output" in said
    assert (copy.folder / "out").read_text(encoding="utf-8") == "mine"


def test_paths_beyond_a_table_of_positions(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=64, n_embd=16, n_layer=1, n_head=2)).save_pretrained(
        copy.folder / "base"
    )
    said = fail(copy, capsys, 2)
    assert "tokens, and the model has 64 positions" in said
    assert "data.max_length" in said


def test_paths_beyond_what_a_rotary_model_was_made_for_are_warned_of(
    copy: Project, caplog: pytest.LogCaptureFixture
) -> None:
    config = json.loads((copy.folder / "base" / "config.json").read_text(encoding="utf-8"))
    (copy.folder / "base" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    for length, warned in ((64, False), (256, True)):
        caplog.clear()
        settings = ["train.max_steps=1", f"data.max_length={length}"]
        arguments = [part for setting in settings for part in ("--set", setting)]
        assert main(["run", str(copy.recipe), "--output", str(copy.folder / str(length)), *arguments]) == 0
        assert ("and the model has 64 positions" in caplog.text) is warned


def test_sigterm_before_the_first_step_is_an_interruption(
    copy: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("inspo_hub.preparation.prepare_jobs", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["run", str(copy.recipe), "--output", str(copy.folder / "out")]) == 130
    assert "the same command goes on from what is done" in caplog.text
    assert signal.getsignal(signal.SIGTERM) is before
