"""Resumable checkpoints on the Hub: whole or not used, without pickles, the same state when they come back."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from inspo_hub import hub as room
from inspo_hub.errors import PublishError, ResolutionError
from inspo_hub.hub.checkpoints import FOLDER, MANIFEST
from inspo_hub.publish.portable import make_native, make_portable, read_state, write_state
from inspo_hub.publish.resume import checkpoint_from_hub
from inspo_hub.training.checkpoints import read_manifest, seal
from tests.hub_server import HubServer

from ..hub.conftest import write_files
from .conftest import MakePublisher, save_files


def trainer_checkpoint(folder: Path, step: int) -> Path:
    """A checkpoint as the Trainer writes it: weights, pickled optimizer, scheduler and random state, sealed."""
    checkpoint = write_files(folder / f"checkpoint-{step}", save_files(step) | {"training_args.bin": b"a pickle"})
    torch.manual_seed(step)
    weight = torch.nn.Parameter(torch.randn(4, 3))
    optimizer = torch.optim.AdamW([{"params": [weight], "weight_decay": 0.1}], lr=1e-3, betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: 0.5**at)
    weight.square().sum().backward()
    optimizer.step()
    scheduler.step()
    torch.save(optimizer.state_dict(), checkpoint / "optimizer.pt")
    torch.save(scheduler.state_dict(), checkpoint / "scheduler.pt")
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}
    torch.save(states, checkpoint / "rng_state.pth")
    write_files(checkpoint, {"trainer_state.json": json.dumps({"global_step": step}).encode()})
    seal(checkpoint, {"train.lr": 1e-3})
    return checkpoint


def load(path: Path) -> object:
    reconstruct = np.zeros(1).__reduce__()[0]
    allowed = [reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, weights_only=True)


def same(one: object, other: object) -> bool:
    """Equal bit for bit, types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_state_goes_through_safetensors_bit_for_bit(tmp_path: Path) -> None:
    folder = trainer_checkpoint(tmp_path, 3)
    names = ["optimizer.pt", "rng_state.pth", "scheduler.pt"]
    before = {name: load(folder / name) for name in names}
    assert make_portable(folder) == [f"{name}.safetensors" for name in names]
    assert not [path for path in folder.iterdir() if path.suffix in (".pt", ".pth")]
    assert make_native(folder) == names
    for name in names:
        assert same(load(folder / name), before[name]), name


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": [1, (2.5, None, True, "x")], 3: {"b": -0.0, "c": 1e-300}},
        {"inf": float("inf"), "big": 2**200},
        [
            torch.tensor(3),
            torch.zeros(0),
            torch.ones(2, 3).t(),
            torch.arange(6)[2:4],
            torch.ones(2, dtype=torch.bfloat16),
        ],
        {"numpy": ("MT19937", np.arange(4, dtype=np.uint32), 7)},
    ],
    ids=["empty", "nest", "numbers", "tensors", "numpy"],
)
def test_any_plain_state_comes_back(tmp_path: Path, value: object) -> None:
    write_state(value, tmp_path / "state.safetensors")
    assert same(read_state(tmp_path / "state.safetensors"), value)


def test_a_tensor_that_occurs_twice_is_stored_once(tmp_path: Path) -> None:
    table = torch.randn(1000)
    write_state({"a": table, "b": {"c": table}}, tmp_path / "state.safetensors")
    assert (tmp_path / "state.safetensors").stat().st_size < 1.5 * 4000
    assert same(read_state(tmp_path / "state.safetensors"), {"a": table, "b": {"c": table}})


def test_what_has_no_safe_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"state.optimizer.hook: a set has no form that is safe"):
        write_state({"state": {"optimizer": {"hook": {1}}}}, tmp_path / "state.safetensors")


