"""From method and path to the function that answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .http import Request, Response

if TYPE_CHECKING:
    from .server import HubServer

Endpoint = Callable[..., Response]

# Paths are matched while percent-encoded: `refs%2Fpr%2F1` is one segment, and so is the path of a file in a tree URL.
_PLACEHOLDERS = {
    "kind": "model|dataset|space",
    "prefix": "datasets/|spaces/|",
    "repo": "[^/]+(?:/[^/]+)?",
    "path": ".+",
    "number": r"\d+",
}
_KINDS = {"": "model", "datasets/": "dataset", "spaces/": "space"}


class Router:
    """A table of routes; the first that matches answers, so the longer ones are registered first."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Endpoint]] = []

    def route(self, method: str, template: str) -> Callable[[Endpoint], Endpoint]:
        """Registers an endpoint: `{kind}s/{repo}/tree/{revision}` and so on; a placeholder's value arrives decoded."""
        pattern = re.sub(
            r"\{(\w+)\}", lambda found: f"(?P<{found[1]}>{_PLACEHOLDERS.get(found[1], '[^/]+')})", template
        )

        def register(endpoint: Endpoint) -> Endpoint:
            self._routes.append((method, re.compile(pattern), endpoint))
            return endpoint

        return register

    def find(self, request: Request) -> Callable[[HubServer, Request], Response] | None:
        """The endpoint of this request with its path's values filled in; None where there is no such route."""
        for method, pattern, endpoint in self._routes:
            matched = pattern.fullmatch(request.path) if method == request.method else None
            if matched is not None:
                values = {name: unquote(value) for name, value in matched.groupdict().items() if value is not None}
                if "prefix" in values:
                    values["kind"] = _KINDS[values.pop("prefix")]
                return lambda server, asked: endpoint(server, asked, **values)
        return None
