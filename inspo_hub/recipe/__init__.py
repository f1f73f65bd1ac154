"""YAML -> `Recipe`: strict, typed, documented per field; inheritance, overrides, variants. Imports no torch."""

from __future__ import annotations

from inspo_hub.recipe.adapters import AdapterSection
from inspo_hub.recipe.loading import load_recipe, parse_recipe
from inspo_hub.recipe.paths import is_path
from inspo_hub.recipe.problems import Problem, RecipeProblems
from inspo_hub.recipe.publishing import PublishSection
from inspo_hub.recipe.running import EvaluateSection, JudgeSection, PromptSource, TrainSection
from inspo_hub.recipe.schema import Recipe
from inspo_hub.recipe.sections import (
    AlternativeSection,
    DataSection,
    DataSource,
    HeldoutFraction,
    ModelSection,
    ReferenceSection,
    Section,
)

__all__ = [
    "AdapterSection",
    "AlternativeSection",
    "DataSection",
    "DataSource",
    "EvaluateSection",
    "HeldoutFraction",
    "JudgeSection",
    "ModelSection",
    "Problem",
    "PromptSource",
    "PublishSection",
    "Recipe",
    "RecipeProblems",
    "ReferenceSection",
    "Section",
    "TrainSection",
    "is_path",
    "load_recipe",
    "parse_recipe",
]
