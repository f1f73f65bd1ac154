"""An OpenAI-compatible server on loopback that answers, with or without log-probabilities, and misbehaves on order."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = str
"""`garbage`, `empty`, `null`, `nothing` (never answers), `gone` (closes the connection), or a status such as `500`;
with a wait as in `429:2`."""


class ChatServer:
    """Its `opinion` decides: a function of the question that returns P(A), or the text of the answer."""

    def __init__(self, opinion: Callable[[str], float | str], *, logprobs: bool = True, usage: bool = True) -> None:
        self.opinion, self.logprobs, self.usage = opinion, logprobs, usage
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.answer(self, body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def questions(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            fault = self.faults.popleft() if self.faults else self.always
        if fault == "nothing":
            self._over.wait(30)
            return
        if fault == "gone":
            handler.connection.close()
            return
        if fault is None:
            self._send(handler, 200, json.dumps(self._completion(body)))
        elif fault in ("garbage", "empty", "null"):
            nothing = {
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None}}]
            }
            texts = {"garbage": "<html>hello</html>", "empty": '{"choices": []}', "null": json.dumps(nothing)}
            self._send(handler, 200, texts[fault])
        else:
            status, _, wait = fault.partition(":")
            self._send(handler, int(status), json.dumps({"error": f"status {status}"}), wait)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        import math

        said = self.opinion(body["messages"][-1]["content"])
        text = said if isinstance(said, str) else ("A" if said >= 0.5 else "B")
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
            "logprobs": None,
        }
        if self.logprobs and body.get("logprobs") and not isinstance(said, str):
            shares = {"A": 0.9 * said, " A": 0.1 * said, "B": 1 - said}
            top = [{"token": token, "logprob": math.log(max(share, 1e-9))} for token, share in shares.items()]
            choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": top}]}
        usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101} if self.usage else None
        return {
            "id": "1",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "system_fingerprint": "test",
            "choices": [choice],
            "usage": usage,
        }

    def _send(self, handler: BaseHTTPRequestHandler, status: int, text: str, retry_after: str = "") -> None:
        data = text.encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        if retry_after:
            handler.send_header("Retry-After", retry_after)
        handler.end_headers()
        handler.wfile.write(data)
