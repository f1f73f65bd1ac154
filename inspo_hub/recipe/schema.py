"""`Recipe`: what one run is asked to do; validated, immutable, with a hash that no way of launching changes."""

from __future__ import annotations

import hashlib
import json
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from inspo_hub.conditioning import CONDITIONINGS, Conditioning
from inspo_hub.objectives import OBJECTIVES, Objective
from inspo_hub.recipe.adapters import AdapterSection
from inspo_hub.recipe.checks import cautions, find_conflicts
from inspo_hub.recipe.iterating import IterateSection
from inspo_hub.recipe.merging import UNIONS, merge
from inspo_hub.recipe.paths import map_paths
from inspo_hub.recipe.publishing import PublishSection
from inspo_hub.recipe.reading import Node
from inspo_hub.recipe.running import EvaluateSection, TrainSection
from inspo_hub.recipe.sections import AlternativeSection, DataSection, ModelSection, ReferenceSection, Section
from inspo_hub.recipe.sweeping import Point, expand
from inspo_hub.recipe.writing import write_yaml

DEFAULT_OBJECTIVE = "dpo"
DEFAULT_CONDITIONING = "symmetric"
HOW_NOT_WHAT = ("tokens_per_microbatch", "activation_checkpointing", "activation_offload")
"""Keys of `train` that fit a run to a machine and change nothing of its result, so nothing of its hash either."""


def _by_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


if TYPE_CHECKING:
    AnyObjective = Objective
    AnyConditioning = Conditioning
else:
    # The unions are the tables: a new row is a new recipe key, in validation, JSON schema and reference alike.
    AnyObjective = Annotated[reduce(or_, OBJECTIVES.values()), Field(discriminator="name")]
    AnyConditioning = Annotated[reduce(or_, CONDITIONINGS.values()), Field(discriminator="name")]


class Recipe(Section):
    """One run: what is trained on what, how, and how it is evaluated."""

    version: Literal[1] = Field(description="Version of this format.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
        description="Name of the run: its output folder is outputs/<name>, and the card's title.",
    )
    description: str | None = Field(None, description="One line for people, shown in the card.")
    root: str | None = Field(
        None, description="Folder that this file's relative paths start from; null: the folder that holds the file."
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of everything random: data order, held-out split, sampling, dropout."
    )
    model: ModelSection = Field(description="The base model.")
    adapter: AdapterSection | None = Field(
        None, description="Train an adapter on the frozen base; {} for LoRA as usual, null: the whole model is trained."
    )
    data: DataSection = Field(description="The preference pairs.")
    objective: Annotated[AnyObjective, BeforeValidator(_by_name)] = Field(
        OBJECTIVES[DEFAULT_OBJECTIVE](name=DEFAULT_OBJECTIVE),
        description="What turns a scored pair into a loss: a name, or a mapping with `name` and its settings.",
    )
    conditioning: Annotated[AnyConditioning, BeforeValidator(_by_name)] = Field(
        CONDITIONINGS[DEFAULT_CONDITIONING](name=DEFAULT_CONDITIONING),
        description="Which responses are scored given their alternative: a name, or a mapping with `name`.",
    )
    alternative: AlternativeSection = Field(AlternativeSection(), description="How an alternative is presented.")
    reference: ReferenceSection = Field(ReferenceSection(), description="The reference policy.")
    train: TrainSection = Field(description="The optimisation.")
    evaluate: EvaluateSection | None = Field(None, description="Generated answers and their judge; null: none.")
    iterate: IterateSection | None = Field(
        None, description="Training on the policy's own judged answers, for `inspo-hub iterate`; null: none."
    )
    publish: PublishSection | None = Field(None, description="Where on the Hub the results go; null: nowhere.")
    variants: dict[str, dict[str, Any]] = Field(
        {},
        description="Twins: name -> the keys that differ. All are trained on the same pairs in the same order from "
        "one seed; each is this recipe with the keys merged over it.",
    )
    sweep: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        {},
        description="Dotted key -> values to try, such as {objective.beta: [0.1, 0.3], seed: [0, 1, 2]}: every "
        "combination is a variant of its own, and with variants every combination of each.",
    )
    _written_paths: dict[str, str] = PrivateAttr(default_factory=dict)
    """Absolute path -> the same path relative to `root`, for those that were written relative."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        conflicts = list(find_conflicts(self))
        if conflicts:
            text = "; ".join(f"{'.'.join(map(str, conflict.path))}: {conflict.what}" for conflict in conflicts)
            raise PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": conflicts})
        return self

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a user should be told once about this recipe and its variants; empty where nothing is unusual."""
        resolved = self.variant_recipes().values()
        return tuple(dict.fromkeys(caution for recipe in resolved for caution in cautions(recipe)))

    def variant_recipes(self) -> dict[str, Recipe]:
        """Every variant as a whole recipe, named `<name>-<variant>`; without variants, this recipe by its name."""
        if not self.has_variants:
            return {self.name: self}
        return {point.name: self._variant(point) for point in self.points()}

    @property
    def has_variants(self) -> bool:
        """Whether several trainings come of it, each with a folder of its own."""
        return bool(self.variants or self.sweep)

    def points(self) -> list[Point]:
        """Its variants at every point of its sweep; none for a recipe without either."""
        nodes = [{key: Node.of(value) for key, value in part.items()} for part in (self.variants, self.sweep)]
        return expand(*nodes) if self.has_variants else []

    def _variant(self, point: Point) -> Recipe:
        base = Node.of(self._plain() | {"variants": {}, "sweep": {}, "name": f"{self.name}-{point.name}"})
        recipe = Recipe.model_validate_json(json.dumps(merge(base, point.keys).plain()), strict=True)
        recipe._written_paths.update(self._written_paths)
        return recipe

    def sha256(self) -> str:
        """Hex digest of the canonical JSON of every key that says what is done, with paths as they were written.

        Left out are `root` and `HOW_NOT_WHAT`: a laptop, eight GPUs and a Job that run one recipe have one hash.
        """
        portable = {key: value for key, value in self.portable().items() if key != "root"}
        sections = [portable["train"], *(keys["train"] for keys in portable["variants"].values() if "train" in keys)]
        for section in sections:
            for key in HOW_NOT_WHAT:
                section.pop(key, None)
        text = json.dumps(portable, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, every key written out; it loads again to an equal recipe with the same hash."""
        return write_yaml(self.portable())

    def portable(self) -> dict[str, Any]:
        """Every key as plain values, with local paths as written relative to `root` where they were."""
        written = map_paths(Node.of(self._plain()), lambda text, key, node: self.written(text))
        plain: dict[str, Any] = written.plain()
        return plain

    def written(self, path: str) -> str:
        """A local path as the recipe has it: relative to `root` where it was written so."""
        return self._written_paths.get(path, path)

    def _plain(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


assert set(UNIONS) <= set(Recipe.model_fields), "the merge rule names sections that exist"
