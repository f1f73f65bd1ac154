"""What stands on the Hub at the end of a run, what does not, and the one command that finishes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inspo_hub.errors import PublishError


@dataclass(frozen=True, slots=True)
class Published:
    """A part of the run that stands on the Hub, checked by hash: what, of which step, at which commit."""

    what: str
    step: int
    revision: str
    sha: str
    url: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that does not stand there, and why."""

    what: str
    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class PublishResult:
    """The state of publishing one variant: the newest of each part that is there, and everything that is not."""

    repo_id: str
    url: str
    published: tuple[Published, ...]
    missing: tuple[Missing, ...]
    pull_request: int | None = None

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def exit_code(self) -> int:
        return 0 if self.complete else PublishError.exit_code

    def lines(self, output: str) -> list[str]:
        """For people: one line for each part, and how to finish."""
        told = [f"{each.what} of step {each.step}: {each.url}" for each in self.published]
        told += [f"not published: {each.what} of step {each.step} ({each.reason})" for each in self.missing]
        if self.pull_request is not None:
            told.append(f"as pull request {self.url}/discussions/{self.pull_request}")
        if self.missing:
            told.append(f"finish with: inspo-hub publish {output}")
        return told

    def error(self, output: str) -> PublishError:
        """What is missing, as the error a run ends with (exit code 5)."""
        assert self.missing, "nothing is missing"
        reasons = "; ".join(f"{each.what} of step {each.step}: {each.reason}" for each in self.missing)
        return PublishError(
            f"trained, but not everything is published: {reasons}",
            where=self.repo_id,
            expected="everything the run wrote on the Hub",
            fix=f"inspo-hub publish {output}",
        )

    def to_dict(self) -> dict[str, Any]:
        """One JSON object, for `--json`."""
        return {
            "repo_id": self.repo_id,
            "url": self.url,
            "complete": self.complete,
            "pull_request": self.pull_request,
            "published": [{name: getattr(each, name) for name in Published.__slots__} for each in self.published],
            "missing": [{name: getattr(each, name) for name in Missing.__slots__} for each in self.missing],
        }
