"""The recipe of one round: the whole recipe, trained from where the last round ended, on this round's pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inspo_hub.publish import repository_of
from inspo_hub.recipe import Recipe
from inspo_hub.recipe.kept import from_plain, to_plain

_SHAPE = ("r", "alpha", "target_modules", "use_dora", "use_rslora")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The weights that a round starts from: Hub ids with commits, or folders of this machine."""

    model: str
    revision: str | None
    adapter: str | None = None
    adapter_revision: str | None = None

    @classmethod
    def initial(cls, recipe: Recipe) -> Policy:
        """What the recipe names: the policy of the first round."""
        adapter = recipe.adapter
        return cls(
            model=recipe.model.id,
            revision=recipe.model.revision,
            adapter=None if adapter is None else adapter.base_adapter,
            adapter_revision=None if adapter is None else adapter.base_adapter_revision,
        )

    def after(self, recipe: Recipe, folder: Path) -> Policy:
        """What a round left in its folder: a whole model, or another adapter on the same model."""
        if recipe.adapter is None:
            return Policy(model=str(folder), revision=None)
        return replace(self, adapter=str(folder), adapter_revision=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsSource:
    """Where a round's pairs are: a file of this machine, or a configuration of a data set at a commit."""

    id: str
    revision: str | None = None
    config: str | None = None


def round_name(number: int) -> str:
    """The name of a round: its folder, its configuration of the data set, and the end of its recipe's name."""
    return f"round-{number}"


def round_recipe(recipe: Recipe, number: int, policy: Policy, pairs: PairsSource, *, variant: str | None) -> Recipe:
    """The recipe that `inspo-hub run` would train this round with; name, description, lock and card name the round.

    Args:
        recipe: one variant of the whole recipe, with every revision a commit.
        variant: its name among its twins; None where the recipe has no variants.
    """
    assert recipe.iterate is not None, "only recipes with rounds have them"
    plain = to_plain(recipe)
    keys: dict[str, Any] = plain["recipe"]
    keys |= {"iterate": None, "evaluate": None, "name": f"{recipe.name}-{round_name(number)}"}
    told = f"Round {number} of training on the policy's own answers, judged"
    keys["description"] = f"{recipe.description}. {told}" if recipe.description else told
    keys["data"]["train"] = [{"id": pairs.id, "revision": pairs.revision, "config": pairs.config}]
    if recipe.publish is not None:
        keys["publish"]["repo"] = f"{repository_of(recipe.publish.repo, variant)}-{round_name(number)}"
    if number > 1:
        _start_from(keys, policy)
    if number > 1 and recipe.iterate.reference == "initial" and recipe.reference.source == "initial":
        keys["reference"] |= {"source": "model", "id": recipe.model.id, "revision": recipe.model.revision}
    return from_plain(json.loads(json.dumps(plain)))


def _start_from(keys: dict[str, Any], policy: Policy) -> None:
    """A trained folder in place of the model, with the tokenizer that lies in it, or an adapter on the same model."""
    if policy.adapter is None:
        keys["model"] |= {"id": policy.model, "revision": policy.revision}
        if keys["model"]["tokenizer"] is None:
            keys["model"]["tokenizer_revision"] = None
        return
    own: Mapping[str, Any] = {"base_adapter": policy.adapter, "base_adapter_revision": policy.adapter_revision}
    keys["adapter"] |= {**dict.fromkeys(_SHAPE), **own}
