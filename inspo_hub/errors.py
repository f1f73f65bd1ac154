"""What can go wrong, and the exit code of each.

InspoError             1
├── RecipeError        2   the recipe is wrong
├── DataError          2   the recipe's data is wrong
├── ResolutionError    3   something on the Hub (or on disk) cannot be found or reached
├── JudgeError         3   a judge cannot be reached or does not answer
├── TrainingError      4   training stopped: non-finite loss, memory
└── PublishError       5   trained, but not everything is published
"""

from __future__ import annotations

from typing import ClassVar

INTERRUPTED_EXIT_CODE = 130


class InspoError(Exception):
    """A user's problem, said in one message: what is wrong, where, what was expected, how to fix it.

    Args:
        what: the problem, with the offending value.
        where: recipe key, file and line, or repo@sha and row.
        expected: what would have been right.
        fix: what to do now.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", expected: str = "", fix: str = "") -> None:
        self.what, self.where, self.expected, self.fix = what, where, expected, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, str | int]:
        """The same as one JSON object, for `--json`."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "what": self.what,
            "where": self.where,
            "expected": self.expected,
            "fix": self.fix,
        }


class RecipeError(InspoError):
    exit_code = 2


class DataError(InspoError):
    exit_code = 2


class ResolutionError(InspoError):
    exit_code = 3


class JudgeError(InspoError):
    exit_code = 3


class TrainingError(InspoError):
    exit_code = 4


class PublishError(InspoError):
    exit_code = 5
