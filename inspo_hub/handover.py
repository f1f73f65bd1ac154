"""An output folder, brought to the Hub after its run: what the run left, or all of it for the first time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inspo_hub import hub
from inspo_hub.comparison import Comparison, publish_comparison
from inspo_hub.describing import Variant, twins_recipe, variants_in, write_cards
from inspo_hub.errors import PublishError, ResolutionError
from inspo_hub.publish import PublishResult, PublishSettings, destination_of, publish_output, repository_of
from inspo_hub.publishing import note_result
from inspo_hub.space import space_of_output, write_config
from inspo_hub.space.config import CONFIG_FILE


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line asks for; None: as the run's recipe says."""

    repo: str | None = None
    private: bool | None = None
    create_pr: bool | None = None
    wait_s: float | None = None
    collection: bool = False


@dataclass(frozen=True)
class Destination:
    """Where one folder goes. `variant` is None where nothing was noted about the run that made it."""

    folder: Path
    repo: str
    settings: PublishSettings
    variant: Variant | None


@dataclass(frozen=True, kw_only=True)
class Handover:
    """What stands on the Hub now and what does not, for each variant, and the comparison where it was asked for."""

    output: Path
    variants: Mapping[str, PublishResult]
    comparison: Comparison | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        complete = all(result.complete for result in self.variants.values()) and not self.problems
        return 0 if complete else PublishError.exit_code

    def lines(self) -> list[str]:
        """For people."""
        told = []
        for result in self.variants.values():
            told += [result.repo_id, *(f"  {line}" for line in result.lines(str(self.output)))]
        if self.comparison is not None:
            told += [f"comparison: {self.comparison.dataset_url}", f"collection: {self.comparison.collection_url}"]
        return [*told, *self.problems]

    def to_dict(self) -> dict[str, Any]:
        comparison = self.comparison
        return {
            "ok": self.exit_code == 0,
            "exit_code": self.exit_code,
            "output": str(self.output),
            "variants": {name: result.to_dict() for name, result in self.variants.items()},
            "comparison": None if comparison is None else comparison.to_dict(),
            "problems": self.problems,
        }


def hand_over(output: Path, wishes: Wishes) -> Handover:
    """Publishes what of an output folder is not on the Hub yet: a variant's own folder, or that of a run with twins.

    The cards are written first, so that they name the repositories. Does nothing where everything stands there.

    Raises:
        ResolutionError: everything that stands in the way (token, access, names), listed at once.
        PublishError: it is not known where to publish, or the folder holds nothing of a run.
    """
    if not output.is_dir():
        raise ResolutionError(
            "no such folder", where=str(output), expected="the output folder of a run", fix="check the path"
        )
    places = destinations(output, wishes)
    _preflight(places, wishes, output)
    facts = write_cards(output, {name: place.repo for name, place in places.items()})
    results = {name: _publish(place, wishes) for name, place in places.items()}
    for name, result in results.items():
        note_result(places[name].folder, result)
    whole = all(result.complete for result in results.values())
    if whole and variants_in(output):
        # Commits of the Hub in place of folders: `inspo-hub space deploy` takes it as it is, or as it was edited.
        write_config(output / CONFIG_FILE, space_of_output(output, published=True))
    if not wishes.collection:
        return Handover(output=output, variants=results)
    problems = ["the collection is made when every variant is published: repeat the command"]
    if not whole:
        return Handover(output=output, variants=results, problems=problems)
    private = next(iter(places.values())).settings.private is not False
    try:
        comparison = publish_comparison(output, facts, _comparison_repo(output, places, wishes), private=private)
    except hub.HubFailure as failure:
        problems = [f"the comparison is not published yet ({failure.fault.message}): repeat the command"]
        return Handover(output=output, variants=results, problems=problems)
    return Handover(output=output, variants=results, comparison=comparison)


def destinations(output: Path, wishes: Wishes) -> dict[str, Destination]:
    """Variant -> where it goes: where the command line says, else where its run did, else where its recipe says."""
    variants = variants_in(output)
    if not variants:
        return {output.name: _destination(output, None, wishes, None)}
    twins = twins_recipe(output) is not None
    return {
        name: _destination(variant.folder, variant, wishes, name if twins else None)
        for name, variant in variants.items()
    }


def known_repositories(output: Path) -> dict[str, str]:
    """Variant -> the repository it was published to, or its recipe names; without those that have neither."""
    twins = twins_recipe(output) is not None
    found = {
        name: destination_of(variant.folder) or _of_recipe(variant, name if twins else None)
        for name, variant in variants_in(output).items()
    }
    return {name: place[0] for name, place in found.items() if place is not None and place[0] is not None}


def _destination(folder: Path, variant: Variant | None, wishes: Wishes, twin: str | None) -> Destination:
    repo, settings = destination_of(folder) or _of_recipe(variant, twin) or (None, PublishSettings())
    repo = repository_of(wishes.repo, twin) if wishes.repo is not None else repo
    if repo is None:
        raise PublishError(
            "it is not known where to publish",
            where=str(folder),
            expected="a repository `owner/name`, from the run's recipe (publish.repo) or the command line",
            fix=f"name it: inspo-hub publish {folder if twin is None else folder.parent} --repo owner/name",
        )
    if wishes.private is not None:
        settings = replace(settings, private=wishes.private)
    if wishes.create_pr is not None:
        settings = replace(settings, create_pr=wishes.create_pr)
    return Destination(folder, repo, settings, variant)


def _of_recipe(variant: Variant | None, twin: str | None) -> tuple[str, PublishSettings] | None:
    """Where the recipe would publish, for a run that was stopped before it did."""
    section = variant.recipe.publish if variant is not None else None
    return None if section is None else (repository_of(section.repo, twin), PublishSettings.of(section))


def _preflight(places: Mapping[str, Destination], wishes: Wishes, output: Path) -> None:
    """Everything in the way of all repositories at once."""
    if wishes.collection and any(place.settings.create_pr for place in places.values()):
        raise PublishError(
            "a collection of pull requests cannot be made",
            where=str(output),
            expected="repositories that this token may write to",
            fix="leave out --collection or --create-pr",
        )
    runs = {place.variant.run for place in places.values() if place.variant is not None}
    if wishes.collection and runs != {output}:
        raise PublishError(
            "only a whole run can be compared",
            where=str(output),
            expected="the output folder of a run, with all of its variants",
            fix=f"inspo-hub publish {next(iter(runs), 'OUTPUT')} --collection",
        )
    writes = [hub.WriteTarget(each.repo, each.settings.private, each.settings.create_pr) for each in places.values()]
    if wishes.collection:
        writes.append(hub.WriteTarget(_comparison_repo(output, places, wishes), writes[0].private, kind="dataset"))
    hub.refuse(hub.preflight(writes=writes, create=True))


def _publish(place: Destination, wishes: Wishes) -> PublishResult:
    summary = place.variant.summary if place.variant is not None else None
    step = None if summary is None else int(summary["steps"])
    return publish_output(place.folder, place.repo, place.settings, step=step, timeout=wishes.wait_s)


def _comparison_repo(output: Path, places: Mapping[str, Destination], wishes: Wishes) -> str:
    """`owner/name-comparison`, beside the variants' repositories."""
    first = next(iter(places.values()))
    recipe = twins_recipe(output) or (first.variant.recipe if first.variant is not None else None)
    pattern = wishes.repo or (recipe.publish.repo if recipe is not None and recipe.publish is not None else None)
    if pattern is None:
        pattern = f"{first.repo.split('/')[0]}/{recipe.name if recipe is not None else first.folder.name}"
    return repository_of(pattern, "comparison")
