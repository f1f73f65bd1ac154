"""AlpacaEval and Arena-Hard as the Hub has them, in small, and the files that their own tools read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inspo_hub.errors import DataError
from inspo_hub.evaluate.alpaca_eval import TablesSource
from inspo_hub.evaluate.benchmarks import Benchmark, model_answers, model_outputs, read_benchmark
from inspo_hub.evaluate.comparing import ARENA_SCORE, STYLE_CONTROLLED, Answers, Judged, adjusted_readings, opponents_of
from inspo_hub.evaluate.length_control import ALPACA_TABLES_LC, LENGTH_ADJUSTED
from inspo_hub.evaluate.prompts import prompts_from_rows
from inspo_hub.evaluate.verdicts import Verdicts
from inspo_hub.hub import bytes_hash
from inspo_hub.recipe.prompt_sets import PROMPT_SETS
from tests.evaluate.test_length_control import small_tables


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def arena(tmp_path: Path) -> Path:
    data = tmp_path / "data" / "arena-hard-v2.0"
    questions = [("q1", "hard_prompt"), ("q2", "creative_writing"), ("q3", "hard_prompt")]
    write_jsonl(data / "question.jsonl", [{"uid": q, "category": c, "prompt": f"Do {q}"} for q, c in questions])
    for model, said in (("o3-mini-2025-01-31", "o3"), ("gemini-2.0-flash-001", "gemini")):
        turns = [{"role": "user", "content": "Do it"}, {"role": "assistant", "content": {"answer": said}}]
        rows = [{"uid": uid, "model": model, "messages": turns} for uid, _ in reversed(questions)]
        write_jsonl(data / "model_answer" / f"{model}.jsonl", rows)
    return tmp_path


def test_arena_hard_competes_with_the_baseline_of_each_category(arena: Path) -> None:
    found = read_benchmark("arena_hard", arena, "x@1")
    assert [row["prompt"] for row in found.rows] == ["Do q1", "Do q2", "Do q3"]
    assert found.baseline_answers == ("o3", "gemini", "o3")
    assert found.baseline == "o3-mini-2025-01-31+gemini-2.0-flash-001"
    assert found.first(2).baseline_answers == ("o3", "gemini")
    assert found.is_arena


def test_exports_of_arena_hard_are_read_back_as_its_answers(arena: Path) -> None:
    found = read_benchmark("arena_hard", arena, "x@1")
    mine = arena / "data" / "arena-hard-v2.0" / "model_answer" / "o3-mini-2025-01-31.jsonl"
    write_jsonl(mine, model_answers("arena_hard", "mine", found.rows, ["a", "b", "c"], time=1.0))
    assert read_benchmark("arena_hard", arena, "x@1").baseline_answers == ("a", "gemini", "c")


def test_the_first_arena_hard_has_turns_and_choices(tmp_path: Path) -> None:
    data = tmp_path / "data" / "arena-hard-v0.1"
    write_jsonl(data / "question.jsonl", [{"question_id": "q", "category": "c", "turns": [{"content": "Do"}]}])
    found = model_answers("arena_hard_v0.1", "gpt-4-0314", [{"id": "q", "prompt": "Do"}], ["done"], time=1.0)
    write_jsonl(data / "model_answer" / "gpt-4-0314.jsonl", found)
    benchmark = read_benchmark("arena_hard_v0.1", tmp_path, "x@1")
    assert benchmark.baseline_answers == ("done",)
    assert benchmark.rows[0]["prompt"] == "Do"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"uid": "q9"}', "o3-mini-2025-01-31 has not answered question q9"),
        ("{", "cannot be read"),
        ("{}", "without uid"),
    ],
)
def test_files_of_another_form_are_refused(arena: Path, line: str, says: str) -> None:
    file = arena / PROMPT_SETS["arena_hard"].files[0]
    file.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_benchmark("arena_hard", arena, "x@1")


@pytest.fixture
def alpaca(tmp_path: Path) -> Benchmark:
    files = small_tables()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    source = TablesSource(sha256={name: bytes_hash(content).sha256 for name, content in files.items()})
    return read_benchmark("alpaca_eval", tmp_path, "x@1", source=source)


def test_alpaca_eval_brings_its_instructions_answers_and_tables(alpaca: Benchmark) -> None:
    assert [row["prompt"] for row in alpaca.rows] == [f"Do {number}" for number in range(6)]
    assert alpaca.baseline == "gpt4_1106_preview"
    assert alpaca.tables is not None
    outputs = model_outputs("mine", alpaca.rows[:1], ["an answer"])
    assert outputs == [{"instruction": "Do 0", "output": "an answer", "generator": "mine", "dataset": "d"}]


# --- readings


def judged_rows(rows: int, benchmark: Benchmark | None, opponent: str) -> tuple[Answers, Judged]:
    """Two systems and an opponent on prompts of the benchmark; the judge likes the longer answer."""
    rng = np.random.default_rng(0)
    asked = [f"Do {number % 6}" for number in range(rows)]
    prompts = [
        type(prompt)(prompt.messages, f"set/{number}")
        for number, prompt in enumerate(prompts_from_rows([{"prompt": text} for text in asked]))
    ]
    lengths = {"long": rng.integers(80, 120, rows), "short": rng.integers(20, 60, rows), opponent: [50] * rows}
    texts = {name: ["x" * int(length) for length in each] for name, each in lengths.items()}
    tokens = {name: [len(text) // 4 for text in each] for name, each in texts.items()}
    answers = Answers(prompts=prompts, texts=texts, tokens=tokens, opponents=[opponent])
    preferences = {}
    for first, second in answers.pairs:
        gap = np.asarray(lengths[first]) - np.asarray(lengths[second])
        values = 1 / (1 + np.exp(-gap / 20))
        values[:3] = np.nan
        nothing = np.full(rows, np.nan)
        preferences[first, second] = Verdicts(
            preferences=values, weights=np.ones(rows), first_shown=nothing, second_shown=nothing, games=rows
        )
    return answers, Judged(name="j", facts={}, scores=None, well_formed=None, preferences=preferences)


def test_readings_are_named_for_what_they_are(alpaca: Benchmark, arena: Path) -> None:
    answers, judged = judged_rows(150, alpaca, "gpt4_1106_preview")
    found = adjusted_readings(answers, judged, alpaca, resamples=10, seed=0)
    assert set(found["long", "gpt4_1106_preview"]) == {ALPACA_TABLES_LC}
    assert set(found["long", "short"]) == {f"difference against gpt4_1106_preview, {ALPACA_TABLES_LC}"}
    answers, judged = judged_rows(150, None, "base")
    elsewhere = adjusted_readings(answers, judged, None, resamples=10, seed=0)
    reading = elsewhere["long", "base"][LENGTH_ADJUSTED]
    assert reading.rows == 147
    assert judged.preferences is not None
    assert reading.value < float(np.nanmean(judged.preferences["long", "base"].preferences)) - 0.1
    benchmark = read_benchmark("arena_hard", arena, "x@1")
    answers, judged = judged_rows(150, None, benchmark.baseline)
    styled = adjusted_readings(answers, judged, benchmark, resamples=10, seed=0)
    assert set(styled["short", benchmark.baseline]) == {LENGTH_ADJUSTED, ARENA_SCORE, STYLE_CONTROLLED}
    assert styled["long", benchmark.baseline][ARENA_SCORE].level == 0.90


def test_too_few_rows_have_no_adjusted_reading() -> None:
    answers, judged = judged_rows(99, None, "base")
    assert adjusted_readings(answers, judged, None, resamples=10, seed=0)["long", "base"] == {}


def test_who_competes_with_whom(alpaca: Benchmark) -> None:
    systems = ["base", "dpo"]
    assert opponents_of("auto", systems, None, []) == ["base"]
    assert opponents_of("auto", systems, alpaca, []) == ["gpt4_1106_preview"]
    assert opponents_of("both", systems, alpaca, []) == ["gpt4_1106_preview", "base"]
    assert opponents_of("base", systems, alpaca, ["rival"]) == ["rival", "base"]
    assert opponents_of("auto", systems, None, ["rival"]) == ["rival"]
    assert opponents_of("auto", ["dpo"], None, []) == []
