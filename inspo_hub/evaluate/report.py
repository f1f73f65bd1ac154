"""An EvaluationResult as tables: Markdown for cards and files, aligned text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from inspo_hub.evaluate.result import BASE, Comparison, EvaluationResult, SystemResult
from inspo_hub.evaluate.scores import Estimate

NOTHING = "–"
# Numbers of training that a summary usually holds -> the table's heading; others keep their name with spaces.
TRAINING_HEADINGS = {
    "plain_margin": "plain margin",
    "plain_accuracy": "plain accuracy",
    "conditioned_margin": "conditioned margin",
    "distillation_gap": "distillation gap",
    "tokens_per_step": "tokens/step",
    "seconds_per_step": "seconds/step",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A titled grid of cells; the first column is text, the others are right-aligned."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(result: EvaluationResult) -> list[Table]:
    """The systems, the systems head to head, and what training said, in the order people read them."""
    found = [_systems_table(result)]
    if result.comparisons:
        found.append(_comparisons_table(result))
    if any(pair.adjusted for pair in result.comparisons):
        found.append(_adjusted_table(result))
    if result.training:
        found.append(_training_table(result))
    return found


def to_markdown(result: EvaluationResult) -> str:
    """The tables as Markdown with a sentence on how they were made."""
    parts = []
    for table in tables(result):
        lines = [
            "| " + " | ".join(table.columns) + " |",
            "|" + "|".join(["---"] + ["---:"] * (len(table.columns) - 1)) + "|",
            *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows),
        ]
        parts.append(f"**{table.title}**\n\n" + "\n".join(lines))
    return "\n\n".join([*parts, method(result)]) + "\n"


def to_text(result: EvaluationResult) -> str:
    """The same for a terminal, columns aligned with spaces."""
    parts = []
    for table in tables(result):
        grid = [list(table.columns), *(list(row) for row in table.rows)]
        widths = [max(len(row[column]) for row in grid) for column in range(len(table.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in grid
        ]
        parts.append("\n".join([table.title, *lines]))
    return "\n\n".join([*parts, method(result)]) + "\n"


def method(result: EvaluationResult) -> str:
    """How the numbers were made, in one paragraph."""
    settings = result.settings
    temperature = settings.get("temperature")
    drawn = "greedy answers" if temperature == 0 else f"answers sampled at temperature {temperature}"
    samples = settings.get("samples_per_prompt", 1)
    times = f", {samples} per prompt" if samples != 1 else ""
    return (
        f"{result.prompts} prompts, {drawn}{times}, judged by `{result.judge}`; ties count half. "
        f"Intervals are {settings['interval']:.0%} bootstrap intervals over prompts "
        f"({settings['bootstrap']} resamplings), paired where two systems are compared; "
        "“no difference” means that the interval holds it, not that there is none. "
        "KL is the mean of log π(y|x) − log π_base(y|x) over a system's own samples, ± standard error."
        + judging(result)
    )


def judging(result: EvaluationResult) -> str:
    """How a judge of pairs went, in words; nothing for one that scores."""
    told = [pair.judging for pair in result.comparisons if pair.judging]
    games = sum(each["games"] for each in told)
    if not games:
        return ""
    said = [f" The judge decided {games} comparisons, {sum(each['weighted'] for each in told)} by probabilities"]
    said.append(f"{sum(each['ties'] for each in told)} pairs of equal answers are half")
    said.append(f"{sum(each['failed'] for each in told)} rows without a verdict are left out")
    flips = [each["flip_rate"] for each in told if each["flip_rate"] is not None]
    if flips:
        said.append(f"{sum(flips) / len(flips):.1%} of the winners change with the order of the answers")
    cost = result.judging.get("usd")
    return "; ".join(said) + (f"; it cost {cost:.2f} $." if cost else ".")


def _systems_table(result: EvaluationResult) -> Table:
    judged = any(system.well_formed is not None for system in result.systems)
    columns = [
        "system",
        f"win rate vs {result.opponents[0]}",
        "KL from base (nats)",
        "judge's score",
        "tokens",
        "finished",
    ]
    if judged:
        columns.insert(4, "well-formed")
    title = "Against the base" if result.opponents[0] == BASE else f"Against {result.opponents[0]}"
    return Table(title, columns, [_system_row(result, system, judged) for system in result.systems])


def _system_row(result: EvaluationResult, system: SystemResult, judged: bool) -> list[str]:
    row = [
        system.name,
        _share(result.win_rate(system.name, result.opponents[0])),
        _with_error(system.kl_from_base),
        _with_error(system.score),
        f"{system.mean_tokens:.1f}",
        f"{system.finished:.1%}",
    ]
    if judged:
        row.insert(4, NOTHING if system.well_formed is None else f"{system.well_formed:.1%}")
    return row


def _comparisons_table(result: EvaluationResult) -> Table:
    columns = [
        "head to head",
        "win rate",
        "score difference",
        f"difference of win rates vs {result.opponents[0]}",
        "so",
    ]
    rows = [
        [
            f"{pair.first} vs {pair.second}",
            _share(pair.win_rate),
            _interval(pair.score_difference, "{:+.2f}"),
            _win_rate_difference(pair),
            pair.verdict,
        ]
        for pair in result.comparisons
    ]
    return Table("Head to head", columns, rows)


def _adjusted_table(result: EvaluationResult) -> Table:
    rows = [
        [f"{pair.first} vs {pair.second}", _interval(estimate, "{:+.1%}" if "difference" in label else "{:.1%}"), label]
        for pair in result.comparisons
        for label, estimate in pair.adjusted.items()
    ]
    return Table("Length and style taken out", ["reading", "value", "of"], rows)


def _win_rate_difference(pair: Comparison) -> str:
    estimate = pair.win_rate_difference
    if estimate is None:
        return NOTHING
    return _interval(estimate, "{:+.1%}") + ("" if estimate.excludes(0.0) else ": no difference")


def _training_table(result: EvaluationResult) -> Table:
    names = [system.name for system in result.systems if system.name != BASE and system.name in result.training]
    found = {key for name in names for key in result.training[name]}
    keys = [key for key in TRAINING_HEADINGS if key in found] + sorted(found - TRAINING_HEADINGS.keys())
    columns = ["training", *(TRAINING_HEADINGS.get(key, key.replace("_", " ")) for key in keys)]
    rows = [[name, *(_number(result.training[name].get(key)) for key in keys)] for name in names]
    return Table("What training said", columns, rows)


def _share(estimate: Estimate | None) -> str:
    return _interval(estimate, "{:.1%}")


def _interval(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return NOTHING
    return f"{form.format(estimate.value)} [{form.format(estimate.low)}, {form.format(estimate.high)}]"


def _with_error(estimate: Estimate | None) -> str:
    if estimate is None:
        return NOTHING
    error = "" if math.isnan(estimate.standard_error) else f" ± {estimate.standard_error:.2f}"
    return f"{estimate.value:.2f}{error}"


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
