"""What no single key can say: which values of a recipe do not go together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from inspo_hub.conditioning import PLAIN_SCORE
from inspo_hub.recipe.conflicts import Conflict
from inspo_hub.recipe.judge_checks import judge_conflicts, opponent_conflicts
from inspo_hub.recipe.paths import is_path
from inspo_hub.recipe.prompt_sets import PROMPT_SETS
from inspo_hub.recipe.sweep_checks import sweep_conflicts

if TYPE_CHECKING:
    from inspo_hub.recipe.schema import Recipe
    from inspo_hub.recipe.sections import DataSource


def find_conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """Everything that does not go together in a recipe whose keys are valid one by one."""
    yield from _reference(recipe)
    yield from _sources(recipe.data.train, ("data", "train"))
    if isinstance(recipe.data.heldout, tuple):
        yield from _sources(recipe.data.heldout, ("data", "heldout"))
    yield from _model(recipe)
    yield from _alternative(recipe)
    yield from _memory(recipe)
    yield from _adapter(recipe)
    yield from _heldout(recipe)
    yield from _evaluation(recipe)
    yield from _judging(recipe)
    yield from _iterating(recipe)
    yield from _publishing(recipe)
    yield from _variants(recipe)
    yield from sweep_conflicts(recipe)


NOT_IN_VARIANTS = {
    "version": "twins are of one format",
    "extends": "a variant is merged over the recipe that holds it",
    "root": "twins start their paths from one folder",
    "seed": "twins share the seed",
    "data": "twins are trained on the same pairs in the same order",
    "variants": "variants do not nest",
    "sweep": "a sweep runs over all variants",
}


def _variants(recipe: Recipe) -> Iterator[Conflict]:
    for name, keys in recipe.variants.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
            what = f"{name!r} cannot name a folder and a repository"
            yield Conflict(("variants", name), what, "letters, digits, - and _, 64 at most")
        for key in keys:
            if key in NOT_IN_VARIANTS:
                fix = "give it to the whole recipe, or write another recipe that extends this one"
                yield Conflict(
                    ("variants", name, key), f"a variant cannot change {key}: {NOT_IN_VARIANTS[key]}", "", fix
                )


def twin_conflicts(twins: Mapping[str, Recipe]) -> Iterator[Conflict]:
    """Where variants that are valid one by one would not see the same token ids."""
    first: Recipe | None = None
    for name, twin in twins.items():
        first = first or twin
        for key in ("tokenizer", "tokenizer_revision", "chat_template"):
            if _tokens(twin)[key] != _tokens(first)[key]:
                what = f"{_tokens(twin)[key]!r}, where another variant has {_tokens(first)[key]!r}"
                expected = "one tokenizer and chat template for all variants: they are trained on the same token ids"
                yield Conflict(
                    ("variants", name, "model", key), what, expected, f"set model.{key} for the whole recipe"
                )


def _tokens(recipe: Recipe) -> dict[str, str | None]:
    model = recipe.model
    own = model.tokenizer is None
    return {
        "tokenizer": model.tokenizer or model.id,
        "tokenizer_revision": model.tokenizer_revision or (model.revision if own else None),
        "chat_template": model.chat_template,
    }


def cautions(recipe: Recipe) -> Iterator[str]:
    """What is allowed, and yet should be said once."""
    for part in (recipe.objective, recipe.conditioning):
        if part.caution:
            yield part.caution
    if recipe.alternative.gradient == "stopped":
        yield STOPPED_CAUTION


def _reference(recipe: Recipe) -> Iterator[Conflict]:
    reference = recipe.reference
    refusal = recipe.conditioning.refusal(
        reference_context=reference.context, uses_reference=recipe.objective.uses_reference
    )
    if refusal:
        fix = (
            "set reference.context: conditioned, or another conditioning"
            if recipe.objective.uses_reference
            else "choose an objective with a reference, such as dpo, or another conditioning"
        )
        yield Conflict(("conditioning",), refusal, fix=fix)
    if reference.source == "model" and reference.id is None:
        yield Conflict(("reference",), "source: model names no model", "reference.id", "add id: owner/name")
    if reference.source == "initial":
        for key in ("id", "revision"):
            value = getattr(reference, key)
            if value is not None:
                what = f"{value!r} would be ignored: source is initial, the policy before training"
                yield Conflict(("reference", key), what, "null", "set reference.source: model, or delete the key")
    elif reference.revision is not None and is_path(reference.id):
        yield _revision_of_a_folder(("reference", "revision"), reference.revision)


def _sources(sources: tuple[DataSource, ...], path: tuple[str, ...]) -> Iterator[Conflict]:
    if not sources:
        yield Conflict(path, "names no data set", "at least one", "add - id: owner/name")
    weighted = [index for index, source in enumerate(sources) if source.weight is not None]
    if len(weighted) == 1:
        what = "the only weight of the list: a share says nothing without another one"
        expected = "weights for two data sets or more; those without a weight give every row once"
        yield Conflict(
            (*path, weighted[0], "weight"), what, expected, "delete it, or give another data set a weight too"
        )
    for index, source in enumerate(sources):
        if source.revision is not None and is_path(source.id):
            yield _revision_of_a_folder((*path, index, "revision"), source.revision)


def _model(recipe: Recipe) -> Iterator[Conflict]:
    model = recipe.model
    if model.revision is not None and is_path(model.id):
        yield _revision_of_a_folder(("model", "revision"), model.revision)
    if model.tokenizer_revision is not None and is_path(model.tokenizer or model.id):
        yield _revision_of_a_folder(("model", "tokenizer_revision"), model.tokenizer_revision)


STOPPED_CAUTION = (
    "alternative.gradient: stopped is an experiment: in small runs with an exact judge it won as often as the full "
    "gradient in eight of nine, and broke in one (docs/experiments.md); watch the held-out margins"
)


def _memory(recipe: Recipe) -> Iterator[Conflict]:
    if recipe.train.activation_offload and recipe.train.activation_checkpointing is False:
        what = "what it keeps in the host's memory are the inputs of recomputed layers, and none is recomputed"
        yield Conflict(("train", "activation_offload"), what, "train.activation_checkpointing: true or null")


def _alternative(recipe: Recipe) -> Iterator[Conflict]:
    """What `gradient: stopped` cannot train: plain scores, whose whole path is context."""
    if recipe.alternative.gradient == "full":
        return
    path = ("alternative", "gradient")
    plain = [score for score in recipe.conditioning.scores if score in PLAIN_SCORE.values()]
    if plain:
        name = recipe.conditioning.name
        what = f"conditioning {name!r} trains responses without their alternative, which are read without gradient"
        yield Conflict(path, what, "full", "delete the key, or use conditioning: symmetric")
    elif recipe.objective.needs_plain_chosen:
        what = f"the NLL term of {recipe.objective.name!r} trains the chosen response without its alternative"
        yield Conflict(path, f"{what}, which is read without gradient", "full", "delete the key, or the NLL term")
    if recipe.model.attention == "flat":
        what = "flat packing lays every path out by itself: nothing is read once and attended to"
        yield Conflict(path, what, "model.attention: auto or tree", "delete one of the two keys")


_SHAPE = ("r", "alpha", "target_modules", "use_dora", "use_rslora")


def _adapter(recipe: Recipe) -> Iterator[Conflict]:
    adapter = recipe.adapter
    if adapter is None:
        return
    if adapter.dropout:
        what = f"{adapter.dropout:g} would put noise into the policy: log-ratios would not start at 0"
        yield Conflict(("adapter", "dropout"), what, "0", "delete the key; preference runs are short")
    if adapter.target_modules == ():
        yield Conflict(("adapter", "target_modules"), "names no layer", "at least one, or auto")
    if adapter.base_adapter is None:
        if adapter.base_adapter_revision is not None:
            what = f"{adapter.base_adapter_revision!r} would be ignored: there is no base adapter"
            yield Conflict(("adapter", "base_adapter_revision"), what, "null", "name adapter.base_adapter too")
        return
    for key in _SHAPE:
        value = getattr(adapter, key)
        if value is not None:
            what = f"{value!r} would be ignored: the base adapter brings its own"
            yield Conflict(("adapter", key), what, "null", "delete the key, or start a new adapter")
    if adapter.base_adapter_revision is not None and is_path(adapter.base_adapter):
        yield _revision_of_a_folder(("adapter", "base_adapter_revision"), adapter.base_adapter_revision)


def _heldout(recipe: Recipe) -> Iterator[Conflict]:
    if recipe.train.eval_every is not None and recipe.data.heldout is None:
        what = f"evaluates every {recipe.train.eval_every} steps on held-out pairs, and there are none"
        fix = "set data.heldout, for example {fraction: 0.02}, or delete the key"
        yield Conflict(("train", "eval_every"), what, fix=fix)


def _evaluation(recipe: Recipe) -> Iterator[Conflict]:
    evaluate = recipe.evaluate
    if evaluate is None:
        return
    if evaluate.prompts.revision is not None and is_path(evaluate.prompts.id):
        yield _revision_of_a_folder(("evaluate", "prompts", "revision"), evaluate.prompts.revision)
    if evaluate.preferences is not None and recipe.data.heldout is None:
        what, fix = "there are no held-out pairs to measure on", "set data.heldout, for example {fraction: 0.02}"
        yield Conflict(("evaluate", "preferences"), what, fix=fix)
    if evaluate.temperature == 0 and evaluate.samples_per_prompt > 1:
        what = f"{evaluate.samples_per_prompt} equal answers: temperature 0 always takes the most probable token"
        yield Conflict(("evaluate", "samples_per_prompt"), what, "1, or a temperature above 0")


def _judging(recipe: Recipe) -> Iterator[Conflict]:
    if recipe.evaluate is not None:
        yield from judge_conflicts(recipe.evaluate.judge, ("evaluate", "judge"))
        yield from opponent_conflicts(recipe.evaluate)


def _iterating(recipe: Recipe) -> Iterator[Conflict]:
    section = recipe.iterate
    if section is None:
        return
    if section.judge is None and recipe.evaluate is None:
        yield Conflict(("iterate",), "nobody judges the answers", "iterate.judge, or evaluate.judge", "add a judge")
    if section.judge is not None:
        yield from judge_conflicts(section.judge, ("iterate", "judge"))
    if section.prompts.id in PROMPT_SETS:
        what = f"{section.prompts.id!r} is for evaluation: training on it would spoil every comparison"
        yield Conflict(("iterate", "prompts", "id"), what, "a data set of training prompts")
    if section.prompts.revision is not None and is_path(section.prompts.id):
        yield _revision_of_a_folder(("iterate", "prompts", "revision"), section.prompts.revision)
    if section.reference == "previous" and recipe.reference.source == "model":
        what = "'previous' would leave out the reference model that the recipe names"
        yield Conflict(("iterate", "reference"), what, "initial", "set it to initial, or reference.source: initial")
    if section.reference == "initial" and recipe.adapter is not None and recipe.adapter.base_adapter is not None:
        what = "'initial' would need the base adapter as it was beside the one that is trained"
        yield Conflict(("iterate", "reference"), what, "previous", "`inspo-hub merge` the base adapter first")


def _publishing(recipe: Recipe) -> Iterator[Conflict]:
    publish = recipe.publish
    if publish is None:
        return
    if publish.strategy == "checkpoint" and publish.create_pr:
        what = "a pull request cannot bring the branch of resumable checkpoints"
        yield Conflict(("publish", "strategy"), what, "end or every_save", "or write to a repository of your own")
    if publish.strategy == "checkpoint" and publish.checkpoints_branch == publish.branch:
        what = f"{publish.branch!r} holds the weights: checkpoints would replace them"
        yield Conflict(("publish", "checkpoints_branch"), what, "another branch than publish.branch")
    if publish.create_pr and publish.branch != "main":
        what = f"{publish.branch!r} would be ignored: pull requests of the Hub go to main"
        yield Conflict(("publish", "branch"), what, "main, or create_pr: false")
    braces = publish.repo.replace("{variant}", "")
    if "{" in braces or "}" in braces:
        what = f"{publish.repo!r} has braces that are not {{variant}}"
        yield Conflict(("publish", "repo"), what, "owner/name, with {variant} at most")


def _revision_of_a_folder(path: tuple[str | int, ...], revision: str) -> Conflict:
    return Conflict(path, f"{revision!r} would be ignored: a local path has no revisions", "null", "delete the key")
