"""The comparison of a run's variants on the Hub: its card with every answer as a dataset, and a Collection."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub import hub
from inspo_hub.describing import twins_recipe
from inspo_hub.errors import PublishError
from inspo_hub.recipe.writing import write_yaml

if TYPE_CHECKING:
    from inspo_hub.card import CardFacts
    from inspo_hub.recipe import Recipe

FOLDER = ".comparison"
"""In a run's output: the dataset as it is published; hidden, so that no other push takes it along."""
GENERATIONS, METRICS = "generations.jsonl", "metrics.jsonl"
_ROWS = {
    GENERATIONS: "one prompt and sample per row, with every system's answer, the judge's score of it and its length; "
    "`base` is the model before training",
    METRICS: "what training logged of every `variant`, by `step` and `split` (`train` or `heldout`)",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Where the comparison stands."""

    dataset: str
    dataset_sha: str
    dataset_url: str
    collection_url: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def publish_comparison(output: Path, facts: Sequence[CardFacts], repo: str, *, private: bool) -> Comparison:
    """Pushes the dataset and fills the Collection; may be repeated. `facts` are those of the variants' cards.

    Raises:
        PublishError: no variant was trained to the end.
        HubFailure: the Hub did not take it.
    """
    if not facts:
        raise PublishError(
            "there is nothing to compare",
            where=str(output),
            expected="the output of a run that came to its end",
            fix="run the recipe again: it goes on where it stopped",
        )
    recipe = twins_recipe(output) or facts[0].recipe
    folder = write_comparison(output, recipe, facts)
    commit = hub.push_folder(folder, repo, kind="dataset", message="Comparison of the variants", private=private)
    collection = hub.gather(
        recipe.name,
        list(_items(facts, repo)),
        namespace=repo.split("/")[0],
        description=recipe.description or f"{' and '.join(each.variant for each in facts)}, trained by inspo_hub",
        private=private,
    )
    return Comparison(repo, commit.sha, hub.repo_url(repo, "dataset"), collection)


def write_comparison(output: Path, recipe: Recipe, facts: Sequence[CardFacts]) -> Path:
    """The dataset's folder: the comparison's card and pictures, the answers of the evaluation, the logged metrics."""
    from inspo_hub.card import write_twin_card

    folder = output / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_twin_card(folder, recipe, facts)
    evaluated = facts[0].evaluation is not None
    if evaluated:
        shutil.copy2(output / "report" / GENERATIONS, folder / GENERATIONS)
        (folder / "report").mkdir(exist_ok=True)
        shutil.copy2(output / "report" / "comparison.json", folder / "report" / "comparison.json")
    lines = [json.dumps({"variant": each.variant, **record}) for each in facts for record in each.metrics]
    (folder / METRICS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    card = folder / "README.md"
    files = [GENERATIONS, METRICS] if evaluated else [METRICS]
    text = f"{_front_matter(recipe, files)}\n{card.read_text(encoding='utf-8')}\n{_rows(files)}"
    card.write_text(text, encoding="utf-8", newline="\n")
    return folder


def _front_matter(recipe: Recipe, files: Sequence[str]) -> str:
    """What the Hub's viewer and `load_dataset` read: one configuration for each file, the answers first."""
    configs: list[dict[str, Any]] = [{"config_name": Path(name).stem, "data_files": name} for name in files]
    configs[0]["default"] = True
    data = {
        "pretty_name": f"{recipe.name}: comparison",
        "task_categories": ["text-generation"],
        "tags": ["inspo_hub", "preference-optimization"],
        "configs": configs,
    }
    return f"---\n{write_yaml(data)}---\n"


def _rows(files: Sequence[str]) -> str:
    return "## Rows\n\n" + "".join(f"- `{Path(name).stem}`: {_ROWS[name]}.\n" for name in files)


def _items(facts: Sequence[CardFacts], dataset: str) -> Iterator[hub.CollectionItem]:
    """The variants, their comparison, what they were made of, and the papers; each once."""
    from inspo_hub.card import papers_of

    for each in facts:
        assert each.repo_id is not None, "a variant without repository is not published"
        how = f"{each.recipe.objective.name} × {each.recipe.conditioning.name}"
        yield hub.CollectionItem(each.repo_id, "model", f"{each.variant}: {how}")
    yield hub.CollectionItem(dataset, "dataset", "the variants side by side: answers, scores, training curves")
    if not facts[0].base.is_local:
        yield hub.CollectionItem(facts[0].base.id, "model", "the base")
    for name in dict.fromkeys(name for each in facts for name in each.hub_datasets):
        yield hub.CollectionItem(name, "dataset", "preference pairs")
    for arxiv in papers_of(facts):
        yield hub.CollectionItem(arxiv, "paper")
