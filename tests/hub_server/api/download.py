"""The bytes of files: small ones from the Hub, large ones by redirect from the file storage."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..accounts import check_gate
from ..errors import HubError, bad_request, entry_missing
from ..http import Request, Response
from ..store import Blob, Commit, Repo
from . import CDN, HUB

if TYPE_CHECKING:
    from ..server import HubServer


def ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """The whole content, or the one range of it that was asked for: 206, or 416 where it has none of it."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    asked = request.headers.get("range")
    matched = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if matched is None or matched[0] == "bytes=-":
        return Response(200, content, headers)
    total = len(content)
    if matched[1]:
        start, end = int(matched[1]), min(int(matched[2] or total), total - 1)
    else:
        start, end = max(0, total - int(matched[2])), total - 1
    if start > end:
        return Response(416, b"", {**headers, "Content-Range": f"bytes */{total}"})
    return Response(206, content[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{total}"})


def _locate(
    server: HubServer, request: Request, kind: str, repo: str, revision: str, path: str
) -> tuple[Repo, Commit, Blob]:
    found = server.visible(kind, repo, request)
    check_gate(found, request.token, server.endpoint)
    commit = server.commit_of(found, revision)
    if path not in commit.files:
        raise entry_missing(path, commit.sha)
    return found, commit, commit.files[path]


def _resolve(server: HubServer, request: Request, kind: str, repo: str, revision: str, path: str) -> Response:
    found, commit, blob = _locate(server, request, kind, repo, revision, path)
    headers = {"X-Repo-Commit": commit.sha, "X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
    if blob.lfs:
        headers |= _xet_headers(server, found, commit, blob)
        name = posixpath.basename(path)
        location = server.urls.sign(server.cdn, f"/objects/{blob.sha256}", filename=name)
        return Response(302, b"", {**headers, "Location": location, "Cache-Control": "no-store"})
    # Production answers small files from a cache on the same origin; the client follows and keeps its token.
    location = f"/api/resolve-cache/{kind}s/{found.name}/{commit.sha}/{quote(path)}"
    return Response(307, b"", {**headers, "Location": location})


def _xet_headers(server: HubServer, repo: Repo, commit: Commit, blob: Blob) -> dict[str, str]:
    """Where the same bytes are in Xet storage, if they came that way; clients without Xet follow the redirect."""
    file = server.xet_hashes.get(blob.sha256)
    if file is None:
        return {}
    token = f"{server.endpoint}/api/{repo.kind}s/{repo.name}/xet-read-token/{commit.sha}"
    links = f'<{token}>; rel="xet-auth", <{server.cas}/v1/reconstructions/{file}>; rel="xet-reconstruction-info"'
    return {"X-Xet-Hash": file, "Link": links}


@HUB.route("GET", "/{prefix}{repo}/resolve/{revision}/{path}")
def resolve(server: HubServer, request: Request, kind: str, repo: str, revision: str, path: str) -> Response:
    return _resolve(server, request, kind, repo, revision, path)


@HUB.route("HEAD", "/{prefix}{repo}/resolve/{revision}/{path}")
def resolve_head(server: HubServer, request: Request, kind: str, repo: str, revision: str, path: str) -> Response:
    return _resolve(server, request, kind, repo, revision, path)


def _cached(server: HubServer, request: Request, kind: str, repo: str, revision: str, path: str) -> Response:
    _, commit, blob = _locate(server, request, kind, repo, revision, path)
    return ranged(request, blob.content, {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.oid}"'})


@HUB.route("GET", "/api/resolve-cache/{kind}s/{repo}/{revision}/{path}")
def resolve_cache(server: HubServer, request: Request, kind: str, repo: str, revision: str, path: str) -> Response:
    return _cached(server, request, kind, repo, revision, path)


@HUB.route("HEAD", "/api/resolve-cache/{kind}s/{repo}/{revision}/{path}")
def resolve_cache_head(server: HubServer, request: Request, kind: str, repo: str, revision: str, path: str) -> Response:
    return _cached(server, request, kind, repo, revision, path)


@HUB.route("GET", "/{prefix}{repo}/raw/{revision}/{path}")
def raw(server: HubServer, request: Request, kind: str, repo: str, revision: str, path: str) -> Response:
    """What git stores: the pointer of an LFS file, not its bytes."""
    _, commit, blob = _locate(server, request, kind, repo, revision, path)
    if blob.lfs:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{blob.sha256}\nsize {len(blob.content)}\n"
        return Response.text(text)
    return ranged(request, blob.content, {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.oid}"'})


def check_storage_request(server: HubServer, request: Request) -> None:
    """The file storage takes signed URLs and nothing else: a token that gets there is an error, not a help."""
    if "authorization" in request.headers:
        raise bad_request("Only one auth mechanism allowed; this storage takes no Authorization header")
    if not server.urls.signed(request):
        raise HubError(403, "Access denied: this URL is not signed")


@CDN.route("GET", "/objects/{oid}")
def stored_object(server: HubServer, request: Request, oid: str) -> Response:
    check_storage_request(server, request)
    name = request.param("filename")
    headers = {
        "ETag": f'"{oid}"',
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}; filename=\"{name}\";",
    }
    return ranged(request, server.objects[oid], headers)


@CDN.route("HEAD", "/objects/{oid}")
def stored_object_head(server: HubServer, request: Request, oid: str) -> Response:
    return stored_object(server, request, oid)