def test_a_checkpoint_comes_back_from_the_hub(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    metrics = write_files(tmp_path / "run", {"metrics.jsonl": b'{"step": 3}\n'}) / "metrics.jsonl"
    publisher = make_publisher(repo, strategy="checkpoint")
    here = trainer_checkpoint(tmp_path, 3)
    publisher.submit(here, 3, extra={"metrics.jsonl": metrics})
    result = publisher.finish()
    assert result.complete, result
    assert {each.what: each.revision for each in result.published} == {"weights": "main", "state": "checkpoints"}
    on_hub = alice.files(repo, "checkpoints")
    assert not [path for path in on_hub if path.endswith(room.PICKLE_SUFFIXES)]
    assert (here / "optimizer.pt").is_file(), "the checkpoint on disk is untouched"

    there = checkpoint_from_hub(repo, tmp_path / "elsewhere")
    assert there == tmp_path / "elsewhere" / "checkpoints" / "checkpoint-3"
    names = {path.name for path in here.iterdir()} - {"training_args.bin"}
    assert {path.name for path in there.iterdir()} == names
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        assert same(load(there / name), load(here / name)), name
    assert (there / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()
    manifest = read_manifest(there)
    assert manifest is not None
    assert manifest["training"] == {"train.lr": 1e-3}
    assert (tmp_path / "elsewhere" / "metrics.jsonl").read_bytes() == b'{"step": 3}\n'
    assert checkpoint_from_hub(repo, tmp_path / "elsewhere") == there, "what is here is kept"


def test_the_newest_whole_checkpoint_is_taken(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    assert room.latest_checkpoint(repo) is None
    publisher = make_publisher(repo, strategy="checkpoint")
    publisher.submit(trainer_checkpoint(tmp_path, 3), 3)
    assert publisher.finish().complete
    publisher = make_publisher(repo, strategy="checkpoint")
    publisher.submit(trainer_checkpoint(tmp_path, 6), 6)
    assert publisher.finish().complete
    found = room.latest_checkpoint(repo)
    assert found is not None
    assert (found.step, found.pinned.sha) == (6, alice.head(repo, "checkpoints"))
    sixth = found.pinned.sha
    whole = alice.files(repo, "checkpoints")
    for broken in (
        {f"{FOLDER}/model.safetensors": None},
        {f"{FOLDER}/model.safetensors": b"other"},
        {f"{FOLDER}/extra.json": b"{}"},
        {MANIFEST: None},
        {MANIFEST: b"{"},
        {MANIFEST: b'{"format": 1, "step": 9, "files": {}}'},
    ):
        alice.commit(repo, whole, revision="checkpoints", title="whole")
        alice.commit(repo, broken, revision="checkpoints", title="an incomplete push")
        found = room.latest_checkpoint(repo)
        assert found is not None
        assert found.step == 6, broken
        assert found.pinned.sha != alice.head(repo, "checkpoints"), broken
    assert sixth in [commit.sha for commit in alice.history(repo, "checkpoints")]


def test_a_checkpoint_with_a_pickle_is_refused(alice: HubServer, repo: str, tmp_path: Path) -> None:
    from inspo_hub.hub import checkpoints

    files = {f"{FOLDER}/model.safetensors": b"w", f"{FOLDER}/optimizer.pt": b"a pickle that deletes your home"}
    said = checkpoints.manifest(3, {path: room.bytes_hash(content) for path, content in files.items()})
    alice.set_ref(repo, "refs/heads/checkpoints", alice.head(repo))
    alice.commit(repo, files | {MANIFEST: said}, revision="checkpoints")
    found = room.latest_checkpoint(repo)
    assert found is not None
    with pytest.raises(ResolutionError, match=r"the checkpoint holds pickles: last-checkpoint/optimizer.pt"):
        room.download_checkpoint(found, tmp_path / "checkpoint-3")
    assert not (tmp_path / "checkpoint-3").exists()
    assert not list(tmp_path.rglob("optimizer.pt"))


def test_an_unknown_pickle_in_a_save_is_never_pushed(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    publisher = make_publisher(repo, strategy="checkpoint")
    folder = trainer_checkpoint(tmp_path, 3)
    (folder / "own_state.pkl").write_bytes(b"a pickle")
    publisher.submit(folder, 3)
    result = publisher.finish()
    assert [each.what for each in result.published] == ["weights"]
    assert "own_state.pkl" in result.missing[0].reason
