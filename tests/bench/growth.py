"""How a step grows with its pairs, their length and their shape: measured seconds and bytes, and what arithmetic says.

python -m tests.bench --preset growth --json growth.json                   # --no-memory leaves two of the charts out
python -m tests.bench.growth growth.json --output docs/speed-growth.svg    # the picture of docs/speed.md
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inspo_hub.card.curves import Chart, Series, chart_grid
from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.cost import pair_flops
from tests.bench.case import Case

_BASE = Case(shape="1m", pairs=4, max_length=1024, lengths="filled_60")
PAIRS = (1, 2, 4, 8)
MAX_LENGTHS = (256, 512, 1024, 2048)
SHARES = (20, 60, 95)


def _case(**changes: Any) -> Case:
    values = _BASE.to_json() | changes
    return Case(**values | {"batch": min(4, values["pairs"])})


BY_PAIRS = tuple(_case(pairs=pairs, max_length=512) for pairs in PAIRS)
BY_LENGTH = tuple(_case(max_length=length, pairs=2) for length in MAX_LENGTHS)
BY_SHARE = tuple(_case(lengths=f"filled_{share}") for share in SHARES)
CASES = tuple(dict.fromkeys((*BY_PAIRS, *BY_LENGTH, *BY_SHARE)))
SIDES = ("none", "symmetric", "trl")


def step_flops(result: dict[str, Any], side: str) -> float:
    """FLOPs of a side's step; TRL's as its padded tokens times three passes of the policy and one of the reference."""
    case = Case(**result["case"])
    shape = case.model.cost
    if side != "trl":
        scores = CONDITIONINGS[side]().scores
        pairs = (pair_flops(shape, row, scores=scores, head_recomputed=False) for row in result["lengths"])
        return float(sum(each.total for each in pairs))
    total = 0.0
    for first in range(0, len(result["lengths"]), case.batch):
        rows = result["lengths"][first : first + case.batch]
        longest = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in rows)
        padded = pair_flops(shape, (0, longest, 1), scores=("chosen",), training=False).total
        total += 2 * len(rows) * padded * (3 + 1)
    return total


def charts(results: Sequence[dict[str, Any]]) -> list[Chart]:
    """Seconds and peak memory by pairs and by length; the symmetric step against the others by the shape of pairs."""
    found = {json.dumps(result["case"], sort_keys=True): result for result in results}

    def of(cases: Sequence[Case]) -> list[dict[str, Any]]:
        return [found[key] for case in cases if (key := json.dumps(case.to_json(), sort_keys=True)) in found]

    pairs, lengths, shares = of(BY_PAIRS), of(BY_LENGTH), of(BY_SHARE)
    drawn = [
        _seconds(pairs, "pairs of a step", lambda case: case["pairs"]),
        _memory(pairs, "pairs of a step", lambda case: case["pairs"]),
        _seconds(lengths, "tokens of prompt and response (MaxLen)", lambda case: case["max_length"]),
        _memory(lengths, "tokens of prompt and response (MaxLen)", lambda case: case["max_length"]),
        *(_ratios(shares, other) for other in ("none", "trl")),
    ]
    return [chart for chart in drawn if any(series.points for series in chart.series)]  # --no-memory leaves some empty


Abscissa = Callable[[dict[str, Any]], float]


def _taken(result: dict[str, Any], side: str) -> float:
    return statistics.median(result["sides"][side]["cpu" if result["clock"] == "cpu" else "wall"])


def _seconds(results: Sequence[dict[str, Any]], label: str, at: Abscissa) -> Chart:
    """One rate for all sides and sizes: where a curve leaves its prediction, it is something else than FLOPs."""
    rate = statistics.median(step_flops(result, "symmetric") / _taken(result, "symmetric") for result in results)
    series = [Series(name=s, points=[(at(r["case"]), _taken(r, s)) for r in results]) for s in SIDES]
    predicted = [(at(r["case"]), step_flops(r, "symmetric") / rate) for r in results]
    series.append(Series(name="symmetric, by its FLOPs", points=predicted))
    return Chart(title=f"Step by {label.partition(' ')[0]}", x_label=label, y_label="seconds", series=series)


def _memory(results: Sequence[dict[str, Any]], label: str, at: Abscissa) -> Chart:
    def megabytes(side: str) -> list[tuple[float, float]]:
        peaks = ((at(r["case"]), r["sides"][side]["peak_bytes"]) for r in results)
        return [(x, peak / 1e6) for x, peak in peaks if peak is not None]

    series = [Series(name=side, points=megabytes(side)) for side in SIDES]
    return Chart(title=f"Peak memory by {label.partition(' ')[0]}", x_label=label, y_label="MB", series=series)


def _ratios(results: Sequence[dict[str, Any]], other: str) -> Chart:
    """The symmetric step ÷ another by the share of a path that is response: measured, by FLOPs, and by tokens."""
    shares = [int(result["case"]["lengths"].rpartition("_")[2]) / 100 for result in results]
    measured = [_taken(r, "symmetric") / _taken(r, other) for r in results]
    flops = [step_flops(r, "symmetric") / step_flops(r, other) for r in results]
    tokens = [_token_ratio(r["lengths"], other) for r in results]
    series = [
        Series(name="measured", points=list(zip(shares, measured, strict=True))),
        Series(name="by FLOPs", points=list(zip(shares, flops, strict=True))),
        Series(name="by tokens", points=list(zip(shares, tokens, strict=True))),
    ]
    title = "symmetric ÷ our own plain DPO" if other == "none" else "symmetric ÷ TRL's DPO"
    return Chart(title=title, x_label="responses' share of prompt and response", y_label="ratio", series=series)


def _token_ratio(lengths: Sequence[tuple[int, int, int]], other: str) -> float:
    """(|x| + 2|y_w| + 2|y_l|) ÷ (|x| + |y_w| + |y_l|), or ÷ 4/3 (2|x| + |y_w| + |y_l|) with the reference's forward."""
    prompt, chosen, rejected = (sum(column) for column in zip(*lengths, strict=True))
    ours = prompt + 2 * chosen + 2 * rejected
    theirs = prompt + chosen + rejected if other == "none" else (2 * prompt + chosen + rejected) * 4 / 3
    return ours / theirs


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description="Draws the growth preset's JSON.")
    parser.add_argument("json", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    record = json.loads(options.json.read_text(encoding="utf-8"))
    options.output.write_text(chart_grid(charts(record["cases"]), title="How a step grows"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
