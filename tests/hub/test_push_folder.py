"""Results that are no model: a dataset of comparisons, and the Collection that holds all of a run on one page."""

from __future__ import annotations

from pathlib import Path

from inspo_hub import hub as room
from inspo_hub.hub import CollectionItem
from tests.hub_server import Answer, Drop, HubServer

from .conftest import QUICK, write_files


def test_a_dataset_is_created_private_and_pushed_once(alice: HubServer, tmp_path: Path) -> None:
    files = {"data/comparisons.jsonl": b'{"prompt": "a"}\n', "README.md": b"---\nlicense: mit\n---\n# Rows\n"}
    folder = write_files(tmp_path / "rows", {**files, ".hidden": b"x"})
    repo = alice.unique("comparisons", "alice")
    lost = alice.faults.add("POST", "/commit/", Drop("after"))
    commit = room.push_folder(folder, repo, kind="dataset", message="Comparisons", patience=QUICK)
    assert lost.hits == 1
    assert alice.files(repo, type="dataset") == files
    assert alice.repo(repo, "dataset").private
    assert commit.sha == alice.head(repo, type="dataset")
    assert room.push_folder(folder, repo, kind="dataset", message="Again", patience=QUICK).sha == commit.sha
    assert [each.title for each in alice.history(repo, type="dataset")] == ["Comparisons", "initial commit"]


def test_a_collection_is_made_once_and_filled(alice: HubServer) -> None:
    models = [alice.unique("m", "alice") for _ in range(2)]
    for model in models:
        alice.create_repo(model)
    items = [CollectionItem(model, "model", note="a twin") for model in models]
    alice.faults.add("POST", "/api/collections", Answer(503))
    url = room.gather("DPO and InSPO " + "x" * 80, items[:1], namespace="alice", description="d" * 200, patience=QUICK)
    again = room.gather("DPO and InSPO " + "x" * 80, items, namespace="alice", patience=QUICK)
    assert again == url
    (made,) = [one for one in alice.collections.values() if one["title"].startswith("DPO and InSPO")]
    assert [item["id"] for item in made["items"]] == models
    assert made["private"]
