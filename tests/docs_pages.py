"""Pages of docs/ generated from the code: `python -m tests.docs_pages` writes them, a test holds them equal."""

from __future__ import annotations

import inspect
from pathlib import Path

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.metrics import METRICS
from inspo_hub.objectives import OBJECTIVES

DOCS = Path(__file__).parents[1] / "docs"


OBJECTIVES_INTRODUCTION = """\
# Objectives and conditionings

An objective turns a view of a pair into a loss; a conditioning says which log-probabilities make the view. Any
objective goes with any conditioning; the few combinations that cannot work are refused with the reason.

With a = chosen log-ratio, b = rejected log-ratio to the reference, z = β(a - b), n = response length in tokens,
ε = label smoothing, ls = log σ:
"""

METRICS_INTRODUCTION = """\
# Metrics

`metrics.jsonl` holds one JSON object per logged interval (`split: train`) and per evaluation on the held-out
pairs (`split: heldout`). Numbers are sums over all pairs and processes divided by counts, never means of means.
In the training lines of a conditioned run, plain metrics cost one more forward of the head. Where that is at most
3 % of a step they are of all of the line's pairs, as the conditioned ones; where the vocabulary is large beside the
model, of the pairs of the logged step alone: then only `distillation_gap` compares the same pairs, and the held-out
lines are the ones to read. Timings stand in `timings.jsonl`, so that `metrics.jsonl` is the same whenever a run is
repeated or resumed.

The number to watch is `distillation_gap`: where the conditioned margin grows and the plain one does not, the
policy learns to use the alternative and not to do without it, and nothing of it is left at inference.

| name | unit | meaning |
|---|---|---|
"""


def objectives_page() -> str:
    """Every objective and conditioning with its formula and source, as their docstrings give them."""
    parts = [OBJECTIVES_INTRODUCTION]
    for title, table in (("Objectives", OBJECTIVES), ("Conditionings", CONDITIONINGS)):
        lines = []
        for name, row in table.items():
            text = " ".join((inspect.getdoc(row) or "").split())
            caution = f" **Caution:** {row.caution}." if row.caution else ""
            lines.append(f"- `{name}`: {text}{caution}")
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def metrics_page() -> str:
    """Every logged number with its unit and meaning."""
    rows = (f"| `{name}` | {metric.unit} | {_cell(metric.meaning)} |\n" for name, metric in METRICS.items())
    return METRICS_INTRODUCTION + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"objectives.md": objectives_page, "metrics.md": metrics_page}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (DOCS / file).write_text(page(), encoding="utf-8")
