"""Repositories as wholes: made, moved, deleted, described, and who may do what with them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..accounts import Token, check_gate, check_visible, check_write
from ..cards import front_matter
from ..errors import HubError, bad_request, forbidden, needs_login, repo_missing
from ..http import Request, Response
from ..store import Commit, Repo
from . import HUB
from .pages import paged
from .refs import timestamp
from .spaces import runtime_of
from .tree import lfs_info
from .weights import parameters_of

if TYPE_CHECKING:
    from ..server import HubServer

_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}(?<![-.])(?<!\.git)")
SPACE_README = "---\ntitle: {name}\nemoji: 🐳\ncolorFrom: blue\ncolorTo: gray\nsdk: {sdk}\npinned: false\n---\n"


def _namespace(request: Request, kind: str, organisation: str | None) -> tuple[Token, str]:
    """The caller and the namespace they may change repositories in."""
    if request.token is None:
        raise needs_login()
    namespace = organisation or request.token.user.name
    allowed = namespace in request.token.user.namespaces and request.token.allows("repo.write", namespace=namespace)
    if not allowed:
        raise forbidden(f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    return request.token, namespace


def _private(asked: dict[str, Any]) -> bool | None:
    """Newer clients say `visibility`, older ones `private`."""
    if "visibility" in asked:
        return bool(asked["visibility"] == "private")
    return bool(asked["private"]) if "private" in asked else None


@HUB.route("POST", "/api/repos/create")
def create(server: HubServer, request: Request) -> Response:
    asked = request.read_json()
    kind = asked.get("type") or "model"
    _, namespace = _namespace(request, kind, asked.get("organization"))
    if not _NAME.fullmatch(asked["name"]):
        raise bad_request(f"Invalid repo name: {namespace}/{asked['name']}")
    name = f"{namespace}/{asked['name']}"
    prefix = "" if kind == "model" else f"{kind}s/"
    url = f"{server.endpoint}/{prefix}{name}"
    if (kind, name) in server.repos:
        return Response.json({"error": f"You already created this {kind} repo: {name}", "url": url}, status=409)
    settings: dict[str, object] = {}
    if kind == "space":
        if asked.get("sdk") not in ("gradio", "docker", "static"):
            raise bad_request('"sdk" must be one of [gradio, docker, static]')
        settings = {key: asked[key] for key in ("sdk", "hardware", "sleepTimeSeconds") if key in asked}
        settings["secrets"] = {item["key"]: item for item in asked.get("secrets", [])}
        settings["variables"] = {item["key"]: item for item in asked.get("variables", [])}
    server.create_repo(name, type=kind, private=bool(_private(asked)), settings=settings)
    if kind == "space":
        readme = SPACE_README.format(name=asked["name"], sdk=asked["sdk"])
        server.commit(name, {"README.md": readme}, type=kind, title="initial commit")
    return Response.json({"url": url, "name": name, "id": name})


@HUB.route("DELETE", "/api/repos/delete")
def delete(server: HubServer, request: Request) -> Response:
    asked = request.read_json()
    kind = asked.get("type") or "model"
    _, namespace = _namespace(request, kind, asked.get("organization"))
    name = f"{namespace}/{asked['name']}"
    if server.repos.pop((kind, name), None) is None:
        raise repo_missing(True)
    return Response.json({"success": True})


@HUB.route("POST", "/api/repos/move")
def move(server: HubServer, request: Request) -> Response:
    asked = request.read_json()
    kind, old, new = asked["type"], asked["fromRepo"], asked["toRepo"]
    found = check_visible(server.repos.get((kind, old)), request.token)
    check_write(found, request.token)
    _namespace(request, kind, new.split("/")[0])
    if (kind, new) in server.repos:
        raise HubError(409, f"{new} exists already")
    found.name = new
    server.repos[kind, new] = server.repos.pop((kind, old))
    server.moved[kind, old] = new
    server.moved.pop((kind, new), None)
    return Response.json({"success": True})


@HUB.route("PUT", "/api/{kind}s/{repo}/settings")
def change_settings(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    found = server.visible(kind, repo, request)
    check_write(found, request.token)
    asked = request.read_json()
    private = _private(asked)
    found.private = found.private if private is None else private
    found.gated = asked.get("gated", found.gated)
    return Response.json({"private": found.private, "gated": found.gated})


@HUB.route("GET", "/api/{kind}s/{repo}/auth-check")
def auth_check(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    check_gate(server.visible(kind, repo, request), request.token, server.endpoint)
    return Response.text("OK")


@HUB.route("GET", "/api/{kind}s/{repo}/auth-check/write")
def auth_check_write(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    check_write(server.visible(kind, repo, request), request.token)
    return Response.text("OK")


@HUB.route("POST", "/api/{kind}s/{repo}/user-access-request/{action}")
def change_access(server: HubServer, request: Request, kind: str, repo: str, action: str) -> Response:
    """`grant` lets a user in who did not ask, `handle` answers one who did."""
    found = server.visible(kind, repo, request)
    check_write(found, request.token)
    asked = request.read_json()
    user = asked["user"]
    if not found.gated:
        raise bad_request("This repository is not gated")
    if action == "handle" and user not in found.requests and user not in found.access:
        raise HubError(404, f"{user} did not ask for access")
    found.access.discard(user)
    if action == "grant" or asked["status"] == "accepted":
        found.access.add(user)
    return Response.json({"success": True})


@HUB.route("GET", "/api/{kind}s/{repo}/user-access-request/{status}")
def list_access(server: HubServer, request: Request, kind: str, repo: str, status: str) -> Response:
    found = server.visible(kind, repo, request)
    check_write(found, request.token)
    users = {"pending": set(found.requests) - found.access, "accepted": found.access, "rejected": set()}[status]
    rows = [
        {
            "requestId": user,
            "user": {"user": user, "fullname": user, "email": f"{user}@users.noreply"},
            "status": status,
            "timestamp": found.requests.get(user, found.created).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        for user in sorted(users)
    ]
    return paged(server, request, rows)


@HUB.route("GET", "/api/{kind}s")
def list_repos(server: HubServer, request: Request, kind: str) -> Response:
    author, words = request.param("author"), request.query.get("search", [])
    rows = []
    for (other, name), repo in sorted(server.repos.items()):
        if other != kind or (author and repo.namespace != author) or not all(word in name for word in words):
            continue
        if repo.private and (request.token is None or repo.namespace not in request.token.user.namespaces):
            continue
        row = describe(server, repo, repo.commits[repo.refs["refs/heads/main"]], blobs=False)
        rows.append(row if request.flag("full") else {key: row[key] for key in row if key not in ("siblings", "sha")})
    return paged(server, request, rows)


def describe(server: HubServer, repo: Repo, commit: Commit, *, blobs: bool) -> dict[str, Any]:
    """All that the Hub says of a repository at a commit."""
    readme = commit.files.get("README.md")
    data = (front_matter(readme.content.decode()) if readme else None) or {}
    row: dict[str, Any] = {
        "_id": f"{abs(hash((repo.kind, repo.name))):024x}"[:24],
        "id": repo.name,
        "author": repo.namespace,
        "sha": commit.sha,
        "lastModified": timestamp(commit),
        "createdAt": repo.created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(repo.kind, data),
        "siblings": [_sibling(commit, path, blobs=blobs) for path in sorted(commit.files)],
        "usedStorage": sum(len(server.objects[oid]) for oid in repo.uploaded),
    }
    if data:
        row["cardData"] = data
    if repo.kind == "model":
        row["modelId"] = repo.name
        row.update({key: data[key] for key in ("library_name", "pipeline_tag", "model-index") if key in data})
        weights = parameters_of(commit)
        if weights is not None:
            row["safetensors"] = weights
    if repo.kind == "space":
        row["sdk"] = data.get("sdk", repo.settings.get("sdk"))
        row["subdomain"] = repo.name.replace("/", "-").lower()
        row["runtime"] = runtime_of(repo)
    return row


def _sibling(commit: Commit, path: str, *, blobs: bool) -> dict[str, Any]:
    blob = commit.files[path]
    row: dict[str, Any] = {"rfilename": path}
    if blobs:
        row.update({"size": len(blob.content), "blobId": blob.oid})
        if blob.lfs:
            info = lfs_info(blob)
            row["lfs"] = {"sha256": info["oid"], "size": info["size"], "pointerSize": info["pointerSize"]}
    return row


def _tags(kind: str, data: dict[str, Any]) -> list[str]:
    """The tags that the Hub derives from a card."""
    tags = [str(tag) for tag in data.get("tags") or []]
    tags += [str(data[key]) for key in ("library_name", "pipeline_tag") if key in data]
    for key, label in (("license", "license"), ("base_model", "base_model"), ("datasets", "dataset")):
        values = data.get(key) or []
        tags += [f"{label}:{value}" for value in (values if isinstance(values, list) else [values])]
    return tags


def _info(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    found = server.visible(kind, repo, request)
    row = describe(server, found, server.commit_of(found, revision), blobs=request.flag("blobs"))
    expand = request.query.get("expand", []) + request.query.get("expand[]", [])
    if expand:
        unknown = sorted(set(expand) - _EXPANDABLE)
        if unknown:
            raise bad_request(f"Invalid expand: {unknown}")
        row = {key: row[key] for key in row if key in ("_id", "id", *expand)}
    return Response.json(row)


_EXPANDABLE = frozenset(
    re.findall(
        r"\S+",
        """
        author baseModels cardData children childrenModelCount citation config createdAt datasets description
        disabled downloads downloadsAllTime evalResults gated gguf inference inferenceProviderMapping lastModified
        library_name likes mainSize mask_token model-index models paperswithcode_id pipeline_tag private
        resourceGroup runtime safetensors sdk securityRepoStatus sha siblings spaces subdomain tags
        transformersInfo trendingScore usedStorage widgetData xetEnabled
        """,
    )
)


@HUB.route("GET", "/api/{kind}s/{repo}/revision/{revision}")
def info_at(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    return _info(server, request, kind, repo, revision)


@HUB.route("GET", "/api/{kind}s/{repo}")
def info(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    return _info(server, request, kind, repo, "main")
