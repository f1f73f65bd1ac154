"""A resumable checkpoint from the Hub, put where the Trainer looks for its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from inspo_hub import hub
from inspo_hub.publish.delivery import OUTPUT_PART
from inspo_hub.training.checkpoints import MANIFEST, latest_complete, seal, step_of

log = logging.getLogger(__name__)


def checkpoint_from_hub(
    repo_id: str,
    output: Path,
    *,
    branch: str = "checkpoints",
    checkpoints: str = "checkpoints",
    patience: hub.Patience = hub.DEFAULT_PATIENCE,
) -> Path | None:
    """Downloads the newest whole checkpoint into `output/checkpoints/checkpoint-<step>`; None where there is none.

    It appears whole or not at all, sealed as the Trainer's own are. Files of the run that belong to it (metrics.jsonl)
    are put into `output` as they were at that step. Where a whole checkpoint of that step or a later one is here
    already, nothing is touched.
    """
    found = hub.latest_checkpoint(repo_id, branch, patience=patience)
    if found is None:
        return None
    target = output / checkpoints / f"checkpoint-{found.step}"
    here = latest_complete(output / checkpoints)
    if here is not None and step_of(here) >= found.step:
        return here
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    arriving = target.with_name(f".{target.name}.arriving")
    shutil.rmtree(arriving, ignore_errors=True)
    hub.download_checkpoint(found, arriving, patience=patience)
    _restore(arriving, output)
    os.replace(arriving, target)
    log.info("resuming from step %d of %s", found.step, found.pinned)
    return target


def _restore(arriving: Path, output: Path) -> None:
    """Writes pickled state anew from its portable form, seals the folder, and hands out the run's own files."""
    from inspo_hub.publish.portable import make_native

    beside = arriving / OUTPUT_PART
    if beside.is_dir():
        for path in sorted(path for path in beside.rglob("*") if path.is_file()):
            hub.write_bytes(output / path.relative_to(beside), path.read_bytes())
        shutil.rmtree(beside)
    make_native(arriving)
    training = json.loads((arriving / MANIFEST).read_text(encoding="utf-8"))["training"]
    seal(arriving, training)
