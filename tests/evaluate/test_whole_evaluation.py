"""Generation, a judge behind an address, comparison and files in one, on the quickstart's base and a moved copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import inspo_hub.evaluate.generation as generation
from inspo_hub.errors import JudgeError, RecipeError
from inspo_hub.evaluate import EvaluationResult, evaluate_variants
from inspo_hub.evaluate.benchmarks import Benchmark
from inspo_hub.recipe import EvaluateSection
from tests.evaluate.chat_server import ChatServer
from tests.hub_server import HubServer

PROMPTS = 5


def opinion(question: str) -> float:
    """P(A) by a rule of no bias: the answer with more letters `e`."""
    answers = [question.split(f"<answer_{label}>\n")[1].split(f"\n</answer_{label}>")[0] for label in "AB"]
    first, second = (answer.count("e") for answer in answers)
    return 0.5 + 0.4 * ((first > second) - (first < second))


@pytest.fixture
def server(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "inspo_cache"))
    with ChatServer(opinion) as running:
        yield running


def section(server: ChatServer, **changed: Any) -> EvaluateSection:
    plain = {
        "prompts": {"id": "prompts.jsonl"},
        "judge": {"endpoint": {"model": "judge-1", "base_url": server.url, "attempts": 1}},
        "max_new_tokens": 24,
        "limit": PROMPTS,
        "bootstrap": 50,
        "batch_size": 2,
    }
    return EvaluateSection.model_validate(plain | changed)


def run(quickstart: Path, folder: Path, output: Path, settings: EvaluateSection, **more: Any) -> EvaluationResult:
    return evaluate_variants(
        settings, quickstart / "base", {"moved": folder}, quickstart / "base", output, {}, folder=quickstart,
        device="cpu", seed=5, **more,
    )  # fmt: skip


def test_a_cut_run_goes_on_without_an_answer_or_a_call_made_twice(
    quickstart: Path,
    moved: Path,
    server: ChatServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches: list[int] = []
    original = generation._generate_batch

    def counted(*arguments: Any) -> list[list[int]]:
        batches.append(len(arguments[2]))
        if len(batches) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(generation, "_generate_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        run(quickstart, moved, tmp_path / "out", section(server))
    server.faults.append("401")
    with pytest.raises(JudgeError, match="does not judge"):
        run(quickstart, moved, tmp_path / "out", section(server))
    generated = sum(batches) - 2  # the batch that was cut off made nothing
    assert generated == 2 * PROMPTS
    result = run(quickstart, moved, tmp_path / "out", section(server))
    assert sum(batches) - 2 == generated
    assert len(server.questions) == len(set(server.questions)) + 1, "the one that was refused, and no other"
    whole = run(quickstart, moved, tmp_path / "whole", section(server))
    assert result.to_dict()["comparisons"] == whole.to_dict()["comparisons"]
    pair = result.comparison("moved", "base")
    assert pair.judging["games"] + 2 * pair.judging["ties"] == 2 * PROMPTS
    assert pair.judging["games"] == len(set(server.questions))
    assert pair.judging["flip_rate"] == 0.0
    assert pair.score_difference is None
    assert result.judging["model"] == "judge-1"


def test_files_of_a_judge_that_compares(
    quickstart: Path,
    moved: Path,
    server: ChatServer,
    tmp_path: Path,
) -> None:
    result = run(quickstart, moved, tmp_path, section(server, samples_per_prompt=2))
    report = tmp_path / "report"
    rows = [json.loads(line) for line in (report / "generations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2 * PROMPTS
    assert list(rows[0]) == ["row_id", "sample", "prompt", "responses", "scores", "tokens", "finished", "preferences"]
    assert rows[0]["scores"] == {"base": None, "moved": None}
    mean = sum(row["preferences"]["moved vs base"] for row in rows) / len(rows)
    assert mean == pytest.approx(result.comparison("moved", "base").win_rate.value)
    outputs = json.loads((report / "model_outputs" / "moved.json").read_text(encoding="utf-8"))
    assert [set(row) for row in outputs] == [{"instruction", "output", "generator", "dataset"}] * PROMPTS
    assert outputs[1]["output"] == rows[2]["responses"]["moved"]
    games = result.comparison("moved", "base").judging["games"]
    assert f"The judge decided {games} comparisons, {games} by probabilities" in result.to_markdown()
    assert json.loads((report / "comparison.json").read_text(encoding="utf-8"))["opponents"] == ["base"]


def test_a_benchmark_is_competed_with(
    quickstart: Path,
    moved: Path,
    server: ChatServer,
    tmp_path: Path,
) -> None:
    lines = (quickstart / "prompts.jsonl").read_text(encoding="utf-8").splitlines()[:PROMPTS]
    rows = tuple({"prompt": _words(json.loads(line)), "id": str(n), "dataset": "d"} for n, line in enumerate(lines))
    benchmark = Benchmark(name="arena_hard", rows=rows, baseline="strong", baseline_answers=("eeee",) * PROMPTS)
    result = run(quickstart, moved, tmp_path, section(server), benchmark=benchmark)
    assert [(pair.first, pair.second) for pair in result.comparisons] == [("base", "strong"), ("moved", "strong")]
    assert result.system("moved").win_rate_against_base is None
    assert result.system("moved").kl_from_base is not None
    answers = (tmp_path / "report" / "model_answer" / "moved.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["uid"] for line in answers] == [str(number) for number in range(PROMPTS)]
    assert not (tmp_path / "report" / "model_answer" / "strong.jsonl").exists()
    written = (tmp_path / "report" / "generations.jsonl").read_text(encoding="utf-8").splitlines()
    assert set(json.loads(written[0])["responses"]) == {"base", "moved"}, (
        "the benchmark's texts are not ours to pass on"
    )


def _words(row: dict[str, Any]) -> str:
    prompt = row["prompt"]
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def test_without_a_base_somebody_must_be_named(
    quickstart: Path,
    moved: Path,
    server: ChatServer,
    tmp_path: Path,
) -> None:
    def alone(**more: Any) -> EvaluationResult:
        return evaluate_variants(
            section(server), None, {"moved": moved}, quickstart / "base", tmp_path, {}, folder=quickstart,
            device="cpu", **more,
        )  # fmt: skip

    with pytest.raises(RecipeError, match=r"nobody to compare with[\s\S]*--against"):
        alone()
    result = alone(rivals={"other": ["e"] * PROMPTS})
    assert [(pair.first, pair.second) for pair in result.comparisons] == [("moved", "other")]
    assert result.system("moved").kl_from_base is None
    with pytest.raises(RecipeError, match="two systems called 'moved'"):
        alone(rivals={"moved": ["e"] * PROMPTS})
