"""A checkpoint is whole or it is not used: manifests, torn folders, rotation; records that resume without a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspo_hub.training.checkpoints import MANIFEST, latest_complete, list_checkpoints, read_manifest, rotate, seal
from inspo_hub.training.outputs import remove_unfinished
from inspo_hub.training.records import JsonLines


def write_checkpoint(folder: Path, step: int, *, sealed: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"x" * 100)
    (checkpoint / "nested").mkdir()
    (checkpoint / "nested" / "state.json").write_text("{}")
    if sealed:
        seal(checkpoint, {"train.lr": 1e-6})
    return checkpoint


def test_the_newest_whole_checkpoint_is_used_and_torn_ones_are_removed(tmp_path: Path) -> None:
    half_removed = write_checkpoint(tmp_path, 8, sealed=False)
    whole = write_checkpoint(tmp_path, 9)
    torn = write_checkpoint(tmp_path, 10, sealed=False)
    assert latest_complete(tmp_path) == whole
    assert not torn.exists()
    assert not half_removed.exists()
    assert read_manifest(whole) is not None
    assert read_manifest(whole)["training"] == {"train.lr": 1e-6}


@pytest.mark.parametrize("damage", ["missing", "short", "manifest cut"])
def test_a_damaged_checkpoint_is_not_whole(tmp_path: Path, damage: str) -> None:
    checkpoint = write_checkpoint(tmp_path, 1)
    if damage == "missing":
        (checkpoint / "nested" / "state.json").unlink()
    elif damage == "short":
        (checkpoint / "model.safetensors").write_bytes(b"x" * 99)
    else:
        text = (checkpoint / MANIFEST).read_text()
        (checkpoint / MANIFEST).write_text(text[: len(text) // 2])
    assert read_manifest(checkpoint) is None
    assert latest_complete(tmp_path) is None


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        write_checkpoint(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-20", "checkpoint-100"]


def test_rotation_keeps_the_newest_and_does_not_count_torn_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step)
    write_checkpoint(tmp_path, 4, sealed=False)
    rotate(tmp_path, 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]


def test_what_a_kill_left_unfinished_goes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    unfinished = [tmp_path / ".lock.json.71-140.tmp", tmp_path / "report" / ".data.json.71.tmp"]
    others = [tmp_path / name for name in (".variant.json", ".mine.tmp", "a.71.tmp")] + [tmp_path / "report" / "x.json"]
    for path in (*unfinished, *others):
        path.touch()
    remove_unfinished([tmp_path, tmp_path / "not there"])
    assert not any(path.exists() for path in unfinished)
    assert all(path.exists() for path in others)


def test_records_after_the_checkpoint_are_dropped_and_a_cut_line_is_forgotten(tmp_path: Path) -> None:
    records = JsonLines(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        records.append({"step": step, "loss": 1 / 3})
    with records.path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in records.read()] == [1, 2, 3]
    records.keep_until(2)
    assert records.path.read_text() == "".join(json.dumps({"step": step, "loss": 1 / 3}) + "\n" for step in (1, 2))
    records.append({"step": 3})
    assert [record["step"] for record in records.read()] == [1, 2, 3]
