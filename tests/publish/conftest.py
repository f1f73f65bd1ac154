"""Saves as a trainer writes them, and a publisher that loses patience in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from inspo_hub.hub import Patience
from inspo_hub.publish import Publisher, PublishSettings
from tests.hub.conftest import alice, write_files  # noqa: F401 - the fixture
from tests.hub_server import HubServer

QUICK = Patience(attempts=4, base_s=0.01, ceiling_s=0.05, longest_wait_s=5)
BIG = 1_500_000  # bytes: above the size from which the spool links


def save_files(step: int, *, weights: int = 3000) -> dict[str, bytes]:
    """A save without state: weights that differ by step, configuration, tokenizer."""
    return {
        "model.safetensors": bytes([step % 256]) * weights,
        "config.json": b'{"model_type": "llama"}',
        "generation_config.json": b"{}",
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
    }


CARD = b"---\nlicense: apache-2.0\nlibrary_name: transformers\n---\n# A model\n"


class MakePublisher(Protocol):
    def __call__(self, repo: str, spool: Path | None = None, **settings: object) -> Publisher: ...


@pytest.fixture
def make_publisher(tmp_path: Path) -> Iterator[MakePublisher]:
    """Publishers that are ended with the test, so that no thread outlives it."""
    made: list[Publisher] = []

    def make(repo: str, spool: Path | None = None, **settings: object) -> Publisher:
        values = {"interval_s": 0.0, "wait_s": 10.0, "patience": QUICK, **settings}
        made.append(Publisher(PublishSettings(**values), repo, spool or tmp_path / "spool"))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for publisher in made:
        publisher.finish(0)


@pytest.fixture
def repo(alice: HubServer) -> str:  # noqa: F811 - the fixture
    """A private repository of alice, as preflight leaves it."""
    name = alice.unique("trained", "alice")
    alice.create_repo(name, private=True)
    return name


def checkpoint(folder: Path, step: int, *, weights: int = 3000) -> Path:
    return write_files(folder / f"checkpoint-{step}", save_files(step, weights=weights) | {"trainer_state.json": b"{}"})


def final(folder: Path, step: int) -> Path:
    extra = {"README.md": CARD, "lock.json": b"{}", "metrics.jsonl": b"{}\n", "report/curves.svg": b"<svg/>"}
    return write_files(folder / "output", save_files(step) | extra)
