"""Recipe file -> `Recipe`: inheritance, overrides and variants, with every problem told where it was written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from inspo_hub.recipe.checks import twin_conflicts
from inspo_hub.recipe.merging import merge
from inspo_hub.recipe.overrides import Override, apply_overrides, hidden_by_variants
from inspo_hub.recipe.paths import PathResolver, written_relative
from inspo_hub.recipe.problems import Problem, RecipeProblems
from inspo_hub.recipe.reading import Node, Origin, read_tree
from inspo_hub.recipe.schema import DEFAULT_CONDITIONING, DEFAULT_OBJECTIVE, Recipe
from inspo_hub.recipe.sweeping import MAX_VARIANTS, Point, combinations, expand, flat_sweep
from inspo_hub.recipe.validation import locate, validate

MAX_BYTES = 1_000_000
"""No recipe comes near this; a weight file given by mistake is not read."""


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a YAML file, with `key=value` overrides; raises `RecipeError` with everything that is wrong."""
    files = _Files(str(path), overrides)
    tree = files.read(Path(path), Origin(""), ())
    return _finish(tree, files, Path(path).absolute().parent)


def parse_recipe(
    text: str, overrides: Sequence[str] = (), *, source: str = "<recipe>", folder: str | os.PathLike[str] | None = None
) -> Recipe:
    """The recipe of a text, such as one embedded in a card; relative paths start from `folder`, or lead nowhere."""
    start = None if folder is None else Path(folder).absolute()
    files = _Files(source, overrides)
    return _finish(files.parse(text, source, start, ()), files, start)


class _Files:
    """Reads overrides, a recipe file and those it extends; gathers their problems and their relative paths."""

    def __init__(self, recipe: str, overrides: Sequence[str]) -> None:
        self.recipe = recipe
        self.problems: list[Problem] = []
        self.relative: set[str] = set()
        self.overrides = list(self.parse_overrides(overrides))

    def parse_overrides(self, overrides: Sequence[str]) -> Iterator[Override]:
        """Paths on the command line start from the working directory, as everywhere in a shell."""
        resolver = PathResolver(Path.cwd(), self.problems, self.relative)
        for text in overrides:
            try:
                override = Override.parse(text)
            except RecipeProblems as error:
                self.problems.extend(error.problems)
                continue
            value = override.value
            if override.keys == ("root",) and isinstance(value.value, str):
                value = Node(os.path.abspath(os.path.expanduser(value.value)), value.origin)
            yield replace(override, value=resolver.resolve(value, override.path))

    def root_override(self) -> Node | None:
        """The last `--set root=…`: paths are resolved while the file is read, so it has to be known before."""
        return next((override.value for override in reversed(self.overrides) if override.keys == ("root",)), None)

    def fail(self, problem: Problem) -> RecipeProblems:
        return RecipeProblems([*self.problems, problem], recipe=self.recipe)

    def read(self, file: Path, asked_at: Origin, chain: tuple[Path, ...]) -> Node:
        source = str(file)
        where, named = ((str(asked_at), "extends"), f"{source} ") if chain else ((source, ""), "")
        try:
            if file.stat().st_size > MAX_BYTES:
                raise self.fail(Problem(*where, f"{named}is too large for a recipe", f"at most {MAX_BYTES:,} bytes"))
            text = file.read_text(encoding="utf-8-sig")
        except OSError as error:
            what = f"{named}cannot be read: {error.strerror}"
            raise self.fail(Problem(*where, what, "a YAML file", "check the path")) from error
        except UnicodeDecodeError as error:
            raise self.fail(Problem(source, "", f"not a text: {error.reason}", "YAML in UTF-8")) from error
        return self.parse(text, source, file.absolute().parent, (*chain, file.resolve()))

    def parse(self, text: str, source: str, folder: Path | None, chain: tuple[Path, ...]) -> Node:
        tree = read_tree(text, source)
        if not isinstance(tree.value, dict):
            raise self.fail(Problem(str(tree.origin), "", "not a mapping", "a recipe: `key: value` lines"))
        keys = dict(tree.value)
        parent, root = keys.pop("extends", None), keys.get("root")
        if len(chain) <= 1:
            root = self.root_override() or root
        start = _root(root, folder)
        resolver = PathResolver(start, self.problems, self.relative)
        tree = resolver.resolve(Node(keys, tree.origin))
        if parent is None or parent.value is None:
            return tree
        return replace(merge(self.extended(parent, source, folder, chain), tree), origin=tree.origin)

    def extended(self, parent: Node, source: str, folder: Path | None, chain: tuple[Path, ...]) -> Node:
        """The tree that `extends` names; its `root` is its own and is not handed down."""
        if not isinstance(parent.value, str) or folder is None:
            expected = "the path of a recipe, relative to this file"
            raise self.fail(Problem(str(parent.origin), "extends", f"{parent.plain()!r} names no file", expected))
        file = Path(os.path.normpath(Path(source).parent / parent.value)) if chain else folder / parent.value
        if file.resolve() in chain:
            circle = " -> ".join(path.name for path in (*chain, file))
            raise self.fail(Problem(str(parent.origin), "extends", f"a circle: {circle}", "a chain with an end"))
        tree = self.read(file, parent.origin, chain)
        assert isinstance(tree.value, dict)
        return Node({key: child for key, child in tree.value.items() if key != "root"}, tree.origin)


