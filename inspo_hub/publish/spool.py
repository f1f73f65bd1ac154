"""The publisher's memory on disk: frozen snapshots that nothing changes any more, and what became of each of them."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from inspo_hub import hub
from inspo_hub.errors import PublishError
from inspo_hub.publish.contents import CARD, files_below, published_files, state_files

log = logging.getLogger(__name__)

What = Literal["weights", "state", "card"]
RecordedStatus = Literal["waiting", "done", "failed"]
SaveKind = Literal["checkpoint", "final"]

RECORD = "publish.json"
_FORMAT = 1
_LINKED_FROM_BYTES = 1024 * 1024
"""Smaller files are copied: some of them (metrics, manifests) are written to again, which a link would follow."""


@dataclass(slots=True)
class Delivery:
    """One push of a snapshot: what of it, and how it stands."""

    what: What
    status: RecordedStatus = "waiting"
    reason: str = ""
    sha: str | None = None
    url: str | None = None
    revision: str | None = None


@dataclass(slots=True)
class Snapshot:
    """The files of one save, frozen in `<spool>/<name>`. `linked` remembers size and mtime of those that are links."""

    name: str
    step: int
    kind: SaveKind
    deliveries: list[Delivery]
    linked: dict[str, list[int]] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        return any(delivery.status != "done" for delivery in self.deliveries)

    @property
    def waiting(self) -> bool:
        return any(delivery.status == "waiting" for delivery in self.deliveries)


@dataclass(slots=True)
class Record:
    """Everything that must survive a kill: where to, the pull request that is open, snapshots, what stands there."""

    repo_id: str
    settings: dict[str, Any]
    run: str
    pull_request: int | None = None
    snapshots: list[Snapshot] = field(default_factory=list)
    published: list[dict[str, Any]] = field(default_factory=list)
    unfrozen: str = ""
    """Why the last save could not be frozen; empty where it could."""


class Spool:
    """A folder with a record and snapshots. One process at a time: the publisher holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def _record_path(self) -> Path:
        return self.folder / RECORD

    def load(self, *, tidy: bool = True) -> Record | None:
        """The record of an earlier process; None where there is none.

        Args:
            tidy: remove what no record names; only for the process that holds the publisher's lock.
        """
        if not self._record_path.is_file():
            return None
        try:
            values = json.loads(self._record_path.read_text(encoding="utf-8"))
            if values.pop("format") != _FORMAT:
                raise ValueError("another format")
            snapshots = [
                Snapshot(**{**each, "deliveries": [Delivery(**one) for one in each["deliveries"]]})
                for each in values.pop("snapshots")
            ]
            record = Record(snapshots=snapshots, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PublishError(
                f"the publisher's record cannot be read: {error}",
                where=str(self._record_path),
                expected="the file as a run wrote it",
                fix="remove the folder; what the output holds is then published anew by `inspo-hub publish`",
            ) from error
        record.snapshots = [each for each in record.snapshots if (self.folder / each.name).is_dir()]
        if tidy:
            self._sweep(record)
        return record

    def save(self, record: Record) -> None:
        """Writes the record, whole or not at all, without tokens."""
        text = json.dumps({"format": _FORMAT, **asdict(record)}, indent=1, sort_keys=True)
        hub.write_bytes(self._record_path, (hub.redact(text) + "\n").encode())

    def _sweep(self, record: Record) -> None:
        """Removes folders of snapshots that no record names: a kill came between freezing and recording, or later."""
        known = {snapshot.name for snapshot in record.snapshots}
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in known:
                shutil.rmtree(path)

    def freeze(
        self, source: Path, step: int, kind: SaveKind, whats: Iterable[What], extra: Mapping[str, Path]
    ) -> Snapshot:
        """A snapshot of a save, complete before it has its name. Raises OSError where the disk cannot take it."""
        whats = list(whats)
        name = f"{step:08d}-{kind}-{secrets.token_hex(4)}"
        partial = self.folder / f".{name}.partial"
        names = files_below(source)
        wanted = set(published_files(names)) | (set(state_files(names)) if "state" in whats else set())
        wanted |= {CARD} & set(names) if "card" in whats else set()
        snapshot = Snapshot(name, step, kind, [])
        try:
            for each in sorted(wanted):
                self._take(source / each, partial / "save" / each, f"save/{each}", snapshot)
            for each, path in sorted(extra.items()):
                if path.is_file():
                    self._take(path, partial / "output" / each, f"output/{each}", snapshot)
            partial.mkdir(exist_ok=True)
            os.replace(partial, self.folder / name)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        snapshot.deliveries = [Delivery(what) for what in whats if what != "card" or CARD in wanted]
        return snapshot

    def _take(self, source: Path, destination: Path, name: str, snapshot: Snapshot) -> None:
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.stat().st_size < _LINKED_FROM_BYTES:
            shutil.copy2(source, destination)
            return
        try:
            os.link(source, destination)
        except OSError as error:
            log.debug("copying %s instead of linking it: %s", source.name, error)
            shutil.copy2(source, destination)
            return
        stat = destination.stat()
        snapshot.linked[name] = [stat.st_size, stat.st_mtime_ns]

    def changed(self, snapshot: Snapshot) -> list[str]:
        """Linked files that somebody wrote to after the freeze; none may be pushed as if they were the save."""
        changed = []
        for name, stamp in snapshot.linked.items():
            path = self.folder / snapshot.name / name
            if path.is_file() and [path.stat().st_size, path.stat().st_mtime_ns] != stamp:
                changed.append(name)
        return changed

    def drop(self, snapshot: Snapshot) -> None:
        """Removes a snapshot's files; the save itself is untouched."""
        shutil.rmtree(self.folder / snapshot.name, ignore_errors=True)
