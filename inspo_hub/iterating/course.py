"""The rounds of a recipe, one after the other; a kill at any moment, and the same command goes on.

<output>/iterate.json            the recipe with every revision pinned
<output>/.sampled/round-1/       what the policy answered and a judge was asked, as it came
<output>/pairs/                  a data set: round-1/train.jsonl, its manifest, a card
<output>/round-1/                the round's training, as `inspo-hub run` leaves one
<output>/report/                 all rounds against the model before the first, where the recipe evaluates
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspo_hub import hub
from inspo_hub.errors import DataError, InspoError, RecipeError
from inspo_hub.iterating.datasets import publish_pairs, write_card, write_pairs
from inspo_hub.iterating.pairing import turn
from inspo_hub.iterating.pinning import pinned_recipe, prompts_pin, same_but_rounds
from inspo_hub.iterating.rounds import PairsSource, Policy, round_name, round_recipe
from inspo_hub.preparation import variant_folders
from inspo_hub.recipe import Recipe, load_recipe
from inspo_hub.recipe.kept import from_plain, to_plain
from inspo_hub.workflow import output_folder, run_recipe

log = logging.getLogger(__name__)

STATE = "iterate.json"
RESULT = "rounds.json"


def iterate(
    recipe_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    rounds: int | None = None,
    output: str | Path | None = None,
) -> int:
    """Carries out the rounds of a recipe file; returns the exit code (0, or 130 where a signal stopped a training).

    Args:
        overrides: dotted `key=value` settings, as `--set` takes them.
        rounds: in place of `iterate.rounds`.
        output: folder of everything; `outputs/<name>` by default.

    Raises:
        InspoError: whatever is wrong, with its exit code.
    """
    recipe = load_recipe(recipe_path, overrides)
    return iterate_recipe(recipe, output_folder(recipe, output), rounds=rounds)


def iterate_recipe(recipe: Recipe, output: Path, *, rounds: int | None = None) -> int:
    """The same for a recipe that is loaded already. Variants have rounds of their own, each on its own answers."""
    from accelerate import PartialState

    if recipe.iterate is None:
        raise RecipeError("the recipe has no rounds", where="iterate", expected="a section with its prompts")
    if PartialState().num_processes > 1:
        raise InspoError("rounds are sampled by one process", fix="start `inspo-hub iterate` without a launcher")
    folders = variant_folders(recipe, output)
    for name, variant in recipe.variant_recipes().items():
        course = Course.open(variant, folders[name], None if folders[name] == output else name)
        exit_code = course.run(rounds or recipe.iterate.rounds)
        if exit_code:
            return exit_code
    return 0


def results(
    recipe_path: str | Path, overrides: Sequence[str] = (), *, output: str | Path | None = None
) -> dict[str, Any]:
    """Where the rounds are and what they were made of, for programs."""
    recipe = load_recipe(recipe_path, overrides)
    folder = output_folder(recipe, output)
    files = {name: each / RESULT for name, each in variant_folders(recipe, folder).items()}
    rounds = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    return {"output": str(folder), "variants": rounds}


@dataclass(frozen=True, kw_only=True)
class Course:
    """All rounds of one variant."""

    recipe: Recipe
    """Pinned."""
    folder: Path
    variant: str | None
    """Its name among its twins; None where there are none."""

    @classmethod
    def open(cls, recipe: Recipe, folder: Path, variant: str | None) -> Course:
        """A new course, or the one in the folder with what it was pinned to.

        Raises:
            RecipeError: the folder holds rounds of another recipe.
        """
        state, asked = folder / STATE, same_but_rounds(recipe)
        if state.is_file():
            known = json.loads(state.read_text(encoding="utf-8"))
            if known["asked"] != asked:
                raise RecipeError(
                    "the output folder holds rounds of another recipe",
                    where=str(state),
                    expected="the recipe that the first round started with; only iterate.rounds may change",
                    fix="choose another --output",
                )
            return cls(recipe=from_plain(known["pinned"]), folder=folder, variant=variant)
        pinned = pinned_recipe(recipe)
        hub.write_json(state, {"asked": asked, "pinned": to_plain(pinned)})
        return cls(recipe=pinned, folder=folder, variant=variant)

    def run(self, rounds: int) -> int:
        """Every round that is not done yet, then the comparison; 130 where a signal stopped a training."""
        policy, done = Policy.initial(self.recipe), []
        for number in range(1, rounds + 1):
            manifest = self.pairs(number, policy)
            source = self.source(number, manifest)
            log.info("%s: %s", round_name(number), _told(manifest))
            recipe = round_recipe(self.recipe, number, policy, source, variant=self.variant)
            folder = self.folder / round_name(number)
            exit_code = run_recipe(recipe, folder)
            if exit_code:
                return exit_code
            policy = policy.after(self.recipe, folder)
            done.append({"round": number, "output": str(folder), **manifest})
        hub.write_json(self.folder / RESULT, done)
        if self.recipe.evaluate is not None:
            from inspo_hub.iterating.comparing import compare_rounds

            compare_rounds(self.recipe, self.folder, rounds)
        return 0

    def pairs(self, number: int, policy: Policy) -> dict[str, Any]:
        """The manifest of a round's pairs, made from the policy's answers where that has not been done.

        Raises:
            DataError: the pairs are not those that were made, or the judge found nothing to prefer.
        """
        folder = self.folder / "pairs" / round_name(number)
        manifest = folder / "manifest.json"
        if manifest.is_file():
            known: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
            _check(folder / "train.jsonl", known)
            return known
        from inspo_hub.evaluate import prompts_from_rows
        from inspo_hub.iterating.sampling import Sampler
        from inspo_hub.pairs import PairSource, load_rows

        assert self.recipe.iterate is not None
        section = self.recipe.iterate.prompts
        local = hub.fetch(prompts_pin(self.recipe))
        rows = load_rows(PairSource(id=section.id, local_path=str(local), config=section.config, split=section.split))
        prompts = prompts_from_rows(
            turn(rows, self.recipe.iterate.limit, number), column=section.column, name=Path(section.id).name
        )
        sampler = Sampler(recipe=self.recipe, policy=policy, number=number)
        pairing, how = sampler.pairing(prompts, self.folder / ".sampled" / round_name(number))
        if not pairing.rows:
            raise DataError(
                f"no pair in {round_name(number)}: {pairing.ties} prompts tie, {pairing.unusable} are unusable",
                where="iterate",
                expected="prompts with a better and a worse answer",
                fix="raise iterate.samples_per_prompt, iterate.max_new_tokens or iterate.temperature",
            )
        return write_pairs(folder, pairing, how)

    def source(self, number: int, manifest: Mapping[str, Any]) -> PairsSource:
        """Where the round trains from: the file here, or the commit of the data set that holds it."""
        assert self.recipe.iterate is not None
        folder = self.folder / "pairs"
        write_card(folder, self.recipe)
        repo = self.recipe.iterate.dataset
        if repo is None:
            return PairsSource(id=str((folder / round_name(number) / "train.jsonl").resolve()))
        if self.variant is not None:
            repo = f"{repo}-{self.variant}"
        sha = publish_pairs(folder, number, repo, private=self.recipe.iterate.private)
        return PairsSource(id=repo, revision=sha, config=round_name(number))


def _check(file: Path, manifest: Mapping[str, Any]) -> None:
    """Pairs are pinned by hash: a round is never trained on others than were made for it."""
    found = hub.file_hash(file).sha256 if file.is_file() else "nothing"
    if found != manifest["sha256"]:
        raise DataError(
            f"the pairs have changed since they were made: SHA-256 {found}",
            where=str(file),
            expected=str(manifest["sha256"]),
            fix="put the file back, or remove its folder and everything of this round and later ones",
        )


def _told(manifest: Mapping[str, Any]) -> str:
    return (
        f"{manifest['pairs']} pairs from {manifest['prompts']} prompts ({manifest['ties']} ties, "
        f"{manifest['unusable']} unusable), the policy's mean score {manifest['mean_score']:.3g}"
    )
