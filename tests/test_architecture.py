"""The import map of the project as a test: who may know whom, what stays light, and how long things may get.

A room is a module or a package directly under `inspo_hub`. A new room, or a new dependency between two, is one line in
`MAY_IMPORT` below, and a decision.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "inspo_hub"

TENSORS = {
    "attention",
    "conditioning",
    "cost",
    "dealing",
    "kernels",
    "logprobs",
    "metrics",
    "objectives",
    "packing",
    "reference",
}
"""Rooms of numbers: they know no recipe, no repository and no file of a run."""
SETTINGS = {"card", "hub", "plan", "recipe"}
"""Rooms of names: they know no tensor, and work where torch is not installed."""

EVERYBODY = {"__init__", "errors", "quiet", "views"}
"""What any room may import: the version, the errors, the types that travel, and a logger held back for a while."""
MAY_IMPORT: Mapping[str, set[str]] = {
    "adapters": {"models"},
    "attention": {"kernels"},
    "calibration": {"cost", "logprobs", "packing", "pairs", "plan", "stopwatch"},
    "card": {"hub", "plan", "recipe"},
    "cli": {
        "doctor", "evaluate", "evaluating", "exporting", "handover", "hub", "iterating", "migrating", "models",
        "pairs", "plan", "planning", "recipe", "reporting", "reproducing", "space", "submitting", "workflow",
    },
    "comparison": {"card", "describing", "hub", "recipe"},
    "conditioning": set(),
    "cost": set(),
    "dealing": {"cost"},
    "describing": {"card", "hub", "plan", "recipe"},
    "doctor": {
        "conditioning", "cost", "dealing", "describing", "hub", "logprobs", "models", "packing", "pairs", "plan",
        "preparation", "publishing", "recipe", "training",
    },
    "errors": set(),
    "evaluate": {"adapters", "dealing", "hub", "logprobs", "models", "packing", "pairs", "recipe", "stopwatch"},
    "evaluating": {"adapters", "describing", "evaluate", "finishing", "hub", "pairs", "recipe"},
    "exporting": {"adapters", "describing", "hub", "models", "recipe"},
    "finishing": {"describing", "evaluate", "pairs", "recipe", "training"},
    "handover": {"comparison", "describing", "hub", "publish", "publishing", "space"},
    "hub": set(),
    "iterating": {
        "describing", "evaluate", "finishing", "hub", "models", "pairs", "plan", "preparation", "publish", "recipe",
        "workflow",
    },
    "kernels": {"stopwatch"},
    "logprobs": {"attention", "conditioning", "kernels", "packing", "pairs"},
    "measuring": {"describing", "evaluate", "finishing", "recipe", "training"},
    "metrics": {"conditioning"},
    "migrating": {"recipe"},
    "models": set(),
    "objectives": set(),
    "packing": {"attention", "conditioning", "pairs"},
    "pairs": set(),
    "plan": {"conditioning", "cost", "dealing", "hub", "recipe"},
    "planning": {"calibration", "hub", "plan", "recipe", "survey"},
    "preparation": {"describing", "hub", "models", "pairs", "plan", "publishing", "recipe", "training"},
    "publish": {"card", "hub", "recipe", "training"},
    "publishing": {"describing", "hub", "plan", "publish", "recipe", "training"},
    "quiet": set(),
    "recipe": {"conditioning", "objectives"},
    "reference": {"packing", "pairs"},
    "reporting": {"card", "describing"},
    "reproducing": {"card", "hub", "plan", "preparation", "recipe", "training", "workflow"},
    "run": {"cli"},
    "space": {"adapters", "describing", "evaluate", "hub", "models", "recipe"},
    "stopwatch": set(),
    "submitting": {"hub", "plan", "publish", "recipe"},
    "survey": {"conditioning", "cost", "hub", "pairs", "plan", "recipe"},
    "training": {
        "adapters", "conditioning", "cost", "dealing", "logprobs", "metrics", "models", "objectives", "packing",
        "pairs", "plan", "recipe", "reference",
    },
    "views": set(),
    "workflow": {"finishing", "hub", "measuring", "preparation", "publishing", "recipe", "reporting", "training"},
}  # fmt: skip
OWNED = {"huggingface_hub": {"hub"}, "datasets": {"pairs"}, "yaml": {"recipe"}, "gradio": set(), "typer": {"cli"}}
"""Libraries that only these rooms import, so that a change of theirs is a change of one room."""
LIGHT = sorted(
    {
        "__init__",
        "cli",
        "conditioning",
        "cost",
        "doctor",
        "errors",
        "evaluate",
        "migrating",
        "objectives",
        "pairs",
        "planning",
        "submitting",
        "survey",
        "views",
    }
    | SETTINGS
)
"""Rooms that start in well under a second and install without torch."""
HEAVY = {"torch", "transformers", "datasets", "accelerate", "safetensors", "tokenizers", "numpy", "gradio"}
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",
    "filelock": "huggingface_hub",
    "tqdm": "huggingface_hub",
    "pyarrow": "datasets",
    "jinja2": "torch",
    "markdown_it": "markdown_it_py",
}
"""Import name -> its name on the package index, or the library that always brings it."""
OPTIONAL = {"flash_attn", "liger_kernel"}
"""Used where it happens to be installed."""

MODULE_LINES, FUNCTION_LINES = 300, 40
LONGER: Mapping[str, str] = {
    "training/arguments.py:training_arguments": "one keyword per line: a table of settings, without a branch",
}
"""`file` or `file:function` that may be longer, and why."""


@dataclass(frozen=True)
class Import:
    """One import: of a module of ours where it names one, of a library by its top name otherwise."""

    target: str
    typing_only: bool
    lazy: bool
    """Within a function: it happens when the function runs."""


@dataclass(frozen=True)
class Module:
    path: Path

    @property
    def file(self) -> str:
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def name(self) -> str:
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        return self.file.partition("/")[0].removesuffix(".py")

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.path)

    @property
    def imports(self) -> tuple[Import, ...]:
        return _imports_of(self.path)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports_of(path: Path) -> tuple[Import, ...]:
    return tuple(_imports(_parsed(path), typing_only=False, lazy=False))


def _imports(node: ast.AST, *, typing_only: bool, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in _targets(child):
                yield Import(target, typing_only, lazy)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from _imports(ast.Module([statement], []), typing_only=True, lazy=lazy)
            for statement in child.orelse:
                yield from _imports(ast.Module([statement], []), typing_only=typing_only, lazy=lazy)
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, typing_only=typing_only, lazy=lazy or is_function)


def _targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        names = [alias.name for alias in node.names]
    for name in names:
        top = name.partition(".")[0]
        yield _module_of(name) if top == "inspo_hub" else top


def _module_of(name: str) -> str:
    """The longest part of a dotted name that is a module of ours; the rest names something in it."""
    while name not in _names():
        name = name.rpartition(".")[0]
    return name


@cache
def _names() -> frozenset[str]:
    return frozenset(module.name for module in modules())


@cache
def modules() -> tuple[Module, ...]:
    found = tuple(Module(path) for path in sorted(PACKAGE.rglob("*.py")) if not {"_recipes", "_spaces"} & {*path.parts})
    assert len(found) > 20, "the package has moved: these tests would pass on nothing"
    return found


def rooms() -> set[str]:
    return {module.room for module in modules()}


def room_of(target: str) -> str:
    return target.split(".")[1] if "." in target else "__init__"


def ours(module: Module) -> Iterator[tuple[Import, str]]:
    """The module's imports from other rooms, with the room."""
    for item in module.imports:
        if item.target.startswith("inspo_hub") and room_of(item.target) != module.room:
            yield item, room_of(item.target)


