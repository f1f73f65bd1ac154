"""AlpacaEval 2: its 805 instructions, baseline answers and tables from the Hub, and a row of its leaderboard.

The tables are fetched when they are needed and checked against the hashes below; nothing of them is part of this
package (they are CC BY-NC 4.0).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inspo_hub import hub
from inspo_hub.errors import DataError, ResolutionError
from inspo_hub.evaluate.length_control import GamedRows, LengthControlled, length_controlled
from inspo_hub.evaluate.logistic import Floats
from inspo_hub.recipe.prompt_sets import PROMPT_SETS

BASELINE = "gpt4_1106_preview"
OUTPUTS, DIFFICULTY, GAMED = "alpaca_eval_gpt4_baseline.json", "instruction_difficulty.csv", "df_gamed.csv"

Key = Literal["instruction", "position"]
"""How a row finds its difficulty. AlpacaEval looks at its position among the rows that were judged, so that after a
failed one every difficulty is that of another instruction; published numbers contain that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesSource:
    """Where AlpacaEval's files are, and the SHA-256 of each."""

    id: str = PROMPT_SETS["alpaca_eval"].id
    revision: str = PROMPT_SETS["alpaca_eval"].revision or ""
    sha256: Mapping[str, str] = field(
        default_factory=lambda: {
            OUTPUTS: "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4",
            DIFFICULTY: "e28d875bb334f75e17acd1e4ed659b261860e3db379cf5de29060301bed0a18b",
            GAMED: "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d",
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlpacaEval:
    """The benchmark's own numbers, in the order of its instructions."""

    instructions: tuple[str, ...]
    baseline_outputs: tuple[str, ...]
    datasets: tuple[str, ...]
    """The source of each instruction, as AlpacaEval names it."""
    difficulties: Floats
    gamed: GamedRows
    pinned: str
    """`id@commit` that they came from."""

    def difficulty(self, instructions: Sequence[str], *, key: Key = "instruction") -> Floats:
        """The difficulty of each of these instructions, `(rows,)`."""
        if key == "position":
            return self.difficulties[: len(instructions)]
        number = {instruction: index for index, instruction in enumerate(self.instructions)}
        unknown = next((each for each in instructions if each not in number), None)
        if unknown is not None:
            raise DataError(
                f"{unknown[:80]!r} is no instruction of AlpacaEval",
                where=self.pinned,
                expected=f"one of its {len(number)} instructions, word for word",
                fix="on other prompts there is a length-adjusted win rate, without AlpacaEval's tables",
            )
        return self.difficulties[[number[each] for each in instructions]]


def load_alpaca_eval(source: TablesSource | None = None) -> AlpacaEval:
    """Fetches the benchmark from the Hub, or takes it from the cache.

    Raises:
        ResolutionError: it cannot be reached, or its files are not those that the metric is defined by.
    """
    source = source or TablesSource()
    pinned = hub.resolve("dataset", source.id, source.revision, known_sha=source.revision)
    return read_alpaca_eval(hub.fetch(pinned, patterns=list(source.sha256)), str(pinned), source)


def read_alpaca_eval(folder: Path, pinned: str, source: TablesSource | None = None) -> AlpacaEval:
    """The benchmark in a folder, where its files are the ones that the metric is defined by."""
    source = source or TablesSource()
    for name, expected in source.sha256.items():
        found = hub.file_hash(folder / name).sha256
        if found != expected:
            raise ResolutionError(
                f"{name} has SHA-256 {found}",
                where=f"dataset {pinned}",
                expected=f"{expected}: the file that the metric is defined by",
                fix="check HF_ENDPOINT and the cache; other tables make another metric",
            )
    return _read(folder, pinned)


def _read(folder: Path, pinned: str) -> AlpacaEval:
    outputs = json.loads((folder / OUTPUTS).read_text(encoding="utf-8"))
    with (folder / DIFFICULTY).open(encoding="utf-8", newline="") as file:
        difficulties = np.array([float(row[-1]) for row in list(csv.reader(file))[1:]])
    with (folder / GAMED).open(encoding="utf-8", newline="") as file:
        gamed = list(csv.DictReader(file))
    if len(outputs) != len(difficulties):
        raise DataError(f"{len(outputs)} instructions and {len(difficulties)} difficulties", where=pinned)

    def column(name: str) -> Floats:
        return np.array([float(row[name]) for row in gamed])

    return AlpacaEval(
        instructions=tuple(row["instruction"] for row in outputs),
        baseline_outputs=tuple(row["output"] for row in outputs),
        datasets=tuple(str(row.get("dataset", "")) for row in outputs),
        difficulties=difficulties,
        gamed=GamedRows(
            length_difference=column("std_delta_len"),
            difficulty=column("instruction_difficulty"),
            preference=column("preference"),
        ),
        pinned=pinned,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderboardRow:
    """What AlpacaEval 2 publishes of a model, in per cent."""

    win_rate: float
    standard_error: float
    discrete_win_rate: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    length_controlled_winrate: float
    lc_standard_error: float
    fit: LengthControlled | None
    """None where the model is as long as the baseline everywhere: the controlled win rate is the raw one then."""


def leaderboard_row(
    annotations: Sequence[Mapping[str, Any]],
    tables: AlpacaEval,
    *,
    key: Key = "instruction",
    strength: float | None = None,
) -> LeaderboardRow:
    """The row of a model from AlpacaEval's own `annotations.json`, whose output_1 is the baseline's.

    Args:
        key: `position` reproduces published numbers where rows were dropped.
        strength: of the regression; None: chosen by cross-validation.
    """
    judged = [row for row in annotations if _is_preference(row.get("preference"))]
    if len(judged) < 2:
        raise DataError(f"{len(judged)} judged rows", where="annotations", expected="rows with a preference in [1, 2]")
    return score_rows(
        [float(row["preference"] or 1.5) - 1 for row in judged],
        [len(row["output_2"]) for row in judged],
        [len(row["output_1"]) for row in judged],
        tables.difficulty([row["instruction"] for row in judged], key=key),
        tables.gamed,
        strength=strength,
    )


def _is_preference(value: object) -> bool:
    return isinstance(value, int | float) and (1 <= value <= 2 or value == 0)


def score_rows(
    preferences: Sequence[float] | Floats,
    lengths: Sequence[int] | Floats,
    baseline_lengths: Sequence[int] | Floats,
    difficulty: Floats,
    gamed: GamedRows,
    *,
    strength: float | None = None,
) -> LeaderboardRow:
    """The same from arrays: preferences for the model in [0, 1], 0.5 a draw, and lengths in characters."""
    q = np.asarray(preferences, dtype=np.float64)
    fit = length_controlled(q, lengths, baseline_lengths, difficulty=difficulty, gamed=gamed, strength=strength)
    raw, error = 100 * float(q.mean()), 100 * float(q.std(ddof=1)) / math.sqrt(len(q))
    return LeaderboardRow(
        win_rate=raw,
        standard_error=error,
        discrete_win_rate=100 * float((0.5 + 0.5 * np.sign(q - 0.5)).mean()),
        n_wins=int((q > 0.5).sum()),
        n_wins_base=int((q < 0.5).sum()),
        n_draws=int((q == 0.5).sum()),
        n_total=len(q),
        length_controlled_winrate=raw if fit is None else 100 * fit.value,
        lc_standard_error=error if fit is None else 100 * fit.standard_error,
        fit=fit,
    )
