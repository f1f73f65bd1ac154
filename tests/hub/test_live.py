"""The same against the live Hub, with a token that may write: `HF_TOKEN=… pytest -m hub tests/hub/test_live.py`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspo_hub import hub as room
from inspo_hub.errors import ResolutionError
from inspo_hub.hub import WriteTarget, preflight
from inspo_hub.publish import Publisher, PublishSettings

from .conftest import write_files

pytestmark = [
    pytest.mark.hub,
    pytest.mark.skipif(not os.environ.get("HF_TOKEN"), reason="needs HF_TOKEN with write access"),
]
SMALL = "hf-internal-testing/tiny-random-LlamaForCausalLM"


@pytest.fixture
def repo() -> Iterator[str]:
    """A private repository of the token's owner, deleted after the test."""
    from huggingface_hub import HfApi

    api = HfApi()
    name = f"{api.whoami()['name']}/inspo-hub-test-{secrets.token_hex(4)}"
    assert preflight(writes=[WriteTarget(name)], create=True) == []
    yield name
    api.delete_repo(name)


def test_a_public_model_is_pinned_and_every_file_is_what_the_hub_says() -> None:
    pinned = room.resolve("model", SMALL)
    assert pinned.sha is not None
    folder = room.fetch(pinned, "tokenizer")
    assert (folder / "tokenizer_config.json").is_file()
    with pytest.raises(ResolutionError, match="does not exist"):
        room.resolve("model", SMALL, "no-such-branch")


def test_a_checkpoint_and_a_result_are_published_and_found(repo: str, tmp_path: Path) -> None:
    save = {"model.safetensors": secrets.token_bytes(100_000), "config.json": b"{}", "trainer_state.json": b"{}"}
    settings = PublishSettings(strategy="checkpoint", interval_s=0, wait_s=120)
    publisher = Publisher(settings, repo, tmp_path / "spool")
    publisher.submit(write_files(tmp_path / "checkpoint-1", save), 1)
    result = publisher.finish()
    assert result.complete, result
    found = room.latest_checkpoint(repo)
    assert found is not None
    assert found.step == 1
    folder = room.download_checkpoint(found, tmp_path / "back")
    assert (folder / "model.safetensors").read_bytes() == save["model.safetensors"]
    last = Publisher(settings, repo, tmp_path / "spool")
    card = b"---\nlicense: apache-2.0\nlibrary_name: transformers\n---\n# A test\n"
    last.submit(write_files(tmp_path / "out", save | {"README.md": card}), 2, "final")
    assert last.finish().complete
