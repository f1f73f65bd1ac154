"""What is trained: small, with many saves, log intervals that no save ends, and a reference pass of several commits."""

from __future__ import annotations

from pathlib import Path

from tests.training.conftest import Project, make_project

RECIPE = """\
version: 1
name: stress
model: {id: ./base}
data:
  train: [{id: ./train.jsonl}]
  heldout: [{id: ./heldout.jsonl}]
  max_length: 256
alternative: {turn_text: again}
objective: {name: dpo, beta: 0.5}
conditioning: averaged
train:
  lr: 3e-3
  pairs_per_step: 6
  log_every: 3
  eval_every: 7
  save_every: 2
  keep_checkpoints: 2
  tokens_per_microbatch: 800
"""


def stress_project(folder: Path, rows: int = 140) -> Project:
    return make_project(folder, rows=rows, heldout=7, recipe=RECIPE)
