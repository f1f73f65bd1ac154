"""What is wrong with a recipe, and how several problems become one error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspo_hub.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it stands, which key, what was expected and how to fix it."""

    origin: str
    """`file:line`, or the override that brought it in; empty where nothing is known."""
    path: str
    """Dotted path of the key, `data.train.0.id`; empty for the file as a whole."""
    what: str
    expected: str = ""
    fix: str = ""

    @property
    def where(self) -> str:
        return ": ".join(part for part in (self.origin, self.path) if part)

    def __str__(self) -> str:
        return str(RecipeError(self.what, where=self.where, expected=self.expected, fix=self.fix))

    def to_dict(self) -> dict[str, str]:
        return {
            "where": self.origin,
            "path": self.path,
            "what": self.what,
            "expected": self.expected,
            "fix": self.fix,
        }


class RecipeProblems(RecipeError):
    """Everything that is wrong with one recipe, in the order of its lines."""

    def __init__(self, problems: Sequence[Problem], *, recipe: str) -> None:
        assert problems, "an error needs a problem"
        self.problems = tuple(dict.fromkeys(problems))
        first = self.problems[0]
        if len(self.problems) == 1:
            super().__init__(first.what, where=first.where, expected=first.expected, fix=first.fix)
            return
        listed = "\n".join(str(problem) for problem in self.problems)
        super().__init__(f"{len(self.problems)} problems\n{listed}", where=recipe)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "problems": [problem.to_dict() for problem in self.problems]}
