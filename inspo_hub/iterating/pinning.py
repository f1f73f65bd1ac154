"""A recipe whose every revision is a commit: what all rounds start from, wherever branches move meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inspo_hub import hub
from inspo_hub.plan import make_plan
from inspo_hub.recipe import Recipe
from inspo_hub.recipe.kept import from_plain, to_plain

_REVISION_KEYS = {"model.tokenizer": "tokenizer_revision", "adapter.base_adapter": "base_adapter_revision"}


def pinned_recipe(recipe: Recipe) -> Recipe:
    """The same recipe (one variant) at the commits that its branches are at now.

    Raises:
        ResolutionError: something that it names cannot be found or reached.
    """
    assert recipe.iterate is not None
    prompts = recipe.iterate.prompts
    pins = dict(make_plan(recipe).pins)
    pins["iterate.prompts"] = hub.resolve("dataset", prompts.id, prompts.revision)
    section = recipe.iterate.judge
    judge = None if section is None else section.model or section.reward_model
    if judge is not None:
        pins["iterate.judge"] = hub.resolve("model", judge.id, judge.revision)
    plain = to_plain(recipe)
    for role, pin in pins.items():
        if pin.sha is not None:
            _set_revision(plain["recipe"], role, pin.sha)
    return from_plain(plain)


def _set_revision(keys: dict[str, Any], role: str, sha: str) -> None:
    """The commit at the key that belongs to a role, which is the dotted key of what it names."""
    if role == "model.tokenizer" and keys["model"]["tokenizer"] is None:
        return  # it is the model's own, and goes with it
    path = role.split(".")
    if role in _REVISION_KEYS:
        path = path[:-1]
    if role.endswith(".judge"):
        path.append("model" if keys[path[0]]["judge"]["model"] is not None else "reward_model")
    section: Any = keys
    for key in path:
        section = section[int(key)] if isinstance(section, list | tuple) else section[key]
    section[_REVISION_KEYS.get(role, "revision")] = sha


def prompts_pin(recipe: Recipe) -> hub.Pinned:
    """Where the prompts of a pinned recipe are."""
    assert recipe.iterate is not None
    return hub.resolve("dataset", recipe.iterate.prompts.id, recipe.iterate.prompts.revision)


def same_but_rounds(recipe: Recipe) -> Mapping[str, str]:
    """The identity of a recipe whatever number of rounds it asks for: more rounds go on, anything else does not."""
    assert recipe.iterate is not None
    once = recipe.iterate.model_copy(update={"rounds": 1})
    return {"recipe_sha256": recipe.model_copy(update={"iterate": once}).sha256()}