def _root(root: Node | None, folder: Path | None) -> Path | None:
    """Where relative paths start: `root`, itself relative to the file's folder, or that folder."""
    if root is None or not isinstance(root.value, str):
        return folder
    path = Path(root.value).expanduser()
    return path if folder is None else folder / path


def _finish(tree: Node, files: _Files, folder: Path | None) -> Recipe:
    """Overrides, defaults, variants, validation: from the tree of the files to the recipe."""
    tree, unapplied = apply_overrides(tree, files.overrides)
    tree = flat_sweep(tree)
    problems = [*files.problems, *unapplied, *hidden_by_variants(tree, files.overrides)]
    assert isinstance(tree.value, dict)
    root = _root(tree.value.get("root"), folder)
    if root is not None:
        tree = Node(tree.value | {"root": Node(os.path.normpath(root), tree.origin)}, tree.origin)
    tree = _with_empty_variants(tree)
    recipe, found = validate(tree)
    twins: dict[str | None, Recipe | None] = {}
    for point, merged in _variant_trees(tree):
        twin, wrong = validate(merged)
        twins.setdefault(point.variant, twin)  # what a sweep changes is no twin's own
        found.extend(_as_written(problem, point, tree) for problem in wrong)
    problems.extend(found)
    if recipe is not None and not problems:
        conflicts = twin_conflicts({name: twin for name, twin in twins.items() if name and twin is not None})
        problems.extend(locate(tree, conflict) for conflict in conflicts)
    if recipe is None or problems:
        raise RecipeProblems(sorted(problems, key=_reading_order), recipe=files.recipe)
    if root is not None:
        recipe._written_paths.update(written_relative(files.relative, root))
    return recipe


def _with_empty_variants(tree: Node) -> Node:
    """`variants: {plain: }` is a twin that differs in nothing; `variants: null` takes away an extended file's."""
    assert isinstance(tree.value, dict)
    variants = tree.value.get("variants")
    if variants is None:
        return tree
    value = {} if variants.value is None else variants.value
    if isinstance(value, dict):
        value = {name: Node({}, node.origin) if node.value is None else node for name, node in value.items()}
    return Node(tree.value | {"variants": Node(value, variants.origin)}, tree.origin)


def _variant_trees(tree: Node) -> Iterator[tuple[Point, Node]]:
    """Each variant merged over the rest, where an unnamed objective or conditioning is the default one."""
    assert isinstance(tree.value, dict)
    variants, sweep = ({}, {})
    if (node := tree.value.get("variants")) is not None and isinstance(node.value, dict):
        variants = {name: keys for name, keys in node.value.items() if isinstance(keys.value, dict)}
    if (node := tree.value.get("sweep")) is not None and isinstance(node.value, dict):
        sweep = node.value
    if not (variants or sweep) or combinations(variants, sweep) > MAX_VARIANTS:
        return
    defaults = {
        "objective": Node.of({"name": DEFAULT_OBJECTIVE}),
        "conditioning": Node.of({"name": DEFAULT_CONDITIONING}),
    }
    base = {key: node for key, node in (defaults | tree.value).items() if key not in ("variants", "sweep")}
    for point in expand(variants, sweep):
        yield point, merge(Node(base, tree.origin), point.keys)


def _as_written(problem: Problem, point: Point, tree: Node) -> Problem:
    """The problem with the path it has in the file, where it is a key of the sweep or of the variant."""
    path = problem.path
    swept = any(path == key or path.startswith(f"{key}.") for key in point.places)
    if swept and _holds(point.keys, path):
        return replace(problem, path=f"sweep.{path}")
    written = f"variants.{point.variant}.{path}"
    return replace(problem, path=written) if point.variant and _holds(tree, written) else problem


def _holds(node: Node, path: str) -> bool:
    for key in path.split("."):
        if not isinstance(node.value, dict) or key not in node.value:
            return False
        node = node.value[key]
    return True


def _reading_order(problem: Problem) -> tuple[str, int]:
    source, _, line = problem.origin.rpartition(":")
    return (source, int(line)) if line.isdigit() else (problem.origin, 0)