# --- who knows whom


def test_every_room_is_on_the_map() -> None:
    assert rooms() - {"__init__"} <= set(MAY_IMPORT)


def test_rooms_import_only_what_the_map_allows() -> None:
    trespasses = [
        f"{module.file} imports {room}"
        for module in modules()
        for _, room in ours(module)
        if room not in EVERYBODY | MAY_IMPORT.get(module.room, set())
    ]
    assert trespasses == []


def test_no_tensor_knows_a_repository_and_no_repository_knows_a_tensor() -> None:
    names = SETTINGS | {
        "cli",
        "evaluate",
        "finishing",
        "preparation",
        "publish",
        "publishing",
        "run",
        "training",
        "workflow",
    }
    for room in TENSORS:
        assert not MAY_IMPORT[room] & names, room
    for room in SETTINGS:
        assert not MAY_IMPORT[room] & {"models", "training", "pairs", "packing", "attention", "logprobs"}, room
    torch = {module.file for module in modules() if any(item.target == "torch" for item in module.imports)}
    assert not {file for file in torch if Module(PACKAGE / file).room in SETTINGS}


def test_objectives_and_conditionings_never_import_each_other() -> None:
    assert "conditioning" not in MAY_IMPORT["objectives"]
    assert "objectives" not in MAY_IMPORT["conditioning"]


def test_libraries_stay_in_the_rooms_that_own_them() -> None:
    trespasses = [
        f"{module.file} imports {item.target}"
        for module in modules()
        for item in module.imports
        if item.target in OWNED and module.room not in OWNED[item.target]
    ]
    assert trespasses == []


def test_every_library_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[^\w-]", line)[0].lower().replace("-", "_") for group in groups for line in group}
    used = {item.target for module in modules() for item in module.imports if not item.target.startswith("inspo_hub")}
    third_party = used - set(sys.stdlib_module_names) - OPTIONAL
    assert {name for name in third_party if DISTRIBUTIONS.get(name, name).lower() not in declared} == set()


def test_no_module_imports_itself_through_others() -> None:
    """Modules by what happens while they are imported, rooms by everything that ever happens."""
    at_import = {
        module.name: {
            item.target
            for item in module.imports
            if item.target.startswith("inspo_hub") and not item.typing_only and not item.lazy
        }
        for module in modules()
    }
    between: dict[str, set[str]] = {}
    for module in modules():
        reached = {room for item, room in ours(module) if not item.typing_only and room != "__init__"}
        between.setdefault(module.room, set()).update(reached)
    for graph in (at_import, between):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


# --- what stays light


def test_light_rooms_import_nothing_heavy() -> None:
    names = ["inspo_hub", *(f"inspo_hub.{room}" for room in LIGHT if room in rooms() and room != "__init__")]
    code = "\n".join(
        [
            "import sys, importlib",
            f"for name in {names!r}:",
            "    importlib.import_module(name)",
            f"    heavy = {HEAVY!r} & set(sys.modules)",
            "    assert not heavy, f'{name} imports {heavy}'",
        ]
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


# --- size and names


def test_modules_and_functions_are_short() -> None:
    """Lines of a function do not count its docstring: explaining is not what makes it long."""
    too_long = [module.file for module in modules() if len(module.path.read_text().splitlines()) > MODULE_LINES]
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > FUNCTION_LINES:
                too_long.append(f"{module.file}:{node.name}")
    assert sorted(set(too_long) - set(LONGER)) == []
    assert sorted(set(LONGER) - set(too_long)) == [], "no longer too long: take them off the list"


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None and first.end_lineno is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def test_modules_say_what_they_are_by_name_and_docstring() -> None:
    for module in modules():
        assert module.path.stem not in {"utils", "util", "common", "helpers", "misc"}, module.file
        assert ast.get_docstring(module.tree), f"{module.file} has no docstring"
