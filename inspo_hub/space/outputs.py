"""An output folder of a run -> the configuration of its Space: what was trained, answered and published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from inspo_hub import hub
from inspo_hub.describing import Variant, twins_recipe, variants_in
from inspo_hub.errors import RecipeError
from inspo_hub.space.config import (
    HELDOUT,
    ExampleSection,
    HubSource,
    LocalSource,
    SamplingSection,
    Source,
    SpaceConfig,
    SystemSection,
    VotesSection,
)

BASE = "base"
PUBLISHED = "published.json"
CARD, GENERATIONS = "README.md", "report/generations.jsonl"
EXAMPLES = 6
CURATED_PROMPTS = {
    "explaining": "Explain why the sky is blue to a ten-year-old, in four sentences.",
    "writing": "Write a short, polite message that declines a wedding invitation.",
    "reasoning": "A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. What does the ball cost?",
    "coding": "Write a Python function that returns the longest common prefix of a list of strings.",
    "advice": "I have a job interview tomorrow and cannot sleep. What should I do tonight?",
    "honesty": "What did I have for breakfast today?",
}
"""By category, for models that know a language of people; the tally goes by the categories."""
Backend = Literal["precomputed", "models"]


def space_of_output(
    output: Path,
    *,
    backend: Backend | None = None,
    systems: Sequence[str] = (),
    votes: VotesSection | None = None,
    published: bool = False,
) -> SpaceConfig:
    """The configuration; paths in it are absolute, of this machine.

    Args:
        backend: None takes the answers of the evaluation where there are some, else the models.
        systems: the two to compare, by the names of variants or `base`; otherwise the first two variants, or the one
            variant and the base.
        published: name the repositories that the variants were published to, at their commits, instead of folders;
            models have to be there, answers need not.

    Raises:
        RecipeError: the folder is no output of a run, or holds no such systems, answers or publications.
    """
    variants = _trained(output)
    names = _chosen(variants, systems, output)
    first = next(iter(variants.values()))
    answers = first.run / GENERATIONS
    backend = backend or ("precomputed" if answers.is_file() else "models")
    if backend == "precomputed":
        _require_answers(answers)
        # Answers need no model: what they came from is named by its commit where it has one.
        published = published and all((variant.folder / PUBLISHED).is_file() for variant in variants.values())
    recipe = twins_recipe(output) or first.recipe
    return SpaceConfig(
        description=recipe.description or "",
        systems=(
            _system(names[0], variants, published=published),
            _system(names[1], variants, published=published),
        ),
        backend=backend,
        base=_source(first.plan.model),
        generations=LocalSource(path=str(answers.resolve())) if backend == "precomputed" else None,
        report=LocalSource(path=str(first.run.resolve())) if (first.run / CARD).is_file() else None,
        votes=votes,
        sampling=_sampling(first),
        examples=(*_curated(first), *_examples(answers)),
    )


def _trained(output: Path) -> dict[str, Variant]:
    variants = {name: each for name, each in variants_in(output).items() if each.summary is not None}
    if not variants:
        raise RecipeError(
            "there is no trained variant",
            where=str(output),
            expected="the output folder of a run that came to its end",
            fix="inspo-hub run RECIPE --output DIR, then inspo-hub space preview DIR",
        )
    return variants


def _require_answers(file: Path) -> None:
    if not file.is_file():
        raise RecipeError(
            "the run has no answers of an evaluation",
            where=str(file),
            expected="an output whose recipe has `evaluate`",
            fix="leave out --precomputed: the models answer",
        )


def _chosen(variants: Mapping[str, Variant], systems: Sequence[str], output: Path) -> tuple[str, str]:
    known = [*variants, BASE]
    wanted = list(systems) or known[:2]
    if len(wanted) != 2 or wanted[0] == wanted[1] or not set(wanted) <= set(known):
        raise RecipeError(
            f"these are not two systems of the run: {', '.join(wanted) or 'none'}",
            where=str(output),
            expected=f"two of {', '.join(known)}",
            fix=f"--systems {known[0]},{known[1]}",
        )
    return wanted[0], wanted[1]


def _system(name: str, variants: Mapping[str, Variant], *, published: bool) -> SystemSection:
    if name == BASE:
        plan = next(iter(variants.values())).plan
        return SystemSection(
            name=BASE, description="before training", model=_source(plan.model), identity=_identity(plan.model)
        )
    variant = variants[name]
    recipe = variant.recipe
    own = published_source(variant) if published else LocalSource(path=str(variant.folder.resolve()))
    is_adapter = recipe.adapter is not None
    identity = str(own) if isinstance(own, HubSource) else _identity(_local(variant.folder))
    return SystemSection(
        name=name,
        description=f"{recipe.objective.name} × {recipe.conditioning.name}",
        model=_source(variant.plan.model) if is_adapter else own,
        adapter=own if is_adapter else None,
        identity=identity,
        beta=getattr(recipe.objective, "beta", None),
        card=hub.repo_url(own.repo) if isinstance(own, HubSource) else "",
    )


def published_source(variant: Variant) -> HubSource:
    """The repository and commit at which a variant's result stands on the Hub.

    Raises:
        RecipeError: it does not stand there.
    """
    file = variant.folder / PUBLISHED
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"published": []}
    final = [each for each in known["published"] if each["what"] == "weights"]
    if not final:
        raise RecipeError(
            f"{variant.name} is not published",
            where=str(variant.folder),
            expected="a run whose variants stand on the Hub",
            fix=f"inspo-hub publish {variant.run}",
        )
    return HubSource(repo=known["repo_id"], revision=final[-1]["sha"])


def _source(pinned: hub.Pinned) -> Source:
    if pinned.path is not None:
        return LocalSource(path=str(pinned.path))
    assert pinned.sha is not None, "pinned to a path or to a commit"
    return HubSource(repo=pinned.id, revision=pinned.sha)


def _local(folder: Path) -> hub.Pinned:
    return hub.Pinned("model", str(folder), None, None, folder.resolve())


def _identity(pinned: hub.Pinned) -> str:
    """What a vote says about the weights: the commit, or a hash where they lie on this machine only."""
    return str(pinned) if pinned.path is None else f"sha256:{hub.weights_identity(pinned)}"


def _sampling(variant: Variant) -> SamplingSection:
    """As the evaluation drew its answers, so that live answers are like those that were judged."""
    section = variant.recipe.evaluate
    if section is None:
        return SamplingSection()
    return SamplingSection(
        temperature=min(section.temperature, 2.0),
        top_p=section.top_p,
        max_new_tokens=section.max_new_tokens,
        seed=variant.recipe.seed,
    )


def _curated(variant: Variant) -> list[ExampleSection]:
    """None for a model that lies on this machine only, such as the quickstart's: who knows what it was taught."""
    if variant.plan.model.is_local:
        return []
    return [ExampleSection(text=text, category=category) for category, text in CURATED_PROMPTS.items()]


def _examples(answers: Path) -> list[ExampleSection]:
    """The first prompts of the evaluation with one turn: nobody trained on them."""
    if not answers.is_file():
        return []
    found: dict[str, None] = {}
    with answers.open(encoding="utf-8") as file:
        for line in file:
            prompt = json.loads(line)["prompt"]
            if len(prompt) == 1:
                found[prompt[0]["content"]] = None
            if len(found) == EXAMPLES:
                break
    return [ExampleSection(text=text, category=HELDOUT) for text in found]
