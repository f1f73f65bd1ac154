"""Answers from inference endpoints: two servers on loopback that speak chat completions, one of which may fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.errors import RecipeError
from inspo_hub.space import open_service
from inspo_hub.space.config import parse_config
from tests.space.test_rounds import CONFIG


class Server(ThreadingHTTPServer):
    """Streams its words; `breaks_after` of them the connection ends, and at 0 it refuses."""

    def __init__(self, words: list[str], breaks_after: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.words, self.breaks_after = words, breaks_after
        self.asked: list[tuple[dict[str, Any], str | None]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked.append((body, self.headers["Authorization"]))
        if server.breaks_after == 0:
            self.send_error(500, "no model")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number, word in enumerate(server.words):
            if number == server.breaks_after:
                self.wfile.write(b"data: {not json}\n\n")
                return
            self._send({"delta": {"role": "assistant", "content": word}, "finish_reason": None})
        self._send({"delta": {"role": "assistant", "content": ""}, "finish_reason": "stop"})
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, choice: dict[str, Any]) -> None:
        event = {"id": "1", "created": 0, "model": "m", "system_fingerprint": "", "choices": [{"index": 0, **choice}]}
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for server in made:
        server.shutdown()
        server.server_close()


def service_on(servers: list[Server], tmp_path: Path) -> Any:
    systems = [
        {**system, "model": None, "endpoint": {"url": server.url, "model": "m", "key_env": "ENDPOINT_KEY"}}
        for system, server in zip(CONFIG["systems"], servers, strict=True)
    ]
    config = parse_config({**CONFIG, "systems": systems, "backend": "endpoint"}, where="test")
    return open_service(config, tmp_path, tmp_path / "votes")[0]


def test_both_endpoints_answer_at_the_same_time(
    servers: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "the-key")
    servers += [Server(["One ", "two ", "three."]), Server(["Uno ", "dos."])]
    service = service_on(servers, tmp_path)
    last = list(service.compare("Count.", visitor="v"))[-1]
    assert {name: piece.text for name, piece in last.answers.items()} == {"dpo": "One two three.", "inspo": "Uno dos."}
    assert {piece.state for piece in last.answers.values()} == {"finished"}
    (first, key), (second, _) = servers[0].asked[0], servers[1].asked[0]
    assert key == "Bearer the-key"
    assert first == second, "the same messages, sampling and seed"
    assert first["seed"] == service.config.sampling.seed
    assert "the-key" not in service.config.model_dump_json()
    service.vote(last.id, "a")
    assert service.rewards(last.id) is None


@pytest.mark.parametrize("after", [0, 2])
def test_an_endpoint_that_fails_ends_its_side_alone(
    servers: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "the-key")
    servers += [Server(["One ", "two ", "three."], breaks_after=after), Server(["Uno ", "dos."])]
    service = service_on(servers, tmp_path)
    last = list(service.compare("Count.", visitor="v"))[-1]
    assert (last.answers["dpo"].state, last.answers["dpo"].problem) == ("failed", "The endpoint did not answer.")
    assert last.answers["dpo"].text == "One two "[: 4 * after]
    assert last.answers["inspo"].text == "Uno dos."


def test_a_key_that_is_not_there_is_said(servers: list[Server], tmp_path: Path) -> None:
    servers += [Server([]), Server([])]
    with pytest.raises(RecipeError, match="ENDPOINT_KEY is not set"):
        service_on(servers, tmp_path)
