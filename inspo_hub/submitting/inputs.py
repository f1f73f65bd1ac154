"""What travels to a Job inside its request: the resolved recipe and the small files that it names. Data do not."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inspo_hub.errors import DataError, RecipeError
from inspo_hub.recipe import is_path
from inspo_hub.recipe.writing import write_yaml

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

RECIPE_FILE, PROFILE_FILE = "recipe.yaml", "accelerate.yaml"
LARGEST = 120_000
"""Characters of the packed inputs: Linux takes 128 KiB in one environment variable."""


def gather_inputs(recipe: Recipe, profile: Path | None = None) -> dict[str, bytes]:
    """Name in the Job's folder -> content: the recipe, judge and chat template it names, a launch profile.

    Raises:
        DataError: the recipe names a model or data on this machine, which a Job cannot see.
        RecipeError: a file lies where it cannot travel from.
    """
    check_travels(recipe)
    plain = {key: value for key, value in recipe.portable().items() if key != "root"}
    files = {RECIPE_FILE: write_yaml(plain).encode()}
    for key, path, written in _small_files(recipe):
        if not written.startswith("./"):
            raise RecipeError(
                f"{path} does not lie beside the recipe, so it cannot travel with it",
                where=key,
                expected="a path relative to the recipe, below its folder",
                fix="move it beside the recipe and write `./name`",
            )
        name = written.removeprefix("./")
        assert name not in (RECIPE_FILE, PROFILE_FILE), name
        files[name] = _read(path, key)
    if profile is not None:
        files[PROFILE_FILE] = profile.read_bytes()
    return files


def pack(files: Mapping[str, bytes]) -> str:
    """The files as base64 of a .tar.gz: the same text for the same files. Raises RecipeError where it is too large."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    text = base64.b64encode(buffer.getvalue()).decode()
    if len(text) > LARGEST:
        sizes = ", ".join(f"{name} {len(content):,} B" for name, content in sorted(files.items()))
        raise RecipeError(
            f"the recipe and its files come to {len(text):,} characters: {sizes}",
            where="submit",
            expected=f"at most {LARGEST:,} characters, which is what a Job's environment takes",
            fix="shorten the judge or the chat template, or put them into a package: `package.module:function`",
        )
    return text


def check_travels(recipe: Recipe) -> None:
    """Raises DataError where the recipe names a model or data set on this machine."""
    local = dict(_local_repositories(recipe))
    if local:
        listed = "\n".join(f"  {key}: {path}" for key, path in local.items())
        raise DataError(
            f"a Job cannot see what lies on this machine only:\n{listed}",
            where="submit",
            expected="models and data on the Hub",
            fix="bring each there with `hf upload OWNER/NAME FOLDER --private` (data: --repo-type dataset), "
            "and name OWNER/NAME in the recipe",
        )


def _local_repositories(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(Key, path) of every model and data set that is a local path, the variants' included."""
    for variant in recipe.variant_recipes().values():
        named = {
            "model.id": variant.model.id,
            "model.tokenizer": variant.model.tokenizer,
            "reference.id": variant.reference.id,
            "adapter.base_adapter": variant.adapter.base_adapter if variant.adapter else None,
            "evaluate.prompts.id": variant.evaluate.prompts.id if variant.evaluate else None,
        }
        for part, sources in (("train", variant.data.train), ("heldout", variant.data.heldout)):
            if isinstance(sources, tuple):
                named |= {f"data.{part}.{index}.id": source.id for index, source in enumerate(sources)}
        yield from ((key, name) for key, name in named.items() if name is not None and is_path(name))


def _small_files(recipe: Recipe) -> Iterator[tuple[str, Path, str]]:
    """(Key, path here, path as written) of the files that a recipe names beside models and data."""
    for variant in recipe.variant_recipes().values():
        if variant.model.chat_template:
            yield "model.chat_template", Path(variant.model.chat_template), variant.written(variant.model.chat_template)
        judge = getattr(variant.evaluate.judge, "python", None) if variant.evaluate else None
        file = judge.rpartition(":")[0] if judge else ""
        if file.endswith(".py"):
            yield "evaluate.judge.python", Path(file), variant.written(file)


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror}", where=key, expected="a file that is there"
        ) from error
