"""Twins on real preference text, by the command a user types: real lengths, Unicode, Markdown and code."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.training.conftest import Project, make_project, train_tokenizer

REAL_PAIRS = Path(__file__).resolve().parents[3] / "shared" / "data" / "pairs" / "alpaca_pairs.jsonl.gz"

RECIPE = """\
version: 1
name: real
model: {{id: ./base}}
data:
  train: [{{id: {data}, columns: {{prompt: instruction}}, limit: 200}}]
  heldout: {{fraction: 0.1}}
  max_length: 768
train: {{lr: 1e-3, pairs_per_step: 8, max_steps: 20, log_every: 5, tokens_per_microbatch: 4096}}
variants:
  dpo: {{conditioning: none}}
  inspo: {{conditioning: symmetric}}
"""


@pytest.mark.slow
@pytest.mark.skipif(not REAL_PAIRS.is_file(), reason="the folder with real preference pairs is not beside the checkout")
def test_twins_train_on_real_text(tmp_path: Path) -> None:
    with gzip.open(REAL_PAIRS, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(400), strict=False)]
    tokenizer = train_tokenizer([row["instruction"] + row["chosen"] + row["rejected"] for row in rows], 2048)
    project: Project = make_project(tmp_path, tokenizer=tokenizer, recipe=RECIPE.format(data=REAL_PAIRS))
    project.run()
    for variant in ("dpo", "inspo"):
        records = project.records(f"out/{variant}")
        assert [record["step"] for record in records if record["split"] == "train"] == [5, 10, 15, 20]
        before, after = (record for record in records if record["split"] == "heldout")
        assert after["loss"] < before["loss"]
        assert after["plain_margin"] > before["plain_margin"]
        assert 0 < after["truncated_share"] < 1  # real answers do not all fit
        report = json.loads((project.folder / "out" / variant / "report" / "data.json").read_text(encoding="utf-8"))
        assert report["train_pairs"] + report["heldout_pairs"] == 200
