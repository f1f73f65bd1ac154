"""What went wrong between us and the Hub: one classification of everything its client can raise."""

from __future__ import annotations

import errno
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

from inspo_hub.hub.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

FaultKind = Literal["away", "busy", "conflict", "gated", "denied", "missing", "refused", "quota", "local", "bug"]
_TRANSIENT: frozenset[FaultKind] = frozenset({"away", "busy", "conflict"})
_LOCAL_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EMFILE}
)
_STATUS_IN_TEXT = re.compile(r"(?:status[^0-9]{0,40}|\()([45]\d\d)\b", re.IGNORECASE)
_QUOTA_WORDS = re.compile(r"(?i)storage (?:limit|quota)|quota exceeded|out of (?:storage|quota)|payment required")
_RATE_LIMIT = re.compile(r'"\w+"\s*;\s*r\s*=\s*(\d+)\s*;\s*t\s*=\s*(\d+)')


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure that has a name: whether trying again can help, and how long the Hub asked us to wait."""

    kind: FaultKind
    message: str
    wait_s: float | None = None
    status: int | None = None
    code: str | None = None

    @property
    def transient(self) -> bool:
        return self.kind in _TRANSIENT


def client_errors() -> tuple[type[Exception], ...]:
    """Every class of error that the client lets through when the Hub, the network or the disk fails.

    `HTTPError` is the one of the client's own HTTP library, whose name changed between its versions.
    """
    from huggingface_hub import errors

    return (errors.HTTPError, errors.EntryNotFoundError, OSError, ValueError, RuntimeError)


def classify(error: BaseException) -> Fault:
    """The kind of a failure, from its type, its HTTP status and, for the Rust part of the client, its text."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return _classify_answer(error)
    text = _one_line(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Fault("away", text, wait_s=math.inf)  # asking again cannot help
    if isinstance(error, errors.HTTPError | ConnectionError | TimeoutError):
        return _classify_text(text)
    if isinstance(error, errors.LocalTokenNotFoundError):
        return Fault("denied", text)  # an OSError, of which no repetition makes a token
    if isinstance(error, errors.LocalEntryNotFoundError):  # the client looked in its cache after a failed call
        return classify(error.__cause__) if error.__cause__ is not None else Fault("away", text, wait_s=math.inf)
    if isinstance(error, errors.EntryNotFoundError):
        return Fault("missing", text)
    if isinstance(error, OSError):
        from_rust = type(error).__module__ != "builtins"
        return _classify_text(text) if from_rust or error.errno not in _LOCAL_ERRNOS else Fault("local", text)
    if isinstance(error, RuntimeError):
        return classify(error.__cause__) if error.__cause__ is not None else _classify_text(text)
    if isinstance(error, ValueError):
        return Fault("refused", text)
    return Fault("bug", text)


def _classify_answer(error: OSError) -> Fault:
    """The kind of an HTTP answer: its `X-Error-Code` first, since 401 and 404 mean several things, then its status."""
    from huggingface_hub import errors

    assert isinstance(error, errors.HfHubHTTPError)
    status, headers = error.response.status_code, error.response.headers
    text, code = _one_line(error), headers.get("X-Error-Code")
    wait = retry_after(headers, limited=status == 429)
    if isinstance(error, errors.GatedRepoError):
        return Fault("gated", text, status=status, code=code)
    if isinstance(
        error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.RemoteEntryNotFoundError
    ):
        return Fault("missing", text, status=status, code=code)
    if _QUOTA_WORDS.search(text):
        return Fault("quota", text, status=status, code=code)
    return Fault(_kind_of_status(status), text, wait, status, code)


def _kind_of_status(status: int) -> FaultKind:
    known: dict[int, FaultKind] = {
        401: "denied",
        402: "quota",
        403: "denied",
        404: "missing",
        408: "busy",
        409: "conflict",
        412: "conflict",
        425: "busy",
        429: "busy",
        507: "quota",
    }
    return known.get(status, "busy" if status >= 500 else "refused")


def _classify_text(text: str) -> Fault:
    """A fault without an answer object: nobody answered, unless the text carries the status of an answer."""
    match = _STATUS_IN_TEXT.search(text)
    if match is None:
        return Fault("away", text)
    status = int(match.group(1))
    return Fault(_kind_of_status(status), text, status=status)


def retry_after(headers: Mapping[str, str], *, limited: bool) -> float | None:
    """Seconds the Hub asks us to wait: `RateLimit: "api";r=0;t=55` of a 429, else `Retry-After` (seconds or a date)."""
    by_name = {name.lower(): value.strip() for name, value in headers.items()}
    match = _RATE_LIMIT.search(by_name.get("ratelimit", ""))
    if limited and match is not None and int(match.group(1)) == 0:
        return float(match.group(2))
    value = by_name.get("retry-after", "")
    if value.isdigit():
        return float(value)
    if not value:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _one_line(error: BaseException) -> str:
    """The error's text in one line, without tokens, request numbers and advice for somebody else's program."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("For more details, see", "Make sure your token"))]
    text = re.sub(r"\s*\(Request ID: [^)]*\)", "", " ".join(kept))
    return redact(f"{type(error).__name__}: {text[:600]}" if text else type(error).__name__)
