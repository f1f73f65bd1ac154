"""What an output folder says about its run: noted before training, made into cards at its end and at any time later.

`.variant.json` lies in each variant's folder and `.twins.json` beside them. Hidden files are never published.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from inspo_hub import hub
from inspo_hub.errors import ResolutionError
from inspo_hub.plan import LOCK_FILE, Plan
from inspo_hub.recipe.kept import from_plain, to_plain

if TYPE_CHECKING:
    from inspo_hub.card import CardFacts
    from inspo_hub.recipe import Recipe

log = logging.getLogger(__name__)

VARIANT, TWINS = ".variant.json", ".twins.json"
SUMMARY, EVALUATED = "trained.json", "evaluated.json"
Measurement = Literal["preferences", "latency"]
MEASUREMENTS: tuple[Measurement, ...] = get_args(Measurement)
"""What a recipe's `evaluate:` may ask for beside judged answers; each has its own file in the report."""
_LICENSE = ("license", "license_name", "license_link", "gated", "private")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant as its folder remembers it."""

    name: str
    folder: Path
    run: Path
    """The run's output folder: the variant's own, or the one above with its twins and their comparison."""
    plan: Plan
    base_metadata: hub.RepoMetadata | None

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    @property
    def summary(self) -> dict[str, Any] | None:
        """The content of trained.json; None before the training has ended."""
        file = self.folder / SUMMARY
        return _read(file) if file.is_file() else None


# --- before training


def base_metadata(plan: Plan, folder: Path) -> hub.RepoMetadata | None:
    """What the base's repository says about itself; None, and a warning, where neither Hub nor folder can tell."""
    known = _read_variant(folder) if (folder / VARIANT).is_file() else None
    if known is not None and known.base_metadata is not None and known.plan.pins["model"] == plan.model:
        return known.base_metadata
    try:
        return hub.metadata(plan.model)
    except ResolutionError as error:
        log.warning("the base's license is not known, so the card will name none: %s", error.what)
        return None


def draft_card(plan: Plan, metadata: hub.RepoMetadata | None) -> str:
    """The metadata that the variant's card will have, as far as it is known before training."""
    from inspo_hub.card import CardFacts, front_matter

    facts = CardFacts(
        variant=plan.recipe.name,
        recipe=plan.recipe,
        base=plan.model,
        summary={},
        base_metadata=metadata,
        train=plan.train,
        heldout=plan.heldout,
        reference=plan.reference,
    )
    return front_matter(facts) + f"\n# {plan.recipe.name}\n"


def note(
    recipe: Recipe,
    plans: Mapping[str, Plan],
    folders: Mapping[str, Path],
    metadata: Mapping[str, hub.RepoMetadata | None],
    output: Path,
) -> None:
    """Leaves in the output what its cards will need beside what training writes."""
    for name, plan in plans.items():
        base = metadata[name]
        noted = {
            "name": name,
            "run": "." if folders[name] == output else "..",
            **to_plain(plan.recipe),
            "pins": {role: _plain_pin(pin) for role, pin in plan.pins.items()},
            "chat_template_sha256": plan.chat_template_sha256,
            "base": None if base is None else {key: getattr(base, key) for key in _LICENSE},
        }
        hub.write_json(folders[name] / VARIANT, noted)
    if recipe.has_variants:
        hub.write_json(output / TWINS, {"variants": list(plans), **to_plain(recipe)})


def _plain_pin(pin: hub.Pinned) -> dict[str, Any]:
    return {**asdict(pin), "path": None if pin.path is None else str(pin.path)}


# --- afterwards


def variants_in(output: Path) -> dict[str, Variant]:
    """The variants of an output folder: the twins below it, or the one that it holds; empty for other folders."""
    if (output / TWINS).is_file():
        folders = [output / name for name in _read(output / TWINS)["variants"]]
        found = [_read_variant(folder) for folder in folders if (folder / VARIANT).is_file()]
    else:
        found = [_read_variant(output)] if (output / VARIANT).is_file() else []
    return {variant.name: variant for variant in found}


def twins_recipe(output: Path) -> Recipe | None:
    """The recipe with `variants:` that an output folder of twins was made from."""
    return from_plain(_read(output / TWINS)) if (output / TWINS).is_file() else None


def _read_variant(folder: Path) -> Variant:
    noted = _read(folder / VARIANT)
    pins = {
        role: hub.Pinned(**{**pin, "path": Path(pin["path"]) if pin["path"] else None})
        for role, pin in noted["pins"].items()
    }
    base = noted["base"]
    return Variant(
        name=noted["name"],
        folder=folder,
        run=folder if noted["run"] == "." else folder.parent,
        plan=Plan(from_plain(noted), pins, noted["chat_template_sha256"]),
        base_metadata=None if base is None else hub.RepoMetadata(**base, card={}),
    )


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


# --- cards


