"""What is trained: twenty steps whose last is uneven, with fewer held-out pairs than processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.training.conftest import Project, make_project

PAIRS, STEPS, PAIRS_PER_STEP, HELDOUT = 97, 20, 5, 3
"""The last step has two pairs: of four processes two have none. The held-out pairs are fewer than four too."""
BUDGETS: Mapping[int, int] = {1: 100_000, 2: 400, 4: 250}
"""Processes -> tokens of a micro-batch: everything at once, a few pairs, hardly more than one."""
RECIPE = f"""\
version: 1
name: grid
model: {{id: ./base}}
data:
  train: [{{id: ./train.jsonl}}]
  heldout: [{{id: ./heldout.jsonl}}]
  max_length: 256
alternative: {{turn_text: again}}
objective: {{name: dpo, beta: 0.5}}
train: {{lr: 1e-3, pairs_per_step: {PAIRS_PER_STEP}, log_every: 1, eval_every: 10, save_every: 20}}
"""

_CONDITIONED = "reference.context=conditioned"
CASES: Mapping[str, tuple[str, ...]] = {
    "none × dpo": ("conditioning=none",),
    "symmetric × dpo": ("conditioning=symmetric",),
    "averaged × dpo": ("conditioning=averaged",),
    "annealed × dpo": ("conditioning=annealed",),
    "one_sided × dpo": ("conditioning=one_sided", _CONDITIONED),
    "rejected_only × dpo": ("conditioning=rejected_only", _CONDITIONED),
    "symmetric × dpo, conditioned reference": ("conditioning=symmetric", _CONDITIONED),
    "none × simpo": ("conditioning=none", "objective=simpo"),
    "symmetric × simpo": ("conditioning=symmetric", "objective=simpo"),
    "averaged × simpo": ("conditioning=averaged", "objective=simpo"),
    "annealed × simpo": ("conditioning=annealed", "objective=simpo"),
    "none × orpo": ("conditioning=none", "objective=orpo"),
    "symmetric × orpo": ("conditioning=symmetric", "objective=orpo"),
    "averaged × dpo with NLL": ("conditioning=averaged", "objective={name: dpo, beta: 0.5, nll_weight: 0.2}"),
    "symmetric × ipo": ("conditioning=symmetric", "objective=ipo"),
    "symmetric × aot": ("conditioning=symmetric", "objective=aot"),
    "averaged × bco_pair": ("conditioning=averaged", "objective=bco_pair"),
}
"""Every conditioning; with and without a reference; one that couples the pairs of a step; one with an NLL term."""
SHORT = ("averaged × dpo", "symmetric × simpo", "symmetric × aot")


def grid_project(folder: Path) -> Project:
    return make_project(folder, rows=PAIRS, heldout=HELDOUT, recipe=RECIPE)


def folder_of(processes: int, case: str) -> str:
    return f"{processes}-{list(CASES).index(case)}"
