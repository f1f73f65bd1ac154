"""One run's facts, as the workflow hands them over: a conditioned variant of a Hub model on a Hub data set."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.card import CardFacts
from inspo_hub.hub import Pinned, RepoMetadata
from inspo_hub.recipe import parse_recipe

BASE_SHA, DATA_SHA = "a" * 40, "b" * 40
RECIPE = """
version: 1
name: fox
description: a small | try *of* things <b>
model: {id: org/base}
data:
  train: [{id: org/pairs, split: train}]
  heldout: {fraction: 0.1}
objective: {name: dpo, beta: 0.3}
conditioning: averaged
train: {lr: 5e-7, pairs_per_step: 8}
variants:
  dpo: {conditioning: none}
  inspo: {conditioning: averaged}
"""
HELDOUT = {
    "split": "heldout",
    "loss": 0.6,
    "plain_accuracy": 0.7,
    "plain_margin": 0.4,
    "plain_margin_std": 1.0,
    "conditioned_accuracy": 0.8,
    "conditioned_margin": 0.9,
    "conditioned_margin_std": 2.0,
    "distillation_gap": 0.5,
    "plain_logp_per_token_chosen": -1.5,
    "plain_logp_per_token_rejected": -1.75,
    "pairs": 100.0,
}
BEFORE = HELDOUT | {
    "step": 0,
    "plain_accuracy": 0.5,
    "plain_margin": 0.0,
    "plain_margin_std": 0.0,
    "conditioned_accuracy": 0.45,
}


def estimate(value: float, half: float = 0.05) -> dict[str, Any]:
    return {
        "value": value,
        "standard_error": half / 2,
        "low": value - half,
        "high": value + half,
        "level": 0.95,
        "rows": 64,
        "clusters": 64,
    }


def _system(name: str, rate: float | None, kl: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "score": estimate(3.5),
        "win_rate_against_base": None if rate is None else estimate(rate),
        "kl_from_base": None if kl is None else estimate(kl),
        "well_formed": 0.99,
        "finished": 1.0,
        "mean_tokens": 21.5,
        "mean_words": 15.25,
    }


def _comparison(first: str, second: str, rate: float, verdict: str) -> dict[str, Any]:
    return {
        "first": first,
        "second": second,
        "win_rate": estimate(rate),
        "score_difference": estimate(0.25),
        "win_rate_difference": None,
        "verdict": verdict,
    }


EVALUATION: dict[str, Any] = {
    "prompts": 64,
    "judge": "judge.py:quality",
    "settings": {"temperature": 1.0, "samples_per_prompt": 1, "interval": 0.95, "bootstrap": 1000},
    "systems": [_system("base", None, None), _system("dpo", 0.625, 2.5), _system("inspo", 0.6125, 1.25)],
    "comparisons": [
        _comparison("dpo", "base", 0.625, "dpo is better"),
        _comparison("inspo", "base", 0.6125, "inspo is better"),
        _comparison("dpo", "inspo", 0.51, "no difference"),
    ],
    "training": {},
}
REPORT: dict[str, Any] = {
    "max_length": 512,
    "sources": [{"name": "org/pairs/train", "rows": 1000, "valid": 990, "used": 980, "format": "chat"}],
    "train_pairs": 880,
    "heldout_pairs": 100,
    "invalid": {"empty_response": {"count": 10, "row_ids": ["org/pairs/train/3"]}},
    "duplicate": {"count": 0, "row_ids": []},
    "truncated": {"count": 17, "row_ids": ["org/pairs/train/4"]},
    "leaked_prompts": {"count": 2, "row_ids": ["org/pairs/train/9"]},
    "truncated_tokens": {"prompt": 0, "alternative": 1234},
    "tokens": {"prompt": {"mean": 10.0, "p50": 9.0, "p95": 40.0, "p100": 77.0}},
    "length_bias": {"chosen_longer": 0.75, "equal": 0.0, "mean_chosen": 30.0, "mean_rejected": 20.0},
    "notes": ["a note with a * star"],
}
SUMMARY: dict[str, Any] = {
    "variant": "inspo",
    "steps": 110,
    "pairs": 880,
    "tokens": 123456,
    "tokens_per_step": 1122.3,
    "seconds_per_step": 0.5,
    "processes": 2,
    "device": "cpu",
    "compute_dtype": "float32",
    "layout": "tree",
    "train": {"step": 110, "split": "train", "loss": 0.5},
    "heldout_before": BEFORE,
    "heldout": HELDOUT | {"step": 110},
}
METRICS: list[dict[str, Any]] = [
    BEFORE,
    *(
        {"step": step, "split": "train", "loss": 0.7 - step / 1000, "plain_margin": step / 500, "plain_accuracy": 0.6}
        for step in range(10, 111, 10)
    ),
    HELDOUT | {"step": 110},
]
LOCK = {"version": 1, "model": {"id": "org/base", "sha": BASE_SHA}, "packages": {"torch": "2.13.0"}, "seed": 0}

MakeFacts = Callable[..., CardFacts]


@pytest.fixture
def make_facts() -> MakeFacts:
    """`CardFacts` of the run above; keywords replace fields, the first four choose another recipe."""

    def make(
        recipe_text: str = RECIPE,
        variant: str = "inspo",
        folder: Path | None = None,
        adapter: str | None = None,
        **fields: Any,
    ) -> CardFacts:
        recipe = parse_recipe(recipe_text + (f"adapter: {adapter}\n" if adapter else ""), folder=folder)
        known: dict[str, Any] = {
            "variant": variant,
            "recipe": recipe.variant_recipes()[variant] if recipe.variants else recipe,
            "base": Pinned("model", "org/base", None, BASE_SHA, None),
            "base_metadata": RepoMetadata("apache-2.0", None, None, False, False, {}),
            "train": (Pinned("dataset", "org/pairs", None, DATA_SHA, None),),
            "summary": SUMMARY,
            "lock": LOCK,
            "metrics": METRICS,
            "data_report": REPORT,
            "evaluation": EVALUATION,
            "repo_id": "user/fox-inspo",
        }
        return CardFacts(**copy.deepcopy(known | fields))

    return make