def write_cards(output: Path, repos: Mapping[str, str]) -> list[CardFacts]:
    """recipe.yaml and README.md of every trained variant, and the comparison's card where there are several.

    Args:
        repos: variant -> the repository it is or will be published to.
    """
    from inspo_hub.card import published_yaml, write_model_card, write_twin_card

    trained = [variant for variant in variants_in(output).values() if variant.summary is not None]
    facts = [_card_facts(variant, repos) for variant in trained]
    for variant, one in zip(trained, facts, strict=True):
        (variant.folder / "recipe.yaml").write_text(published_yaml(variant.recipe), encoding="utf-8")
        write_model_card(variant.folder, one)
    recipe = twins_recipe(output)
    if recipe is not None and len(facts) > 1:
        write_twin_card(output, recipe, facts)
    return facts


def _card_facts(variant: Variant, repos: Mapping[str, str]) -> CardFacts:
    """What the card of a variant says."""
    from inspo_hub.card import CardFacts

    report, data = variant.run / "report", variant.folder / "report" / "data.json"
    assert variant.summary is not None, "a card is written about a training that has ended"
    return CardFacts(
        variant=variant.name,
        recipe=variant.recipe,
        base=variant.plan.model,
        summary=variant.summary,
        lock=_read(variant.folder / LOCK_FILE),
        base_metadata=variant.base_metadata,
        train=variant.plan.train,
        heldout=variant.plan.heldout,
        reference=variant.plan.reference,
        metrics=_records(variant.folder / "metrics.jsonl"),
        data_report=_read(data) if data.is_file() else None,
        evaluation=evaluation_of(variant.run),
        preferences=measurement_of(variant.run, "preferences"),
        latency=measurement_of(variant.run, "latency"),
        repo_id=repos.get(variant.name),
        twins=_twins(variant, repos),
        example=_example(report),
        samples=_samples(report),
        base_adapter=variant.plan.base_adapter,
    )


def evaluation_key(recipe: Recipe, summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What an evaluation depends on: its settings, and what was trained."""
    assert recipe.evaluate is not None, "asked for only where the recipe evaluates"
    answers = recipe.evaluate.model_dump(mode="json", exclude={"preferences", "latency"})
    return _key([answers, recipe.seed], summaries)


def measurement_key(
    recipe: Recipe, name: Measurement, summaries: Mapping[str, Mapping[str, Any]]
) -> dict[str, str] | None:
    """The same for one of the measurements beside the answers; None where the recipe does not ask for it."""
    section = None if recipe.evaluate is None else getattr(recipe.evaluate, name)
    if recipe.evaluate is None or section is None:
        return None
    return _key([section.model_dump(mode="json"), recipe.evaluate.bootstrap, recipe.seed], summaries)


def _key(what: object, summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    settings = json.dumps(what, sort_keys=True)
    training = json.dumps({name: summary["training"] for name, summary in summaries.items()}, sort_keys=True)
    return {
        "settings": hashlib.sha256(settings.encode()).hexdigest(),
        "training": hashlib.sha256(training.encode()).hexdigest(),
    }


def evaluation_of(run: Path) -> dict[str, Any] | None:
    """comparison.json of a run, where it is about the weights that lie there now; None otherwise."""
    done, comparison = run / "report" / EVALUATED, run / "report" / "comparison.json"
    recipe, known = _trained(run)
    if recipe is None or recipe.evaluate is None or not comparison.is_file():
        return None
    same = done.is_file() and _read(done) == evaluation_key(recipe, known)
    return _read(comparison) if same else None


def measurement_of(run: Path, name: Measurement) -> dict[str, Any] | None:
    """What `report/<name>.json` holds, where it is about the weights that lie there now; None otherwise."""
    file = run / "report" / f"{name}.json"
    recipe, known = _trained(run)
    if recipe is None or not file.is_file():
        return None
    found = _read(file)
    return found if found.pop("of", None) == measurement_key(recipe, name, known) else None


def _trained(run: Path) -> tuple[Recipe | None, dict[str, dict[str, Any]]]:
    """The recipe of a run and its variants' summaries; no recipe where one of them is not trained to its end."""
    variants = variants_in(run)
    recipe = twins_recipe(run) or next((variant.recipe for variant in variants.values()), None)
    summaries = {name: variant.summary for name, variant in variants.items()}
    known = {name: summary for name, summary in summaries.items() if summary is not None}
    return recipe if len(known) == len(summaries) else None, known


def _twins(variant: Variant, repos: Mapping[str, str]) -> Sequence[Any]:
    from inspo_hub.card import Twin

    others = [other for name, other in variants_in(variant.run).items() if name != variant.name]
    return [
        Twin(name=other.name, summary=other.summary, repo_id=repos.get(other.name))
        for other in others
        if other.summary is not None
    ]


def _records(file: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def _samples(report: Path, most: int = 8) -> list[dict[str, Any]]:
    """The first answers of the evaluation."""
    file = report / "generations.jsonl"
    if not file.is_file():
        return []
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, most)]


def _example(report: Path) -> list[dict[str, str]] | None:
    """The first prompt that was answered in the evaluation, as messages; None where there was none."""
    generations = report / "generations.jsonl"
    if not generations.is_file():
        return None
    with generations.open(encoding="utf-8") as file:
        return list(json.loads(file.readline())["prompt"])
