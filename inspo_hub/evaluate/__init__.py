"""The evaluate room: generate answers, judge them, turn verdicts into estimates with intervals, report.

`prompts` reads what is asked, `generation` answers it, `likelihood` scores answers under a model, `judge` decides,
`scores` (numpy only) estimates, `result` and `report` hold and show the outcome, `variants` runs it all for a recipe.
Importing the package imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public name -> the module that defines it, imported at first use.
_PUBLIC = {
    "Estimate": "inspo_hub.evaluate.scores",
    "EvaluationResult": "inspo_hub.evaluate.result",
    "Generation": "inspo_hub.evaluate.generation",
    "Judge": "inspo_hub.evaluate.judge",
    "Prompt": "inspo_hub.evaluate.prompts",
    "Sampling": "inspo_hub.evaluate.generation",
    "System": "inspo_hub.evaluate.systems",
    "difference": "inspo_hub.evaluate.scores",
    "evaluate_variants": "inspo_hub.evaluate.variants",
    "generate": "inspo_hub.evaluate.generation",
    "kl_divergence": "inspo_hub.evaluate.scores",
    "load_judge": "inspo_hub.evaluate.judge",
    "mean_estimate": "inspo_hub.evaluate.scores",
    "read_prompts": "inspo_hub.evaluate.prompts",
    "response_logps": "inspo_hub.evaluate.likelihood",
    "win_rate": "inspo_hub.evaluate.scores",
}
__all__ = [
    "Estimate",
    "EvaluationResult",
    "Generation",
    "Judge",
    "Prompt",
    "Sampling",
    "System",
    "difference",
    "evaluate_variants",
    "generate",
    "kl_divergence",
    "load_judge",
    "mean_estimate",
    "read_prompts",
    "response_logps",
    "win_rate",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'inspo_hub.evaluate' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
