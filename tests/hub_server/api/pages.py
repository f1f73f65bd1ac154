"""Listings in pages, with the next one in a Link header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ..http import Request, Response

if TYPE_CHECKING:
    from ..server import HubServer


def paged(server: HubServer, request: Request, rows: Sequence[object]) -> Response:
    """The rows from `cursor` on, `limit` or a page of them."""
    start = int(request.param("cursor", "0"))
    size = min(int(request.param("limit") or server.page_size), server.page_size)
    headers = {}
    if start + size < len(rows):
        query = [(name, value) for name, values in request.query.items() for value in values if name != "cursor"]
        link = f"{server.endpoint}{request.path}?{urlencode([*query, ('cursor', str(start + size))])}"
        headers["Link"] = f'<{link}>; rel="next"'
    return Response.json(rows[start : start + size], headers=headers)
