"""URLs that carry their own permission, as those of the file storage do."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from .http import Request


class Signer:
    """Signs path and query with a key of its own; another server's URLs are not valid here."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)

    def sign(self, base: str, path: str, **query: str) -> str:
        return f"{base}{quote(path)}?{urlencode({**query, 'signature': self._signature(path, query)})}"

    def signed(self, request: Request) -> bool:
        query = {name: values[0] for name, values in request.query.items() if name != "signature"}
        return hmac.compare_digest(request.param("signature"), self._signature(request.path, query))

    def _signature(self, path: str, query: Mapping[str, str]) -> str:
        text = path + "?" + urlencode(sorted(query.items()))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
