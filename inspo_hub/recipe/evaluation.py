"""An `evaluate:` section by itself, for `inspo-hub evaluate`: there a recipe may ask for something else, or be none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inspo_hub.recipe.judge_checks import KINDS, judge_conflicts, opponent_conflicts
from inspo_hub.recipe.overrides import Override, apply_overrides
from inspo_hub.recipe.paths import PathResolver
from inspo_hub.recipe.problems import Problem, RecipeProblems
from inspo_hub.recipe.reading import Node
from inspo_hub.recipe.running import EvaluateSection
from inspo_hub.recipe.validation import locate, problems_at

SECTION = "evaluate"


def evaluation_section(known: Mapping[str, Any] | None, overrides: Sequence[str]) -> EvaluateSection:
    """The section with `evaluate.key=value` texts laid over what a recipe says, checked as in a recipe.

    Local paths of the overrides are relative to the working directory. Naming another kind of judge takes the place of
    the recipe's whole judge.

    Raises:
        RecipeProblems: an override of another section, an unknown key, a wrong value.
    """
    source = "--set"
    parsed = [Override.parse(text) for text in overrides]
    problems = [
        Problem(str(each.value.origin), each.path, "is not of the evaluation", "evaluate.<key>")
        for each in parsed
        if each.keys[0] != SECTION
    ]
    resolver = PathResolver(Path.cwd(), problems)
    parsed = [replace(each, value=resolver.resolve(each.value, each.path)) for each in parsed]
    plain = _without_replaced_judge(dict(known or {}), parsed)
    tree, unapplied = apply_overrides(Node.of({SECTION: plain}), parsed)
    section, found = _validate(tree)
    problems += [*unapplied, *found]
    if section is None or problems:
        raise RecipeProblems(problems, recipe=source)
    return section


def _without_replaced_judge(plain: dict[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    judge = plain.get("judge") or {}
    had = {kind for kind in KINDS if judge.get(kind) is not None}
    named: set[str] = set()
    for each in overrides:
        if each.keys[:2] == (SECTION, "judge"):
            whole = each.value.value if isinstance(each.value.value, dict) else {}
            named |= {each.keys[2]} if len(each.keys) > 2 else set(whole)
    return {key: value for key, value in plain.items() if key != "judge"} if (named & set(KINDS)) - had else plain


def _validate(tree: Node) -> tuple[EvaluateSection | None, list[Problem]]:
    try:
        section = EvaluateSection.model_validate_json(json.dumps(tree.plain()[SECTION]), strict=True)
    except ValidationError as error:
        found = [{**details, "loc": (SECTION, *details["loc"])} for details in error.errors(include_url=False)]
        return None, [problem for details in found for problem in problems_at(tree, details)]  # type: ignore[arg-type]
    conflicts = [*judge_conflicts(section.judge, (SECTION, "judge")), *opponent_conflicts(section)]
    return section, [locate(tree, conflict) for conflict in conflicts]
