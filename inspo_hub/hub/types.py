"""What the hub room hands to the others: pinned references, the files of a commit, and commits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["model", "dataset", "space"]


@dataclass(frozen=True, slots=True)
class Pinned:
    """One model, dataset or Space that can no longer move: a commit on the Hub, or a path on this disk.

    `revision` is what the recipe asked for; `sha` is the commit it was at when it was resolved, None for a local path.
    """

    kind: Kind
    id: str
    revision: str | None
    sha: str | None
    path: Path | None

    def __post_init__(self) -> None:
        assert (self.sha is None) != (self.path is None), "pinned to a commit or to a path, never both or neither"

    @property
    def is_local(self) -> bool:
        return self.path is not None

    def __str__(self) -> str:
        """`owner/name@sha` for a commit, the path for a local one: what messages and cards show."""
        return str(self.path) if self.path is not None else f"{self.id}@{self.sha}"


@dataclass(frozen=True, slots=True)
class RepoFile:
    """One file of a commit, as the Hub lists it. `sha256` is None for small files that are stored in git itself."""

    path: str
    size: int
    blob_id: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class FileHash:
    """The two hashes by which the Hub knows a file: SHA-256 of its bytes, and git's SHA-1 of the blob."""

    size: int
    sha256: str
    blob_id: str

    def matches(self, remote: RepoFile) -> bool:
        """Whether these bytes are the ones the Hub lists; by SHA-256 where it has one, else by git's hash."""
        if remote.size != self.size:
            return False
        return remote.sha256 == self.sha256 if remote.sha256 is not None else remote.blob_id == self.blob_id


@dataclass(frozen=True, slots=True)
class RepoMetadata:
    """What the Hub says about a repository; the card inherits the license from it."""

    license: str | None
    license_name: str | None
    license_link: str | None
    gated: bool
    private: bool
    card: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that stands on the Hub. `pull_request` is the number of the one it belongs to, None on a branch."""

    sha: str
    url: str
    pull_request: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One machine of the Hub's Jobs, as the Hub describes it; texts such as `16 GB` are its own."""

    name: str
    cpu: str
    ram: str
    disk: str
    usd_per_unit: float
    unit: str
    """The time that the price is for: `minute`."""
    accelerator: str = ""
    """Model of its accelerators; empty where it has none."""
    accelerator_type: str = ""
    accelerators: int = 0
    vram: str = ""
    """Memory of all accelerators together."""
