"""Xet storage: tokens from the Hub, chunks and files on an origin of their own, bytes from the file storage.

It knows version 1 of the protocol; to what newer clients try first it says 404, upon which they fall back.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..accounts import check_gate
from ..errors import HubError, bad_request
from ..http import Request, Response
from ..store import Repo
from ..xet import BadFormat, Term, Xorb, files_of_shard
from . import CAS, CDN, HUB
from .download import check_storage_request, ranged
from .upload import check_contributor, ref_to_write

if TYPE_CHECKING:
    from ..server import HubServer


@dataclass(frozen=True)
class XetToken:
    """What a token of the storage is good for."""

    repo: Repo
    write: bool


def _give_token(server: HubServer, repo: Repo, *, write: bool) -> Response:
    secret, expires = "xet_" + secrets.token_hex(16), int(time.time()) + 3600
    server.xet_tokens[secret] = XetToken(repo, write)
    headers = {
        "X-Xet-Cas-Url": server.cas,
        "X-Xet-Access-Token": secret,
        "X-Xet-Token-Expiration": str(expires),
    }
    return Response.json({"casUrl": server.cas, "accessToken": secret, "exp": expires}, headers=headers)


@HUB.route("GET", "/api/{kind}s/{repo}/xet-read-token/{revision}")
def read_token(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    found = server.visible(kind, repo, request)
    check_gate(found, request.token, server.endpoint)
    server.commit_of(found, revision)
    return _give_token(server, found, write=False)


@HUB.route("GET", "/api/{kind}s/{repo}/xet-write-token/{revision}")
def write_token(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    found = server.visible(kind, repo, request)
    if request.flag("create_pr"):
        check_contributor(found, request)
    else:
        ref_to_write(found, request, revision)
    return _give_token(server, found, write=True)


def _allowed(server: HubServer, request: Request, *, write: bool = False) -> XetToken:
    token = server.xet_tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
    if token is None:
        raise HubError(401, "Unauthorized")
    if write and not token.write:
        raise HubError(403, "Forbidden: this token only reads")
    return token


@CAS.route("POST", "/v1/xorbs/default/{xorb}")
def put_xorb(server: HubServer, request: Request, xorb: str) -> Response:
    _allowed(server, request, write=True)
    made = Xorb(request.body)
    try:
        assert made.chunks
    except BadFormat as error:
        raise bad_request(str(error)) from error
    new = xorb not in server.xorbs
    server.xorbs[xorb] = made
    return Response.json({"was_inserted": new})


@CAS.route("POST", "/v1/shards")
def put_shard(server: HubServer, request: Request) -> Response:
    """Register files: each is put together once, here, so that the rest of the Hub has its bytes and its sha256."""
    repo = _allowed(server, request, write=True).repo
    try:
        for file, terms in files_of_shard(request.body):
            content = b"".join(
                server.xorbs[term.xorb].content(chunk)
                for term in terms
                for chunk in server.xorbs[term.xorb].chunks[term.start : term.end]
            )
            sha256 = hashlib.sha256(content).hexdigest()
            server.objects[sha256] = content
            repo.uploaded.add(sha256)
            server.xet_files[file] = terms
            server.xet_hashes[sha256] = file
    except (BadFormat, KeyError) as error:
        raise bad_request(f"bad shard: {error}") from error
    return Response.json({"result": 1})


@CAS.route("GET", "/v1/reconstructions/{file}")
def reconstruction(server: HubServer, request: Request, file: str) -> Response:
    """Which chunks to get and where, for a file or a range of its bytes."""
    _allowed(server, request)
    if file not in server.xet_files:
        raise HubError(404, "no such file")
    pieces = [
        (term.xorb, index, server.xorbs[term.xorb].chunks[index].length)
        for term in server.xet_files[file]
        for index in range(term.start, term.end)
    ]
    first, last = _asked(request, sum(length for *_, length in pieces))
    at, skipped, terms = 0, 0, list[Term]()
    sizes: dict[Term, int] = {}
    for xorb, index, length in pieces:
        if at + length > first and at <= last:
            if not terms:
                skipped = first - at
            if terms and terms[-1].xorb == xorb and terms[-1].end == index:
                previous = terms.pop()
                term, sizes_before = Term(xorb, previous.start, index + 1), sizes.pop(previous)
            else:
                term, sizes_before = Term(xorb, index, index + 1), 0
            terms.append(term)
            sizes[term] = sizes_before + length
        at += length
    return Response.json(_plan(server, skipped, terms, sizes))


def _asked(request: Request, total: int) -> tuple[int, int]:
    """The first and the last byte of the range that was asked for."""
    start, _, end = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
    first, last = int(start), min(int(end or total), total - 1)
    if first >= total > 0:
        raise HubError(416, "the file ends before")
    return first, last


def _plan(server: HubServer, skipped: int, terms: list[Term], sizes: dict[Term, int]) -> dict[str, Any]:
    fetch: dict[str, list[dict[str, Any]]] = {}
    for term in dict.fromkeys(terms):
        chunks = server.xorbs[term.xorb].chunks[term.start : term.end]
        place = {
            "range": {"start": term.start, "end": term.end},
            "url": server.urls.sign(server.cdn, f"/xorbs/{term.xorb}"),
            "url_range": {"start": chunks[0].at, "end": chunks[-1].at + chunks[-1].stored - 1},
        }
        fetch.setdefault(term.xorb, []).append(place)
    rows = [
        {"hash": term.xorb, "unpacked_length": sizes[term], "range": {"start": term.start, "end": term.end}}
        for term in terms
    ]
    return {"offset_into_first_range": skipped, "terms": rows, "fetch_info": fetch}


@CDN.route("GET", "/xorbs/{xorb}")
def get_xorb(server: HubServer, request: Request, xorb: str) -> Response:
    check_storage_request(server, request)
    return ranged(request, server.xorbs[xorb].raw, {"ETag": f'"{xorb}"'})


@CAS.route("POST", "/v1/telemetry")
def telemetry(server: HubServer, request: Request) -> Response:
    return Response.json({})


def _not_here(server: HubServer, request: Request, **values: str) -> Response:
    """A route of the protocol that this storage does without."""
    raise HubError(404, "not found")


for _method, _path in (
    ("GET", "/v1/chunks/{prefix_}/{hash}"),  # deduplication against what others uploaded
    ("POST", "/v1/xorb-grants/{path}"),
    ("POST", "/v1/xorb-grants"),
    ("POST", "/v2/shards"),
    ("GET", "/v2/reconstructions/{file}"),
):
    CAS.route(_method, _path)(_not_here)
