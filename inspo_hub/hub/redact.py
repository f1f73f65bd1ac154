"""Takes credentials out of a text before it reaches a message, a log or a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN")
_HIDDEN = "[hidden]"
_SECRET_PARAMETER = r"[a-z-]*(?:token|signature|credential|key-pair-id|policy)"
_PATTERNS = (
    (re.compile(r"\b(?:hf|api_org)_(?:jwt_|oauth_)?[A-Za-z0-9._-]{20,}"), _HIDDEN),
    (re.compile(r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?\w+\s+)[^\s\"']+"), rf"\1{_HIDDEN}"),
    (re.compile(r"\b([Bb]earer)\s+(?=\S*\d)[A-Za-z0-9._~+/=-]{16,}"), rf"\1 {_HIDDEN}"),
    (re.compile(rf"(?i)([?&]{_SECRET_PARAMETER}=)[^&\s\"'<>]+"), rf"\1{_HIDDEN}"),
    (re.compile(r"(https?://)[^/\s:@]+:[^/\s@]+@"), rf"\1{_HIDDEN}@"),
)
_SHORTEST_TOKEN = 8
"""Shorter values cannot be real tokens, and replacing them would tear ordinary words apart."""


def redact(text: str) -> str:
    """The text without tokens: the ones in use, whatever looks like one, and the secrets of signed URLs."""
    for secret in _known_secrets():
        text = text.replace(secret, _HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _known_secrets() -> list[str]:
    """Tokens of this process, longest first: the environment's, and the one that `hf auth login` has written.

    Asking the client for its token could itself go to the network (OIDC, refresh), which a message must never do.
    """
    from huggingface_hub import constants

    secrets = {os.environ.get(name, "").strip() for name in _TOKEN_VARIABLES}
    token_file = Path(constants.HF_TOKEN_PATH)
    if token_file.is_file() and os.access(token_file, os.R_OK):
        secrets.add(token_file.read_text(encoding="utf-8", errors="replace").strip())
    return sorted((secret for secret in secrets if len(secret) >= _SHORTEST_TOKEN), key=len, reverse=True)
