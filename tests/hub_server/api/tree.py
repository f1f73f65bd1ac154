"""Listings of files: the tree of a revision, and what is known of single paths."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from ..errors import entry_missing
from ..http import Request, Response
from ..store import Blob, Commit, Repo, Tree
from . import HUB
from .pages import paged
from .refs import timestamp

if TYPE_CHECKING:
    from ..server import HubServer


def lfs_info(blob: Blob) -> dict[str, object]:
    return {"oid": blob.sha256, "size": len(blob.content), "pointerSize": blob.pointer_size}


def entry(server: HubServer, repo: Repo, commit: Commit, tree: Tree, path: str, *, expand: bool) -> dict[str, object]:
    """One row of a listing; `expand` adds the commit that last changed it and the scan of its content."""
    if tree.is_folder(path):
        row: dict[str, object] = {"type": "directory", "path": path, "oid": tree.oid(path), "size": 0}
    else:
        blob = tree.files[path]
        row = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.content)}
        if blob.lfs:
            row["lfs"] = lfs_info(blob)
            if blob.sha256 in server.xet_hashes:
                row["xetHash"] = server.xet_hashes[blob.sha256]
    if expand:
        last = last_change(repo, commit, path)
        row["lastCommit"] = {"id": last.sha, "title": last.title, "date": timestamp(last)}
        if row["type"] == "file":
            row["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return row


def last_change(repo: Repo, commit: Commit, path: str) -> Commit:
    """The newest commit in which a file, or anything under a folder, is not as in its parent."""

    def content(at: Commit) -> dict[str, str]:
        return {name: blob.oid for name, blob in at.files.items() if name == path or name.startswith(path + "/")}

    for at in repo.history(commit.sha):
        if at.parent is None or content(repo.commits[at.parent]) != content(at):
            return at
    return commit


def _list(server: HubServer, request: Request, kind: str, repo: str, revision: str, folder: str) -> Response:
    found = server.visible(kind, repo, request)
    commit = server.commit_of(found, revision)
    tree = Tree(commit.files)
    if not tree.is_folder(folder):
        raise entry_missing(folder, commit.sha)
    paths = list(tree.walk(folder, recursive=request.flag("recursive")))
    return paged(
        server, request, [entry(server, found, commit, tree, path, expand=request.flag("expand")) for path in paths]
    )


@HUB.route("GET", "/api/{kind}s/{repo}/tree/{revision}")
def list_tree(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    return _list(server, request, kind, repo, revision, "")


@HUB.route("GET", "/api/{kind}s/{repo}/tree/{revision}/{path}")
def list_folder(server: HubServer, request: Request, kind: str, repo: str, revision: str, path: str) -> Response:
    return _list(server, request, kind, repo, revision, path.strip("/"))


@HUB.route("POST", "/api/{kind}s/{repo}/paths-info/{revision}")
def paths_info(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    found = server.visible(kind, repo, request)
    commit = server.commit_of(found, revision)
    tree = Tree(commit.files)
    if "json" in request.headers.get("content-type", ""):
        asked = request.read_json()
        paths, expand = asked["paths"], bool(asked.get("expand"))
    else:
        form = parse_qs(request.body.decode())
        paths, expand = form.get("paths", []), form.get("expand", ["false"])[0].lower() == "true"
    known = [path for path in paths if path in tree.files or (path and tree.is_folder(path))]
    return Response.json([entry(server, found, commit, tree, path, expand=expand) for path in known])
