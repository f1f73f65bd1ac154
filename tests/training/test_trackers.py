"""Trackers: through transformers, and only the one that the recipe names; by default nothing is told to anybody."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.training.trainer import PreferenceTrainer
from inspo_hub.workflow import run
from tests.training.conftest import Project, make_project


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose runs happen in this process, watched for traffic to elsewhere like every test."""
    project = make_project(tmp_path_factory.mktemp("tracked"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSPO_HUB_CACHE", str(project.folder / "cache"))
        yield project


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[PreferenceTrainer]:
    """The trainers of the test's runs."""
    made: list[PreferenceTrainer] = []
    before = PreferenceTrainer.__init__

    def watched(self: Any, *args: Any, **kwargs: Any) -> None:
        before(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(PreferenceTrainer, "__init__", watched)
    return made


def train(project: Project, output: str, *overrides: str) -> Path:
    folder = project.folder / output
    assert run(project.recipe, ["train.max_steps=4", *overrides], output=folder) == 0
    return folder


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["split"] == "train"}


def names(trainer: PreferenceTrainer) -> set[str]:
    return {type(callback).__name__ for callback in trainer.callback_handler.callbacks}


def test_by_default_no_tracker_is_there_and_nothing_is_sent(here: Project, trainers: list[PreferenceTrainer]) -> None:
    folder = train(here, "none")
    assert losses(folder).keys() == {2, 4}
    (trainer,) = trainers
    assert trainer.args.report_to == []
    assert names(trainer) == {"DefaultFlowCallback", "ProgressLines", "StopRequest"}
    assert not list(folder.rglob("events.out.*"))


def test_tensorboard_gets_the_metrics_in_files_beside_the_run(here: Project) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(here, "board", "train.report_to=tensorboard")
    (events,) = {path.parent for path in folder.rglob("events.out.*")}
    found = EventAccumulator(str(events)).Reload()
    told = {event.step: event.value for event in found.Scalars("train/loss")}
    assert told == pytest.approx(losses(folder), rel=1e-6)
    assert "eval/conditioned_margin" in found.Tags()["scalars"]


def test_trackio_keeps_the_metrics_on_this_machine(
    here: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils

    for module in (utils, sqlite_storage):  # it has read its environment already
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    caplog.set_level(logging.WARNING)
    folder = train(here, "trackio", "train.report_to=trackio")
    (database,) = (tmp_path / "trackio").rglob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT metrics FROM metrics").fetchall()
    told = [json.loads(row[0]) for row in rows]
    assert {round(line["train/loss"], 6) for line in told if "train/loss" in line} == {
        round(loss, 6) for loss in losses(folder).values()
    }
