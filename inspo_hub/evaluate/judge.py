"""Judges that are Python functions: `judge(prompt: str, response: str) -> float`, higher is better.

`prompt` is the user's words (every turn as `role: words` where there are several), `response` the answer's text without
special tokens. The same two texts must get the same score. A judge's module may also define
`well_formed(prompt: str, response: str) -> bool`; its share is then reported beside the scores.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from inspo_hub.errors import JudgeError, RecipeError

WHERE = "evaluate.judge.python"


@dataclass(frozen=True, slots=True)
class Judge:
    """A judge that scores one answer on its own, so that any two systems can be compared afterwards."""

    name: str
    function: Callable[[str, str], float]
    well_formed: Callable[[str, str], bool] | None = None

    @property
    def shown_name(self) -> str:
        """The name for others to read: without the folders of this machine."""
        return Path(self.name).name

    def score(self, prompt: str, response: str) -> float:
        """The function's score as a float. Whatever it raises, and what is no finite number, is a JudgeError."""
        try:
            value = self.function(prompt, response)
        except Exception as error:  # the user's own code may raise anything; it becomes their message
            raise JudgeError(
                f"the judge raised {type(error).__name__}: {error}",
                where=f"{WHERE}: {self.name}",
                expected=f"a number for the prompt {prompt[:80]!r} and the answer {response[:80]!r}",
            ) from error
        is_number = isinstance(value, int | float) and not isinstance(value, complex)
        if not is_number or not math.isfinite(value):
            raise JudgeError(
                f"the judge returned {value!r}",
                where=f"{WHERE}: {self.name}",
                expected="a finite number, higher for better answers",
            )
        return float(value)


def load_judge(name: str, *, folder: Path = Path()) -> Judge:
    """The judge that `file.py:function` (the file relative to `folder`) or `package.module:function` names."""
    source, _, function_name = name.rpartition(":")
    if not source or not function_name.isidentifier():
        raise RecipeError(
            f"{name!r} names no function", where=WHERE, expected="`file.py:function` or `package.module:function`"
        )
    module = _load_file(folder / source, name) if source.endswith(".py") else _load_module(source, name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise RecipeError(
            f"there is no function {function_name!r} in {source}",
            where=WHERE,
            expected="a function judge(prompt: str, response: str) -> float",
        )
    well_formed = getattr(module, "well_formed", None)
    # Reports name the file, not where it lies on this machine.
    shown = f"{Path(source).name}:{function_name}" if source.endswith(".py") else name
    return Judge(shown, function, well_formed if callable(well_formed) else None)


def _load_module(source: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(source)
    except ImportError as error:
        raise RecipeError(
            f"the judge {name!r} cannot be imported: {error}",
            where=WHERE,
            expected="an importable module",
            fix="install its package, or name a file: `file.py:function`",
        ) from error


def _load_file(path: Path, name: str) -> ModuleType:
    """The file as a module of its own. It may import files beside it by name; their names stay free for others."""
    if not path.is_file():
        raise RecipeError(f"there is no file {path}", where=WHERE, expected="a Python file, relative to the recipe")
    path = path.resolve()
    # Two judges may both be called judge.py: the path makes the module's name.
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    module_name = f"inspo_hub_judge_{digest}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up while they are made
    try:
        with _importing_from(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:  # the user's file may raise anything while it is imported
        del sys.modules[module_name]
        raise RecipeError(
            f"the judge {name!r} cannot be loaded: {type(error).__name__}: {error}",
            where=WHERE,
            expected="a file that imports without an error",
        ) from error
    return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Imports find `folder` first, and the modules that come from it are forgotten afterwards."""
    beside = {file.stem for file in folder.glob("*.py")}
    hidden = {name: sys.modules.pop(name) for name in beside & sys.modules.keys()}
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in beside:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)
