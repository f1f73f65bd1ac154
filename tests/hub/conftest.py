"""A Hub with a token of alice in this process, our own cache in tmp_path, and patience measured in milliseconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from huggingface_hub.utils import _http

from inspo_hub.hub import Patience
from tests.hub_server.server import HubServer

QUICK = Patience(attempts=3, base_s=0.01, ceiling_s=0.02, longest_wait_s=5)


@pytest.fixture
def alice(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The Hub, to which this process speaks as alice, with a token that may write."""
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "inspo_cache"))
    monkeypatch.setenv("HF_TOKEN", hub.add_token("alice"))
    monkeypatch.setattr(_http, "time", _Hurried())
    return hub


class _Hurried:
    """The client's own clock, whose waits between its own attempts (23 s) do not take place."""

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.01))


def model_files(seed: int = 0, *, size: int = 3000) -> dict[str, bytes]:
    """What a small model repository holds; the bytes stand for weights and differ by seed."""
    return {
        "config.json": b'{"model_type": "llama", "hidden_size": 8}',
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "model.safetensors": bytes((seed + i) % 256 for i in range(size)),
    }


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
