"""The way in: how each file is to be sent, the bytes of large files, and the commit."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import math
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..accounts import check_write, may_write
from ..cards import check_card
from ..errors import HubError, bad_request, forbidden, needs_login, revision_missing
from ..http import Request, Response
from ..store import LFS_FROM_BYTES, Blob, Repo
from . import CDN, HUB
from .discussions import open_pull_request
from .download import check_storage_request

if TYPE_CHECKING:
    from ..server import HubServer


def check_contributor(repo: Repo, request: Request) -> None:
    """Whoever may open a pull request: anyone who sees the repository and may write somewhere."""
    if request.token is None:
        raise needs_login()
    if request.token.role == "read":
        raise forbidden("you must use a write token to upload to a repository.")


def ref_to_write(repo: Repo, request: Request, revision: str) -> str:
    """The branch or pull request that the caller may move."""
    ref = repo.ref_to_write(revision)
    if ref is None:
        check_write(repo, request.token)
        raise revision_missing(revision)
    if ref.startswith("refs/pr/") and not may_write(repo, request.token):
        check_contributor(repo, request)
        assert request.token is not None
        if repo.discussions[int(ref.removeprefix("refs/pr/"))].author != request.token.user.name:
            raise forbidden("only the author of a pull request and the owners of the repository may add to it.")
    elif not ref.startswith("refs/pr/"):
        check_write(repo, request.token)
    return ref


@HUB.route("POST", "/api/{kind}s/{repo}/preupload/{revision}")
def preupload(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    """How each file is to be sent, and what is there already, so that unchanged files are left out."""
    found = server.visible(kind, repo, request)
    if request.flag("create_pr"):
        check_contributor(found, request)
        commit = server.commit_of(found, revision)
    else:
        commit = found.commits[found.refs[ref_to_write(found, request, revision)]]
    asked = request.read_json()
    ignored = str(asked.get("gitIgnore", "")).split()
    rows = []
    for file in asked["files"]:
        path, sample = file["path"], base64.b64decode(file["sample"])
        lfs = found.wants_lfs(path, file["size"], sample, commit.files)
        row = {"path": path, "uploadMode": "lfs" if lfs else "regular"}
        row["shouldIgnore"] = any(fnmatch.fnmatch(path, pattern) for pattern in ignored)
        if path in commit.files:
            row["oid"] = commit.files[path].etag
        rows.append(row)
    return Response.json({"files": rows, "commitOid": commit.sha})


@HUB.route("POST", "/{prefix}{repo}.git/info/lfs/objects/batch")
def lfs_batch(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    found = server.visible(kind, repo, request)
    check_contributor(found, request)
    asked = request.read_json()
    if asked.get("operation") != "upload" or asked.get("hash_algo") != "sha256":
        raise bad_request("only uploads by sha256 are served here")
    _check_quota(server, found, asked["objects"])
    objects = [_upload_of(server, found, item, "multipart" in asked["transfers"]) for item in asked["objects"]]
    multipart = any("chunk_size" in item.get("actions", {}).get("upload", {}).get("header", {}) for item in objects)
    return Response.json({"transfer": "multipart" if multipart else "basic", "objects": objects})


def _check_quota(server: HubServer, repo: Repo, objects: list[dict[str, Any]]) -> None:
    owner = server.accounts.users.get(repo.namespace)
    if owner is None or owner.quota_bytes is None:
        return
    stored = {oid for other in server.repos.values() if other.namespace == owner.name for oid in other.uploaded}
    used = sum(len(server.objects[oid]) for oid in stored)
    if used + sum(item["size"] for item in objects if item["oid"] not in stored) > owner.quota_bytes:
        raise HubError(403, "Private repository storage limit reached, please upgrade your plan to increase it.")


def _upload_of(server: HubServer, repo: Repo, item: dict[str, Any], multipart: bool) -> dict[str, Any]:
    """What to do with one object: nothing where it is stored, one PUT, or parts and a last POST."""
    oid, size = item["oid"], item["size"]
    row = {"oid": oid, "size": size, "authenticated": True}
    if oid in repo.uploaded:
        return row
    at = {"repo": f"{repo.kind}:{repo.name}", "size": str(size)}
    verify = {"href": f"{server.endpoint}/{repo.prefix}{repo.name}.git/info/lfs/objects/verify", "header": {}}
    if not multipart or size < server.multipart_from_bytes:
        upload: dict[str, Any] = {"href": server.urls.sign(server.cdn, f"/upload/{oid}", **at), "header": {}}
    else:
        upload_id = secrets.token_hex(8)
        server.parts[upload_id] = {}
        header = {"chunk_size": str(server.part_bytes)}
        for number in range(1, math.ceil(size / server.part_bytes) + 1):
            header[str(number)] = server.urls.sign(server.cdn, f"/part/{upload_id}/{number}")
        done = server.urls.sign(server.endpoint, "/api/complete_multipart", upload=upload_id, oid=oid, **at)
        upload = {"href": done, "header": header}
    return {**row, "actions": {"upload": upload, "verify": verify}}


def _store(server: HubServer, request: Request, oid: str, content: bytes) -> None:
    """Keep an object, if it is what it was announced to be."""
    if hashlib.sha256(content).hexdigest() != oid or len(content) != int(request.param("size")):
        raise bad_request("BadDigest: the content is not what its sha256 says")
    kind, name = request.param("repo").split(":")
    server.objects[oid] = content
    server.repos[kind, name].uploaded.add(oid)


@CDN.route("PUT", "/upload/{oid}")
def put_object(server: HubServer, request: Request, oid: str) -> Response:
    check_storage_request(server, request)
    _store(server, request, oid, request.body)
    return Response(200, b"", {"ETag": f'"{hashlib.md5(request.body, usedforsecurity=False).hexdigest()}"'})


@CDN.route("PUT", "/part/{upload}/{number}")
def put_part(server: HubServer, request: Request, upload: str, number: str) -> Response:
    check_storage_request(server, request)
    server.parts[upload][int(number)] = request.body
    return Response(200, b"", {"ETag": f'"{hashlib.md5(request.body, usedforsecurity=False).hexdigest()}"'})


@HUB.route("POST", "/api/complete_multipart")
def complete_multipart(server: HubServer, request: Request) -> Response:
    if not server.urls.signed(request):
        raise HubError(403, "Access denied: this URL is not signed")
    parts = server.parts[request.param("upload")]
    for said in request.read_json()["parts"]:
        part = parts.get(said["partNumber"])
        if part is None or said["etag"].strip('"') != hashlib.md5(part, usedforsecurity=False).hexdigest():
            raise bad_request(f"InvalidPart: {said['partNumber']}")
    _store(server, request, request.param("oid"), b"".join(parts[number] for number in sorted(parts)))
    del server.parts[request.param("upload")]
    return Response.json({"success": True})


@HUB.route("POST", "/{prefix}{repo}.git/info/lfs/objects/verify")
def lfs_verify(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    found = server.visible(kind, repo, request)
    check_contributor(found, request)
    asked = request.read_json()
    if asked["oid"] not in found.uploaded or len(server.objects[asked["oid"]]) != asked["size"]:
        raise HubError(404, f"LFS object {asked['oid']} was not uploaded")
    return Response.json({"success": True})


@HUB.route("POST", "/api/{kind}s/{repo}/lfs-files/duplicate")
def duplicate_lfs(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    """Let the target repository point to objects that this one has."""
    source = server.visible(kind, repo, request)
    asked = request.read_json()
    target = server.visible(asked["target"]["type"], asked["target"]["name"], request)
    check_write(target, request.token)
    for file in asked["files"]:
        if file["sha256"] not in source.uploaded:
            raise HubError(404, f"LFS object {file['sha256']} is not in {source.name}")
        target.uploaded.add(file["sha256"])
    return Response.json({"failed": [], "succeeded": [file["sha256"] for file in asked["files"]]})


@HUB.route("POST", "/api/{kind}s/{repo}/commit/{revision}")
def commit(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    """One commit from newline-delimited JSON: a header, then an operation a line; all of it or nothing."""
    found = server.visible(kind, repo, request)
    create_pr = request.flag("create_pr")
    if create_pr:
        check_contributor(found, request)
        base = server.commit_of(found, revision)
    else:
        ref = ref_to_write(found, request, revision)
        base = found.commits[found.refs[ref]]
    header, operations = _parse_commit(request.body)
    parent = header.get("parentCommit")
    if parent is not None and not base.sha.startswith(parent):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(base.files)
    for key, value in operations:
        _apply(server, found, files, key, value)
    if "README.md" in files and files["README.md"] != base.files.get("README.md"):
        errors, _ = check_card(files["README.md"].content.decode(), kind)
        if errors:
            raise bad_request("Invalid metadata in README.md. " + " ".join(errors))
    user = server.user_of(request)
    title, description = str(header["summary"]), str(header.get("description", ""))
    answer: dict[str, object] = {"success": True}
    if create_pr:
        pull_request = open_pull_request(server, found, title, description, user.name, base.sha)
        ref = f"refs/pr/{pull_request.number}"
        answer["pullRequestUrl"] = f"{server.endpoint}/{found.prefix}{found.name}/discussions/{pull_request.number}"
    made = found.commit(ref, files, title=title, description=description, author=user.name, parent=base.sha)
    url = f"{server.endpoint}/{found.prefix}{found.name}/commit/{made.sha}"
    return Response.json({**answer, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})


def _parse_commit(body: bytes) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
    except ValueError as error:
        raise bad_request(f"Invalid NDJSON: {error}") from error
    if not lines or lines[0]["key"] != "header" or not lines[0]["value"].get("summary"):
        raise bad_request('"header.summary" is required')
    return lines[0]["value"], [(line["key"], line["value"]) for line in lines[1:]]


def _apply(server: HubServer, repo: Repo, files: dict[str, Blob], key: str, value: Mapping[str, Any]) -> None:
    """One operation of a commit on the tree that it makes."""
    path = value["path"]
    if not re.fullmatch(r"[^/]+(/[^/]+)*/?", path) or {".", "..", ".git"} & set(path.split("/")):
        raise bad_request(f"Invalid path: {path}")
    if key == "file":
        content = base64.b64decode(value["content"]) if value.get("encoding") == "base64" else value["content"].encode()
        if len(content) > LFS_FROM_BYTES or b"\0" in content[:8000]:
            raise bad_request(f"Your push was rejected because it contains binary files: {path}")
        files[path] = Blob.of(content, lfs=False)
    elif key == "lfsFile":
        if value["oid"] not in repo.uploaded:
            raise bad_request(
                f"Your push was rejected because an LFS pointer pointed to a file that does not exist: {path}"
            )
        files[path] = Blob.of(server.objects[value["oid"]], lfs=True)
    elif key == "deletedFile":
        if path not in files:
            raise HubError(404, f"A file with this name doesn't exist: {path}", code="EntryNotFound")
        del files[path]
    elif key == "deletedFolder":
        inside = [name for name in files if name.startswith(path.rstrip("/") + "/")]
        if not inside:
            raise HubError(404, f"A folder with this name doesn't exist: {path}", code="EntryNotFound")
        for name in inside:
            del files[name]
    else:
        raise bad_request(f"Unknown operation: {key}")
