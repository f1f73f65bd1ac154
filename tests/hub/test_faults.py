"""Every way in which the client fails has a name, says whether trying again helps, and tells no token."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from huggingface_hub import errors

from inspo_hub import hub as room
from inspo_hub.hub.client import Patience, call
from inspo_hub.hub.faults import Fault, FaultKind, classify, retry_after
from tests.hub_server import Answer, Drop, HubServer

from .conftest import QUICK, model_files

TOKEN = "hf_" + "a1B2" * 9


class XetLike(PermissionError):
    """Errors of the Rust part of the client are subclasses of the built-in ones, defined elsewhere."""


def _wrapped(cause: Exception) -> RuntimeError:
    error = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionError("refused"), "away"),
        (ConnectionError("HTTP status client error (404 Not Found) for url http://x/xet-write-token/main"), "missing"),
        (ConnectionError("HTTP status server error (503 Service Unavailable)"), "busy"),
        (TimeoutError("timed out"), "away"),
        (errors.HTTPError("peer closed connection"), "away"),
        (errors.OfflineModeIsEnabled("offline"), "away"),
        (errors.LocalEntryNotFoundError("not in the cache"), "away"),
        (errors.LocalTokenNotFoundError("Token is required"), "denied"),
        (errors.EntryNotFoundError("gone"), "missing"),
        (OSError(errno.ENOSPC, "No space left on device"), "local"),
        (PermissionError(errno.EACCES, "denied"), "local"),
        (OSError("Data processing error: connection reset"), "away"),
        (XetLike("CAS: status 403 Forbidden"), "denied"),
        (ValueError("Invalid metadata in README.md."), "refused"),
        (_wrapped(OSError(errno.ENOSPC, "full")), "local"),
        (_wrapped(ConnectionError("reset")), "away"),
        (RuntimeError("cannot schedule new futures after shutdown"), "away"),
        (TypeError("unexpected keyword"), "bug"),
        (KeyError("sha"), "bug"),
    ],
    ids=str,
)
def test_kinds(error: Exception, kind: FaultKind) -> None:
    fault = classify(error)
    assert fault.kind == kind
    assert fault.transient is (kind in ("away", "busy", "conflict"))


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (400, None, "bad", "refused"),
        (401, None, "Invalid credentials in Authorization header", "denied"),
        (401, "RepoNotFound", "Invalid username or password.", "missing"),
        (402, None, "Payment required", "quota"),
        (403, None, "Forbidden", "denied"),
        (403, None, "Private repository storage limit reached", "quota"),
        (403, "GatedRepo", "Access is restricted", "gated"),
        (404, "RevisionNotFound", "no such revision", "missing"),
        (409, None, "conflict", "conflict"),
        (412, None, "A commit has happened since", "conflict"),
        (429, None, "Too many", "busy"),
        (500, None, "oops", "busy"),
        (503, None, "down", "busy"),
        (507, None, "Insufficient storage", "quota"),
    ],
)
def test_kinds_of_answers(alice: HubServer, status: int, code: str | None, message: str, kind: FaultKind) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    alice.faults.add("GET", f"/api/models/{repo}", Answer(status, f"{message} {TOKEN}", code), times=None)
    from inspo_hub.hub.client import api

    with pytest.raises(room.HubFailure) as failure:
        call(lambda: api().model_info(repo), patience=Patience(attempts=1))
    fault = failure.value.fault
    assert (fault.kind, fault.status) == (kind, status)
    assert TOKEN not in fault.message
    assert "\n" not in fault.message


def test_no_exception_holds_the_request_that_holds_the_token(alice: HubServer) -> None:
    with pytest.raises(room.HubFailure) as failure:
        call(lambda: __import__("huggingface_hub").HfApi().model_info("alice/nothing"), patience=QUICK)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__


@pytest.mark.parametrize(
    ("headers", "limited", "expected"),
    [
        ({}, True, None),
        ({"RateLimit": '"api";r=0;t=55'}, True, 55),
        ({"ratelimit": '"api"; r=0; t=55'}, True, 55),
        ({"RateLimit": '"api";r=949;t=55'}, True, None),
        ({"RateLimit": '"api";r=0;t=55'}, False, None),
        ({"RateLimit": '"api";r=949;t=55', "Retry-After": "7"}, True, 7),
        ({"Retry-After": "120"}, False, 120),
        ({"Retry-After": "soon"}, False, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, False, 0),
    ],
)
def test_how_long_the_hub_asks_us_to_wait(headers: dict[str, str], limited: bool, expected: float | None) -> None:
    assert retry_after(headers, limited=limited) == expected


def test_a_date_in_retry_after() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    wait = retry_after({"Retry-After": later}, limited=False)
    assert wait is not None
    assert 55 < wait <= 60


def test_patience_backs_off_within_bounds() -> None:
    patience = Patience(attempts=6, base_s=1, ceiling_s=5, longest_wait_s=100)
    away = Fault("away", "x")
    assert [patience.wait_s(attempt, away) for attempt in range(1, 7)] == [1, 2, 4, 5, 5, None]
    assert patience.wait_s(1, Fault("busy", "x", wait_s=55)) == 56, "never less than asked for"
    assert patience.wait_s(1, Fault("busy", "x", wait_s=101)) is None
    assert patience.wait_s(1, Fault("denied", "x")) is None


def test_only_what_may_pass_is_tried_again(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    refused = alice.faults.add("GET", f"/api/models/{repo}", Answer(403), times=None)
    with pytest.raises(room.HubFailure):
        call(lambda: _info(repo), patience=QUICK)
    assert refused.hits == 1
    alice.faults.clear()
    dropped = alice.faults.add("GET", f"/api/models/{repo}", Drop("before"), times=2)
    assert call(lambda: _info(repo), patience=QUICK)
    assert dropped.hits == 2


def _info(repo: str) -> object:
    from inspo_hub.hub.client import api

    return api().model_info(repo)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {TOKEN}.", "token [hidden]"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer [hidden]"),
        ('{"Authorization": "Basic abcdefghij"}', '{"Authorization": "Basic [hidden]"}'),
        ("sent Bearer abcdefghij0123456789", "sent Bearer [hidden]"),
        ("Basic questions and bearer instruments stay", "Basic questions and bearer instruments stay"),
        ("https://s3/x?X-Amz-Credential=AK&X-Amz-Signature=12ab&y=1", None),
        ("https://alice:secret@hub.local/x", "https://[hidden]@hub.local/x"),
        ("https://cdn/x?Policy=abc&Key-Pair-Id=K1&Signature=zz~", None),
        ("hf_hub_download and hf_transfer are no tokens", "hf_hub_download and hf_transfer are no tokens"),
        ("tokens=3, tokenizer.json?revision=main", "tokens=3, tokenizer.json?revision=main"),
    ],
)
def test_redact(text: str, expected: str | None) -> None:
    hidden = room.redact(text)
    if expected is not None:
        assert hidden.rstrip(".") == expected.rstrip(".")
    for secret in (TOKEN, "abcdefghij", "=AK", "12ab", "secret", "=abc", "K1", "zz~"):
        assert secret not in hidden


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_tokens_of_any_form_that_are_in_use_are_hidden(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "odd-form-42")
    assert room.redact("it is odd-form-42!") == "it is [hidden]!"


def test_the_token_file_is_known_too(alice: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    path = Path(constants.HF_TOKEN_PATH)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("written-by-login\n")
    assert room.redact("x written-by-login x") == "x [hidden] x"
