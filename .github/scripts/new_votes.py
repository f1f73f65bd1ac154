"""Whether a recipe's data moved since its models were published: exit 0 where they did, 10 where they did not."""

from __future__ import annotations

import json
import sys

from inspo_hub import hub
from inspo_hub.errors import ResolutionError
from inspo_hub.publish import repositories
from inspo_hub.recipe import load_recipe

UNCHANGED = 10


def main(path: str) -> int:
    recipe = load_recipe(path)
    variants = recipe.variant_recipes()
    repos = repositories({name: one.publish for name, one in variants.items()}, twins=bool(recipe.variants))
    assert repos, f"{path} publishes nothing: there is nothing to compare with"
    now = {f"data.train.{index}": source for index, source in enumerate(recipe.data.train)}
    for role, source in now.items():
        sha = hub.resolve("dataset", source.id, source.revision).sha
        before = {seen(repo, role) for repo in repos.values()}
        if before != {sha}:
            sys.stdout.write(f"{source.id} is at {sha}, the published models saw {before}\n")
            return 0
    sys.stdout.write("the published models saw these data\n")
    return UNCHANGED


def seen(repo: str, role: str) -> str | None:
    """The commit of a data set that a published model was trained on; None where nothing is published."""
    try:
        pinned = hub.resolve("model", repo)
        listed = {file.path: file for file in hub.list_files(pinned)}
        if "lock.json" not in listed:
            return None
        folder = hub.fetch_files(pinned, [listed["lock.json"]], hub.DEFAULT_PATIENCE)
    except ResolutionError:
        return None
    pins = json.loads((folder / "lock.json").read_text(encoding="utf-8"))["pins"]
    return pins.get(role, {}).get("sha")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
