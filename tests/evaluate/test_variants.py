"""An `evaluate:` section carried out on the quickstart's base and a copy of it that was moved a little."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inspo_hub.errors import RecipeError
from inspo_hub.evaluate import EvaluationResult, evaluate_variants
from inspo_hub.recipe import JudgeSection


@dataclass(frozen=True)
class Prompts:
    id: str = "prompts.jsonl"
    column: str = "prompt"


@dataclass(frozen=True)
class Section:
    prompts: Prompts = field(default_factory=Prompts)
    judge: JudgeSection = field(default_factory=lambda: JudgeSection(python="judge.py:score"))
    against: str = "auto"
    batch_size: int = 128
    max_new_tokens: int = 96
    temperature: float = 1.0
    top_p: float = 1.0
    samples_per_prompt: int = 2
    limit: int | None = 6
    bootstrap: int = 200


def evaluate(quickstart: Path, variants: dict[str, Path], output: Path, section: Section) -> EvaluationResult:
    return evaluate_variants(
        section, quickstart / "base", variants, quickstart / "base", output, {}, folder=quickstart, device="cpu", seed=5
    )


def test_a_variant_equal_to_the_base_ties_everywhere(quickstart: Path, moved: Path, tmp_path: Path) -> None:
    result = evaluate(quickstart, {"same": quickstart / "base", "moved": moved}, tmp_path, Section())
    same, other = result.system("same"), result.system("moved")
    assert same.win_rate_against_base is not None
    assert same.win_rate_against_base.value == 0.5
    assert same.kl_from_base is not None
    assert same.kl_from_base.value == pytest.approx(0.0, abs=1e-5)
    assert result.comparison("same", "base").verdict == "no difference"
    assert other.kl_from_base is not None
    assert other.kl_from_base.value > 0.5
    assert result.prompts == 6
    assert same.score.rows == 12
    assert same.score.clusters == 6


def test_files_hold_every_answer_and_the_comparison(quickstart: Path, moved: Path, tmp_path: Path) -> None:
    result = evaluate(quickstart, {"moved": moved}, tmp_path, Section(samples_per_prompt=1))
    report = tmp_path / "report"
    rows = [json.loads(line) for line in (report / "generations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["row_id"] for row in rows] == [f"prompts.jsonl/{number}" for number in range(6)]
    assert set(rows[0]["responses"]) == {"base", "moved"}
    assert rows[0]["prompt"][0]["role"] == "user"
    scores = [row["scores"]["moved"] for row in rows]
    assert sum(scores) / 6 == pytest.approx(result.system("moved").score.value)
    assert (report / "comparison.md").read_text(encoding="utf-8") == result.to_markdown()
    assert json.loads((report / "comparison.json").read_text(encoding="utf-8"))["prompts"] == 6


def test_kl_is_measured_on_plain_samples_whatever_is_judged(quickstart: Path, moved: Path, tmp_path: Path) -> None:
    sampled = evaluate(quickstart, {"moved": moved}, tmp_path, Section(limit=4))
    greedy = evaluate(quickstart, {"moved": moved}, tmp_path, Section(limit=4, temperature=0.0))
    assert greedy.system("moved").kl_from_base == sampled.system("moved").kl_from_base
    assert greedy.system("moved").score != sampled.system("moved").score
    assert not math.isnan(greedy.system("base").score.standard_error)


def test_rows_that_somebody_read_take_the_files_place(quickstart: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Describe the owl for a child. Be brief."}]
    section = Section(prompts=Prompts(id="somebody/prompts"), samples_per_prompt=1)
    result = evaluate_variants(
        section, quickstart / "base", {}, quickstart / "base", tmp_path, {}, folder=quickstart, rows=rows, device="cpu"
    )
    assert result.prompts == 1
    assert "somebody/prompts/0" in (tmp_path / "report" / "generations.jsonl").read_text(encoding="utf-8")


def test_a_variant_may_not_be_called_base(quickstart: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="called 'base'"):
        evaluate(quickstart, {"base": quickstart / "base"}, tmp_path, Section())


def test_scores_and_results_import_no_torch() -> None:
    code = (
        "import sys, inspo_hub.evaluate, inspo_hub.evaluate.scores, inspo_hub.evaluate.result, "
        "inspo_hub.evaluate.report, inspo_hub.evaluate.judge, inspo_hub.evaluate.prompts; "
        "heavy = {'torch', 'transformers', 'datasets', 'huggingface_hub', 'scipy'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_are_what_they_say() -> None:
    import inspo_hub.evaluate as room

    for name in room.__all__:
        assert getattr(room, name).__name__ == name
    assert sorted(room.__all__) == room.__all__
