"""Branches, tags, pull-request heads, and the commits they point to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..accounts import check_write
from ..errors import HubError, bad_request, forbidden, revision_missing
from ..http import Request, Response
from ..store import Commit
from . import HUB
from .pages import paged

if TYPE_CHECKING:
    from ..server import HubServer


@HUB.route("GET", "/api/{kind}s/{repo}/refs")
def list_refs(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    found = server.visible(kind, repo, request)

    def under(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha}
            for ref, sha in sorted(found.refs.items())
            if ref.startswith(prefix)
        ]

    answer = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": under("refs/convert/")}
    if request.flag("include_prs"):
        answer["pullRequests"] = under("refs/pr/")
    return Response.json(answer)


def commit_row(commit: Commit) -> dict[str, object]:
    return {
        "id": commit.sha,
        "title": commit.title,
        "message": commit.description,
        "authors": [{"user": commit.author, "avatar": ""}],
        "date": timestamp(commit),
    }


def timestamp(commit: Commit) -> str:
    return commit.date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


@HUB.route("GET", "/api/{kind}s/{repo}/commits/{revision}")
def list_commits(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    found = server.visible(kind, repo, request)
    rows = [commit_row(commit) for commit in found.history(server.commit_of(found, revision).sha)]
    if "formatted" in request.query.get("expand[]", []):
        rows = [{**row, "formatted": {"title": row["title"], "message": row["message"]}} for row in rows]
    return paged(server, request, rows)


@HUB.route("POST", "/api/{kind}s/{repo}/branch/{branch}")
def create_branch(server: HubServer, request: Request, kind: str, repo: str, branch: str) -> Response:
    found = server.visible(kind, repo, request)
    check_write(found, request.token)
    start = server.commit_of(found, str(request.read_json().get("startingPoint") or "main"))
    if branch.startswith("refs/") or not branch:
        raise bad_request(f"Invalid branch name: {branch}")
    if f"refs/heads/{branch}" in found.refs:
        raise HubError(409, f"Reference already exists: refs/heads/{branch}")
    found.refs[f"refs/heads/{branch}"] = start.sha
    return Response.json({"success": True})


@HUB.route("DELETE", "/api/{kind}s/{repo}/branch/{branch}")
def delete_branch(server: HubServer, request: Request, kind: str, repo: str, branch: str) -> Response:
    found = server.visible(kind, repo, request)
    check_write(found, request.token)
    if branch == "main":
        raise forbidden("Cannot delete the branch main")
    if found.refs.pop(f"refs/heads/{branch}", None) is None:
        raise revision_missing(branch)
    return Response.json({"success": True})


@HUB.route("POST", "/api/{kind}s/{repo}/tag/{revision}")
def create_tag(server: HubServer, request: Request, kind: str, repo: str, revision: str) -> Response:
    found = server.visible(kind, repo, request)
    check_write(found, request.token)
    asked = request.read_json()
    tag, target = str(asked["tag"]), server.commit_of(found, revision)
    if f"refs/tags/{tag}" in found.refs:
        raise HubError(409, f"Tag reference exists already: {tag}")
    found.refs[f"refs/tags/{tag}"] = target.sha
    found.tag_messages[tag] = str(asked.get("message", ""))
    return Response.json({"success": True})


@HUB.route("DELETE", "/api/{kind}s/{repo}/tag/{tag}")
def delete_tag(server: HubServer, request: Request, kind: str, repo: str, tag: str) -> Response:
    found = server.visible(kind, repo, request)
    check_write(found, request.token)
    if found.refs.pop(f"refs/tags/{tag}", None) is None:
        raise revision_missing(tag)
    return Response.json({"success": True})


@HUB.route("POST", "/api/{kind}s/{repo}/super-squash/{branch}")
def super_squash(server: HubServer, request: Request, kind: str, repo: str, branch: str) -> Response:
    found = server.visible(kind, repo, request)
    user = check_write(found, request.token).user
    ref = found.ref_to_write(branch)
    if ref is None:
        raise revision_missing(branch)
    files = found.commits[found.refs[ref]].files
    title = str(request.read_json().get("message") or "Super-squash branch")
    commit = found.commit(ref, files, title=title, author=user.name, parent=None)
    return Response.json({"commitOid": commit.sha})
