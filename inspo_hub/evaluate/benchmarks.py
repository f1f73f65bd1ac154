"""AlpacaEval 2 and Arena-Hard as prompt sets: what is asked, and the published answers to compete with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspo_hub.errors import DataError
from inspo_hub.evaluate.alpaca_eval import BASELINE, AlpacaEval, TablesSource, read_alpaca_eval
from inspo_hub.evaluate.arena import Version
from inspo_hub.recipe.prompt_sets import PROMPT_SETS

CREATIVE = "creative_writing"
ARENA_BASELINES: Mapping[str, Mapping[str, str]] = {
    "arena_hard": {"": "o3-mini-2025-01-31", CREATIVE: "gemini-2.0-flash-001"},
    "arena_hard_v0.1": {"": "gpt-4-0314"},
}
"""Benchmark -> category -> whose published answers are the baseline; the empty name is that of all other categories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One prompt set with its published answers, row by row."""

    name: str
    rows: tuple[Mapping[str, Any], ...]
    """`prompt`, and what its exports need: `id` and `dataset`."""
    baseline: str
    baseline_answers: tuple[str, ...]
    tables: AlpacaEval | None = None
    """AlpacaEval's difficulties and gamed rows."""

    @property
    def is_arena(self) -> bool:
        return self.name in ARENA_BASELINES

    @property
    def arena_version(self) -> Version:
        """Whose rules of Arena-Hard hold."""
        return "0.1" if self.name == "arena_hard_v0.1" else "2.0"

    def first(self, limit: int | None) -> Benchmark:
        """Its first rows."""
        if limit is None:
            return self
        return Benchmark(
            name=self.name,
            rows=self.rows[:limit],
            baseline=self.baseline,
            baseline_answers=self.baseline_answers[:limit],
            tables=self.tables,
        )


def read_benchmark(name: str, folder: Path, pinned: str, *, source: TablesSource | None = None) -> Benchmark:
    """The benchmark in the folder of its repository.

    Raises:
        ResolutionError: AlpacaEval's files are not those that its metric is defined by.
        DataError: the files have another form than that of the benchmark, or a baseline has not answered a question.
    """
    if name == "alpaca_eval":
        tables = read_alpaca_eval(folder, pinned, source)
        found = zip(tables.instructions, tables.datasets, strict=True)
        return Benchmark(
            name=name,
            rows=tuple({"prompt": text, "id": text, "dataset": dataset} for text, dataset in found),
            baseline=BASELINE,
            baseline_answers=tables.baseline_outputs,
            tables=tables,
        )
    return _read_arena(name, folder, pinned)


def _read_arena(name: str, folder: Path, pinned: str) -> Benchmark:
    questions_file = PROMPT_SETS[name].files[0]
    questions = _jsonl(folder / questions_file, pinned)
    by_category = ARENA_BASELINES[name]
    answers = {
        baseline: {
            _id(row, pinned): _answer(row, pinned)
            for row in _jsonl((folder / questions_file).parent / "model_answer" / f"{baseline}.jsonl", pinned)
        }
        for baseline in by_category.values()
    }
    rows, competing = [], []
    for question in questions:
        number, category = _id(question, pinned), str(question.get("category", ""))
        baseline = by_category.get(category, by_category[""])
        if number not in answers[baseline]:
            raise DataError(f"{baseline} has not answered question {number}", where=f"{pinned}, {name}")
        prompt = question["prompt"] if "prompt" in question else question["turns"][0]["content"]
        rows.append({"prompt": prompt, "id": number, "dataset": category})
        competing.append(answers[baseline][number])
    return Benchmark(
        name=name, rows=tuple(rows), baseline="+".join(by_category.values()), baseline_answers=tuple(competing)
    )


def _jsonl(path: Path, pinned: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path.name} cannot be read: {error}", where=pinned, expected="one JSON object per line"
        ) from error


def _id(row: Mapping[str, Any], pinned: str) -> str:
    found = row.get("uid", row.get("question_id"))
    if found is None:
        raise DataError("a row without uid or question_id", where=pinned, expected="Arena-Hard's files")
    return str(found)


def _answer(row: Mapping[str, Any], pinned: str) -> str:
    """The text of a published answer, in the form of v2.0 or of v0.1."""
    try:
        content = row["messages"][-1]["content"] if "messages" in row else row["choices"][0]["turns"][0]["content"]
        return str(content["answer"] if isinstance(content, Mapping) else content)
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"an answer of another form ({type(error).__name__}: {error})", where=pinned, expected="Arena-Hard's files"
        ) from error


def model_outputs(generator: str, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> list[dict[str, str]]:
    """AlpacaEval's `model_outputs.json`."""
    return [
        {"instruction": str(row["prompt"]), "output": answer, "generator": generator, "dataset": str(row["dataset"])}
        for row, answer in zip(rows, answers, strict=True)
    ]


def model_answers(
    benchmark: str, model: str, rows: Sequence[Mapping[str, Any]], answers: Sequence[str], *, time: float
) -> list[dict[str, Any]]:
    """Arena-Hard's `model_answer/<model>.jsonl`, in the form of its version; without the counts of style, which its own
    `add_markdown_info.py` adds by the tokenizer that they are defined by."""
    found: list[dict[str, Any]] = []
    for row, answer in zip(rows, answers, strict=True):
        if benchmark == "arena_hard_v0.1":
            choice = {"index": 0, "turns": [{"content": answer}]}
            found.append(
                {
                    "question_id": row["id"],
                    "answer_id": f"{model}-{row['id']}",
                    "model_id": model,
                    "choices": [choice],
                    "tstamp": time,
                }
            )
            continue
        turns = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": {"answer": answer}},
        ]
        found.append(
            {"uid": row["id"], "ans_id": f"{model}-{row['id']}", "model": model, "messages": turns, "tstamp": time}
        )
    return found
