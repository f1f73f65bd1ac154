"""The evaluate room: generate answers, judge them, turn verdicts into estimates with intervals, report.

`prompts` reads what is asked, `generation` answers it, `likelihood` scores answers under a model, `judge` decides;
`scores`, `length_control`, `arena`, `style` and `frontier`, numpy only, estimate; `result` and `report` hold and show
the outcome; `variants` runs it all for a recipe.
Importing the package imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public name -> the module that defines it, imported at first use.
_PUBLIC = {
    "AlpacaEval": "inspo_hub.evaluate.alpaca_eval",
    "ContextRules": "inspo_hub.evaluate.alternatives",
    "Estimate": "inspo_hub.evaluate.scores",
    "EvaluationResult": "inspo_hub.evaluate.result",
    "GamedRows": "inspo_hub.evaluate.length_control",
    "Games": "inspo_hub.evaluate.arena",
    "Generation": "inspo_hub.evaluate.generation",
    "Judge": "inspo_hub.evaluate.judge",
    "LeaderboardRow": "inspo_hub.evaluate.alpaca_eval",
    "LengthControlled": "inspo_hub.evaluate.length_control",
    "LatencyWorkload": "inspo_hub.evaluate.latency",
    "Measured": "inspo_hub.evaluate.preferences",
    "PreferenceMeasurement": "inspo_hub.evaluate.preferences",
    "Prompt": "inspo_hub.evaluate.prompts",
    "Sampling": "inspo_hub.evaluate.generation",
    "Style": "inspo_hub.evaluate.style",
    "StyleControlled": "inspo_hub.evaluate.style",
    "System": "inspo_hub.evaluate.systems",
    "TablesSource": "inspo_hub.evaluate.alpaca_eval",
    "arena_score": "inspo_hub.evaluate.arena",
    "difference": "inspo_hub.evaluate.scores",
    "evaluate_variants": "inspo_hub.evaluate.variants",
    "generate": "inspo_hub.evaluate.generation",
    "kl_divergence": "inspo_hub.evaluate.scores",
    "leaderboard_row": "inspo_hub.evaluate.alpaca_eval",
    "length_controlled": "inspo_hub.evaluate.length_control",
    "length_controlled_difference": "inspo_hub.evaluate.length_control",
    "length_controlled_estimate": "inspo_hub.evaluate.length_control",
    "load_alpaca_eval": "inspo_hub.evaluate.alpaca_eval",
    "load_judge": "inspo_hub.evaluate.judge",
    "measure_latency": "inspo_hub.evaluate.latency",
    "measure_preferences": "inspo_hub.evaluate.preferences",
    "mean_estimate": "inspo_hub.evaluate.scores",
    "on_frontier": "inspo_hub.evaluate.frontier",
    "parse_verdict": "inspo_hub.evaluate.arena",
    "prompts_from_rows": "inspo_hub.evaluate.prompts",
    "read_prompts": "inspo_hub.evaluate.prompts",
    "response_logps": "inspo_hub.evaluate.likelihood",
    "style_controlled": "inspo_hub.evaluate.style",
    "style_difference": "inspo_hub.evaluate.style",
    "style_of": "inspo_hub.evaluate.style",
    "win_rate": "inspo_hub.evaluate.scores",
    "win_rate_at": "inspo_hub.evaluate.frontier",
}
__all__ = [
    "AlpacaEval",
    "ContextRules",
    "Estimate",
    "EvaluationResult",
    "GamedRows",
    "Games",
    "Generation",
    "Judge",
    "LatencyWorkload",
    "LeaderboardRow",
    "LengthControlled",
    "Measured",
    "PreferenceMeasurement",
    "Prompt",
    "Sampling",
    "Style",
    "StyleControlled",
    "System",
    "TablesSource",
    "arena_score",
    "difference",
    "evaluate_variants",
    "generate",
    "kl_divergence",
    "leaderboard_row",
    "length_controlled",
    "length_controlled_difference",
    "length_controlled_estimate",
    "load_alpaca_eval",
    "load_judge",
    "mean_estimate",
    "measure_latency",
    "measure_preferences",
    "on_frontier",
    "parse_verdict",
    "prompts_from_rows",
    "read_prompts",
    "response_logps",
    "style_controlled",
    "style_difference",
    "style_of",
    "win_rate",
    "win_rate_at",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'inspo_hub.evaluate' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
