"""Discussions and pull requests, as far as the client's calls need them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..accounts import check_write
from ..errors import HubError, bad_request
from ..http import Request, Response
from ..store import PullRequest, Repo
from . import HUB

if TYPE_CHECKING:
    from ..server import HubServer


def open_pull_request(
    server: HubServer, repo: Repo, title: str, description: str, author: str, base: str
) -> PullRequest:
    """A new pull request whose head is, as yet, the commit that it starts from."""
    made = repo.next_discussion(title, author, is_pull_request=True)
    repo.refs[f"refs/pr/{made.number}"] = base
    add_event(made, author, "comment", {"latest": {"raw": description}})
    return made


def add_event(discussion: PullRequest, author: str, kind: str, data: dict[str, object]) -> dict[str, object]:
    event: dict[str, object] = {
        "id": f"{discussion.number:04x}{len(discussion.events):04x}",
        "type": kind,
        "createdAt": _stamp(discussion),
        "author": {"name": author},
        "data": {"edited": False, "hidden": False, "history": [], **data} if kind == "comment" else data,
    }
    discussion.events.append(event)
    return event


def _stamp(discussion: PullRequest) -> str:
    return discussion.created.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _row(repo: Repo, discussion: PullRequest) -> dict[str, object]:
    return {
        "num": discussion.number,
        "title": discussion.title,
        "author": {"name": discussion.author, "type": "user"},
        "createdAt": _stamp(discussion),
        "status": discussion.status,
        "isPullRequest": discussion.is_pull_request,
        "repo": {"name": repo.name, "type": repo.kind},
    }


def _find(repo: Repo, number: str) -> PullRequest:
    found = repo.discussions.get(int(number))
    if found is None:
        raise HubError(404, f"Discussion {number} not found", code="DiscussionNotFound")
    return found


@HUB.route("GET", "/api/{kind}s/{repo}/discussions")
def list_discussions(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    found = server.visible(kind, repo, request)
    wanted, status = request.param("type", "all"), request.param("status", "all")
    rows = [
        _row(found, one)
        for one in sorted(found.discussions.values(), key=lambda one: -one.number)
        if wanted == "all" or one.is_pull_request == (wanted == "pull_request")
        if status == "all" or (one.status in ("open", "draft")) == (status == "open")
        if request.param("author") in ("", one.author)
    ]
    size, page = 10, int(request.param("p", "0"))
    shown = rows[page * size : (page + 1) * size]
    return Response.json({"discussions": shown, "count": len(rows), "start": page * size})


@HUB.route("POST", "/api/{kind}s/{repo}/discussions")
def create_discussion(server: HubServer, request: Request, kind: str, repo: str) -> Response:
    found = server.visible(kind, repo, request)
    author = server.user_of(request).name
    asked = request.read_json()
    if len(asked["title"]) < 3:
        raise bad_request('"title" length must be at least 3 characters long')
    if asked.get("pullRequest"):
        made = open_pull_request(
            server, found, asked["title"], asked["description"], author, found.refs["refs/heads/main"]
        )
        made.status = "draft"
    else:
        made = found.next_discussion(asked["title"], author, is_pull_request=False)
        add_event(made, author, "comment", {"latest": {"raw": asked["description"]}})
    return Response.json({"num": made.number, "pullRequest": made.is_pull_request})


@HUB.route("GET", "/api/{kind}s/{repo}/discussions/{number}")
def show_discussion(server: HubServer, request: Request, kind: str, repo: str, number: str) -> Response:
    found = server.visible(kind, repo, request)
    discussion = _find(found, number)
    answer = {**_row(found, discussion), "events": discussion.events, "diff": ""}
    if discussion.is_pull_request:
        answer["changes"] = {"base": "refs/heads/main", "mergeCommitId": discussion.merge_commit}
        answer["filesWithConflicts"] = []
    return Response.json(answer)


@HUB.route("POST", "/api/{kind}s/{repo}/discussions/{number}/comment")
def comment(server: HubServer, request: Request, kind: str, repo: str, number: str) -> Response:
    discussion = _find(server.visible(kind, repo, request), number)
    author = server.user_of(request).name
    event = add_event(discussion, author, "comment", {"latest": {"raw": request.read_json()["comment"]}})
    return Response.json({"newMessage": event})


@HUB.route("POST", "/api/{kind}s/{repo}/discussions/{number}/status")
def change_status(server: HubServer, request: Request, kind: str, repo: str, number: str) -> Response:
    found = server.visible(kind, repo, request)
    discussion = _find(found, number)
    author = server.user_of(request).name
    if author != discussion.author:
        check_write(found, request.token)
    discussion.status = request.read_json()["status"]
    return Response.json({"newStatus": add_event(discussion, author, "status-change", {"status": discussion.status})})


@HUB.route("POST", "/api/{kind}s/{repo}/discussions/{number}/merge")
def merge(server: HubServer, request: Request, kind: str, repo: str, number: str) -> Response:
    """Bring a pull request's changes to main: what it changed since it left main, on top of what main is now."""
    found = server.visible(kind, repo, request)
    user = check_write(found, request.token).user
    discussion = _find(found, number)
    if not discussion.is_pull_request or discussion.status not in ("open", "draft"):
        raise bad_request("This pull request cannot be merged")
    head, main = found.commits[found.refs[f"refs/pr/{number}"]], found.commits[found.refs["refs/heads/main"]]
    ours = {one.sha for one in found.history(main.sha)}
    base = next(one for one in found.history(head.sha) if one.sha in ours)
    files = dict(main.files)
    for path in {*base.files, *head.files}:
        if base.files.get(path) != head.files.get(path):
            files.pop(path, None)
            if path in head.files:
                files[path] = head.files[path]
    title = f"{discussion.title} (#{number})"
    made = found.commit("refs/heads/main", files, title=title, author=user.name, parent=main.sha)
    discussion.status, discussion.merge_commit = "merged", made.sha
    add_event(discussion, user.name, "status-change", {"status": "merged"})
    return Response.json({"success": True, "mergeCommitOid": made.sha})
