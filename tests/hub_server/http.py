"""HTTP/1.1 on loopback: one origin, its requests and answers, and what can go wrong on the wire.

An origin is one host and port. The test Hub has three, so that a token which follows a redirect to the file storage,
as it must not, is seen. Bodies are always drained, and `stop` closes kept-alive connections: otherwise a stopped server
would go on answering whoever is already connected.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from .accounts import Token
    from .faults import Action
    from .log import LogEntry


@dataclass(slots=True)
class Request:
    """One request; `path` is still percent-encoded, as routes are split before they are decoded."""

    origin: str  # "hub", "cdn" or "cas"
    method: str
    url: str  # path and query as they came
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    body: bytes = b""
    token: Token | None = None
    faults: list[Action] = field(default_factory=list)  # what strikes it

    def param(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        return self.param(name).lower() in ("1", "true")

    def read_json(self) -> dict[str, Any]:
        """The body as a JSON object; a ValueError, which the Hub answers with 400, where it is none."""
        value = json.loads(self.body or b"{}")
        if not isinstance(value, dict):
            raise ValueError("expected a JSON object")
        return value


@dataclass(slots=True)
class Response:
    """One answer, and how faults want it spoilt on its way."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body after which the connection ends
    reset: bool = False  # ... by a reset instead of a clean close
    bytes_per_second: float | None = None
    stream: Iterator[bytes] | None = None  # sent piece by piece as it comes, instead of the body

    @classmethod
    def json(cls, value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    @classmethod
    def text(cls, value: str, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> Response:
        return cls(status, value.encode(), {"Content-Type": content_type})


class DropConnection(Exception):
    """Ends the connection without an answer."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("connection dropped by a fault")
        self.reset = reset


Handle = Callable[[Request], Response]


class Origin:
    """One listening address; `start` again after `stop` takes the same port, as a Hub that was away does."""

    def __init__(self, name: str, app: App, host: str = "127.0.0.1") -> None:
        self.name, self.app, self.host = name, app, host
        self.port = 0
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        return self._server is not None

    def start(self) -> None:
        assert self._server is None
        self._server = _Server(self, self.port)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name=f"hub-{self.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        if self._server is None or self._thread is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        self._thread.join()
        server.server_close()
        server.close_connections()


class App:
    """What an origin serves: subclassed by the Hub."""

    def begin(self, request: Request) -> LogEntry:
        raise NotImplementedError

    def before_body(self, request: Request, entry: LogEntry) -> None:
        """Faults that strike while the body is still on its way."""

    def answer(self, request: Request, entry: LogEntry) -> Response:
        raise NotImplementedError

    def crashed(self, request: Request, trace: str) -> None:
        raise NotImplementedError


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, origin: Origin, port: int) -> None:
        self.origin = origin
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks for the name of the host, which may go to a name server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._connections_lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the peer was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that go away are part of the tests, and crashes of routes are recorded by the handler."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the server keeps its own log."""

    def _serve(self) -> None:
        app = self.server.origin.app
        parts = urlsplit(self.path)
        request = Request(
            self.server.origin.name,
            self.command,
            self.path,
            parts.path,
            parse_qs(parts.query, keep_blank_values=True),
            {name.lower(): value for name, value in self.headers.items()},
        )
        entry = app.begin(request)
        started = time.monotonic()
        try:
            app.before_body(request, entry)
            request.body = self._read_body()
            response = app.answer(request, entry)
            self._send(response)
        except DropConnection as drop:
            self._close(reset=drop.reset)
        except (ConnectionError, TimeoutError):
            entry.client_gone = True
            self.close_connection = True
        except Exception:  # noqa: BLE001
            # Whatever it is, it is a mistake of this server: recorded, and the test's fixture fails with the trace.
            app.crashed(request, traceback.format_exc())
            self.close_connection = True
        finally:
            entry.seconds = time.monotonic() - started

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return b"".join(chunks)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client went away in the middle of its body")
        return body

    def _send(self, response: Response) -> None:
        self.send_response_only(response.status)
        self.send_header("Date", self.date_time_string())
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.stream is not None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._send_pieces(response.stream)
            return
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        body = b"" if self.command == "HEAD" else response.body
        if response.cut_after is None:
            self._write(body, response.bytes_per_second)
            return
        self._write(body[: response.cut_after], response.bytes_per_second)
        self._close(reset=response.reset)

    def _send_pieces(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _write(self, body: bytes, bytes_per_second: float | None) -> None:
        if bytes_per_second is None:
            self.wfile.write(body)
            return
        step = max(1, int(bytes_per_second / 20))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            time.sleep(0.05)

    def _close(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            # Linger of zero seconds: close() sends RST instead of FIN, and what was not sent yet is lost.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            time.sleep(0.05)  # let the client read what was sent before
            self.rfile.close()  # it holds the socket open
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
