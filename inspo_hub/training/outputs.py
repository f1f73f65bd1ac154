"""The output folder of one variant: what a finished training left, when it may be gone on with, how files arrive."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inspo_hub.errors import RecipeError
from inspo_hub.training.checkpoints import list_checkpoints, read_manifest
from inspo_hub.training.job import CHECKPOINTS, CONTENT, VariantJob, changed_keys, recipe_key
from inspo_hub.training.records import JsonLines

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

SUMMARY = "trained.json"
CONFIGS = ("config.json", "adapter_config.json")
"""Without one of them no folder passes for a model or an adapter: the last to arrive, the first to go."""

OnSave = Callable[[VariantJob, Path, int], None]
"""Told of every sealed checkpoint and its step, on the first process; returns at once."""


def keep(job: VariantJob, checkpoint: Path, step: int) -> None:
    """Checkpoints stay on this disk, and nobody is told."""


def finished(job: VariantJob) -> dict[str, Any] | None:
    """The summary of a finished training of the same recipe, or None.

    Raises:
        RecipeError: the folder holds a finished training of another recipe.
    """
    path = job.output / SUMMARY
    if not path.is_file():
        return None
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    same_training(job, summary["training"], where=str(path))
    return summary


def refuse_another_recipe(output: Path, recipe: Recipe) -> None:
    """Looks at what an output folder holds before anything in it is written to, or anything is downloaded for it.

    Raises:
        RecipeError: a finished training or a checkpoint of another recipe.
    """
    found = [(path, read_manifest(path)) for path in list_checkpoints(output / CHECKPOINTS)]
    if (output / SUMMARY).is_file():
        found.append((output / SUMMARY, json.loads((output / SUMMARY).read_text(encoding="utf-8"))))
    for path, told in found:
        if told is not None:
            before = {key: value for key, value in told["training"].items() if not key.startswith(CONTENT)}
            _refuse_changed(before, recipe_key(recipe), where=str(path))


def same_training(job: VariantJob, before: dict[str, Any], *, where: str) -> None:
    _refuse_changed(before, job.training_key(), where=where)


def _refuse_changed(before: dict[str, Any], now: dict[str, Any], *, where: str) -> None:
    changed = changed_keys(before, json.loads(json.dumps(now)))
    if changed:
        raise RecipeError(
            "the output folder holds a training with another recipe: " + "; ".join(changed[:8]),
            where=where,
            expected="the recipe that the training started with",
            fix="choose another --output, or start over with --resume none",
        )


def clear(job: VariantJob) -> None:
    """Removes an earlier training from the output folder: its summary first, so that nothing takes it for whole."""
    for name in (SUMMARY, *CONFIGS):
        (job.output / name).unlink(missing_ok=True)
    for weights in job.output.glob("*.safetensors"):
        weights.unlink()
    shutil.rmtree(job.checkpoints, ignore_errors=True)


_UNFINISHED = re.compile(r"\..+\.\d+(-\d+)?\.tmp")


def remove_unfinished(folders: Iterable[Path]) -> None:
    """Removes what a kill left of files that were being written, from output folders and their reports."""
    for folder in {where for output in folders for where in (output, output / "report")}:
        for path in folder.glob(".*.tmp"):
            if _UNFINISHED.fullmatch(path.name) and path.is_file():
                path.unlink()


def move_into_place(staging: Path, output: Path) -> None:
    """Moves the saved files to the output, the configuration last."""
    (staging / "training_args.bin").unlink(missing_ok=True)  # a pickle; the recipe says the same and more
    (staging / "README.md").unlink(missing_ok=True)  # peft's; the card says what this model is
    config = next(staging / name for name in CONFIGS if (staging / name).is_file())
    for file in sorted(staging.iterdir(), key=lambda path: path.name in CONFIGS):
        shutil.copymode(config, file)  # safetensors writes for the owner alone, whatever the umask says
        os.replace(file, output / file.name)
    staging.rmdir()


def measured(metrics_log: JsonLines, timings_log: JsonLines) -> dict[str, Any]:
    """What the logs say of a training: last and first metrics of each split, and the median time of a step."""
    records, timings = metrics_log.read(), timings_log.read()
    train = [record for record in records if record["split"] == "train"] or [{}]
    heldout = [record for record in records if record["split"] == "heldout"] or [{}]
    seconds = [timing["seconds_per_step"] for timing in timings]
    return {
        "seconds_per_step": float(np.median(seconds)) if seconds else None,
        "peak_memory_bytes": max((timing.get("peak_memory_bytes", 0) for timing in timings), default=0) or None,
        "train": train[-1],
        "heldout_before": heldout[0],
        "heldout": heldout[-1],
    }
