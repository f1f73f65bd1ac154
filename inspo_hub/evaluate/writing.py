"""What an evaluation leaves on the disk: every answer, the comparison, and files for the official tools."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inspo_hub.evaluate.benchmarks import Benchmark, model_answers, model_outputs
from inspo_hub.evaluate.comparing import Answers, Judged
from inspo_hub.evaluate.result import EvaluationResult, SystemAnswers

if TYPE_CHECKING:
    from inspo_hub.evaluate.prompts import Prompt


def write_report(
    folder: Path,
    answers: Answers,
    systems: Mapping[str, SystemAnswers],
    samples: Sequence[int],
    judged: Judged,
    result: EvaluationResult,
    benchmark: Benchmark | None,
) -> None:
    """generations.jsonl, one prompt and sample per line with every system's answer; comparison.md and comparison.json.

    A benchmark's own answers are left where they are published: reports travel with models, and their license may not.
    `samples` is the number of each row's sample. Scores are null where the judge compares and does not score: then
    `preferences` has its verdicts, for the first of each pair, null where it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    theirs = None if benchmark is None else benchmark.baseline
    ours = {name: texts for name, texts in answers.texts.items() if name != theirs}
    lines = []
    for index, (prompt, sample) in enumerate(zip(answers.prompts, samples, strict=True)):
        row: dict[str, Any] = {
            "row_id": prompt.row_id,
            "sample": sample,
            "prompt": [dict(message) for message in prompt.messages],
            "responses": {name: texts[index] for name, texts in ours.items()},
            "scores": {name: None if each.scores is None else each.scores[index] for name, each in systems.items()},
            "tokens": {name: each.tokens[index] for name, each in systems.items()},
            "finished": {name: each.finished[index] for name, each in systems.items()},
        }
        if judged.preferences is not None:
            row["preferences"] = {
                f"{first} vs {second}": _number(verdicts.preferences[index])
                for (first, second), verdicts in judged.preferences.items()
            }
        lines.append(json.dumps(row, ensure_ascii=False))
    (folder / "generations.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "comparison.md").write_text(result.to_markdown(), encoding="utf-8")
    (folder / "comparison.json").write_text(result.to_json() + "\n", encoding="utf-8")


def _number(value: np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None


def write_exports(
    folder: Path, answers: Answers, samples: Sequence[int], prompts: Sequence[Prompt], benchmark: Benchmark | None
) -> None:
    """Each system's first samples: `model_outputs/<system>.json`, and for Arena-Hard `model_answer/<system>.jsonl`."""
    rows: Sequence[Mapping[str, Any]] = (
        benchmark.rows
        if benchmark is not None
        else [
            {"prompt": prompt.text, "id": prompt.row_id, "dataset": prompt.row_id.rpartition("/")[0]}
            for prompt in prompts
        ]
    )
    now = time.time()
    for name, texts in answers.texts.items():
        if benchmark is not None and name == benchmark.baseline:
            continue  # the official tools have it
        first = [text for text, sample in zip(texts, samples, strict=True) if sample == 0]
        outputs = folder / "model_outputs" / f"{_file_name(name)}.json"
        outputs.parent.mkdir(parents=True, exist_ok=True)
        outputs.write_text(
            json.dumps(model_outputs(name, rows, first), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        if benchmark is not None and benchmark.is_arena:
            path = folder / "model_answer" / f"{_file_name(name)}.jsonl"
            path.parent.mkdir(exist_ok=True)
            found = model_answers(benchmark.name, name, rows, first, time=now)
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")


def _file_name(system: str) -> str:
    return system.replace("/", "--")
