"""One push of a snapshot: which files under which names, to which branch or pull request, checked when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from inspo_hub import hub
from inspo_hub.errors import PublishError
from inspo_hub.hub import checkpoints
from inspo_hub.publish.contents import CARD, files_below, is_stale_model_file, published_files, state_files

if TYPE_CHECKING:
    from inspo_hub.publish.settings import PublishSettings
    from inspo_hub.publish.spool import Delivery, Record, Snapshot

OUTPUT_PART = "output"
"""Below a checkpoint on the Hub: files of the run's output folder (metrics, lock, recipe) that belong to the save."""
_ON_MAIN = ("recipe.yaml", "lock.json", "metrics.jsonl")


@dataclass
class Sender:
    """Sends parts of snapshots to one repository; keeps the hashes of frozen files, which cannot change."""

    record: Record
    settings: PublishSettings
    _hashes: dict[Path, hub.FileHash] = field(default_factory=dict)

    def deliver(self, snapshot: Snapshot, delivery: Delivery, folder: Path) -> hub.Commit:
        """Brings one part of a snapshot to the Hub, in one attempt; already there counts.

        May set `record.pull_request`. Raises what the client raises, HubFailure or PublishError.
        """
        if delivery.what == "state":
            _require_no_pickles(folder)
            return hub.push(self._state_upload(snapshot, folder))
        files = {CARD: folder / "save" / CARD} if delivery.what == "card" else model_files(folder)
        upload = hub.Upload(
            repo_id=self.record.repo_id,
            files=files,
            hashes={path: self._hash(source) for path, source in files.items()},
            revision=self.settings.branch,
            message=_message(snapshot, delivery),
            stale=is_stale_model_file if delivery.what == "weights" else _nothing_is_stale,
        )
        if not self.settings.create_pr:
            return hub.push(upload)
        commit = self._push_by_pull_request(upload)
        if snapshot.kind == "final" and commit.pull_request is not None:
            hub.open_pull_request(self.record.repo_id, commit.pull_request)
        return commit

    def _state_upload(self, snapshot: Snapshot, folder: Path) -> hub.Upload:
        """A resumable checkpoint with its manifest, both in one commit, in place of the one before."""
        save, output = folder / "save", folder / OUTPUT_PART
        files = {f"{checkpoints.FOLDER}/{name}": save / name for name in state_files(files_below(save))}
        files |= {f"{checkpoints.FOLDER}/{OUTPUT_PART}/{name}": output / name for name in files_below(output)}
        hashes = {path: self._hash(source) for path, source in files.items()}
        manifest = checkpoints.manifest(snapshot.step, hashes)
        return hub.Upload(
            repo_id=self.record.repo_id,
            files={**files, checkpoints.MANIFEST: manifest},
            hashes={**hashes, checkpoints.MANIFEST: hub.bytes_hash(manifest)},
            revision=self.settings.checkpoints_branch,
            message=f"Checkpoint at step {snapshot.step}",
            stale=lambda path: path.startswith(f"{checkpoints.FOLDER}/"),
        )

    def _push_by_pull_request(self, upload: hub.Upload) -> hub.Commit:
        """The same as a pull request: one for the whole run, found again where the answer to its creation was lost."""
        record, title = self.record, f"inspo_hub run {self.record.run}"
        if record.pull_request is None:
            record.pull_request = hub.find_pull_request(upload.repo_id, title)
        if record.pull_request is None:
            commit = hub.push(replace(upload, message=title), create_pr=True)
            record.pull_request = commit.pull_request
            return commit
        return hub.push(replace(upload, revision=hub.pull_request_ref(record.pull_request)))

    def _hash(self, path: Path) -> hub.FileHash:
        if path not in self._hashes:
            self._hashes[path] = hub.file_hash(path, remember=False)
        return self._hashes[path]

    def forget(self, folder: Path) -> None:
        """Drops what is known of a snapshot that is gone."""
        self._hashes = {path: hashes for path, hashes in self._hashes.items() if folder not in path.parents}


def model_files(folder: Path) -> dict[str, Path]:
    """Path in the repository -> file of a snapshot, for the weights and what explains them."""
    save, output = folder / "save", folder / OUTPUT_PART
    files = {name: output / name for name in _ON_MAIN if (output / name).is_file()}
    files |= {name: save / name for name in published_files(files_below(save))}
    if not any(hub.is_weight_file(name) for name in files):
        raise PublishError(
            "the save holds no weights",
            where=folder.name,
            expected="model.safetensors, its shards, or adapter_model.safetensors",
            fix="look at the output folder; a save without weights cannot be published",
        )
    return files


def _nothing_is_stale(path: str) -> bool:
    return False


def _require_no_pickles(folder: Path) -> None:
    """Turns pickled state into safetensors; raises PublishError where something pickled is left."""
    from inspo_hub.publish.portable import make_portable

    save = folder / "save"
    make_portable(save)
    left = [name for name in state_files(files_below(save)) if name.endswith(hub.PICKLE_SUFFIXES)]
    if left:
        raise PublishError(
            f"the checkpoint holds files in a format that can run code: {', '.join(left[:3])}",
            where=folder.name,
            expected="safetensors and JSON",
            fix="set publish.strategy: every_save, which publishes the weights alone",
        )


def _message(snapshot: Snapshot, delivery: Delivery) -> str:
    if delivery.what == "card":
        return "Model card"
    return f"Model after step {snapshot.step}" if snapshot.kind == "final" else f"Weights at step {snapshot.step}"
