"""The Hub itself: what it holds, and the Python side of it that tests use to seed and to look.

server = HubServer()
server.start()
token = server.add_user("alice")
server.create_repo("alice/model", files={"config.json": b"{}"})
server.commit("alice/model", {"config.json": b'{"a": 1}'}, title="changed")
server.head("alice/model"), server.files("alice/model")
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import api
from .accounts import Accounts, Token, User, check_visible
from .errors import HubError, needs_login, revision_missing
from .faults import Faults
from .http import App, Origin, Request, Response
from .jobs import Job
from .log import LogEntry, RequestLog, entry_of
from .signing import Signer
from .store import GITATTRIBUTES, Blob, Commit, Repo
from .xet import Term, Xorb

if TYPE_CHECKING:
    from .api.cas import XetToken

Content = bytes | str


class HubServer(App):
    """A Hub on loopback: `endpoint`, and on origins of their own `cdn` (bytes of large files) and `cas` (Xet)."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.accounts = Accounts()
        self.repos: dict[tuple[str, str], Repo] = {}
        self.moved: dict[tuple[str, str], str] = {}
        self.objects: dict[str, bytes] = {}  # LFS objects by sha256
        self.parts: dict[str, dict[int, bytes]] = {}  # multipart uploads on their way
        self.xorbs: dict[str, Xorb] = {}
        self.xet_files: dict[str, list[Term]] = {}  # by the hash that Xet gives a file
        self.xet_hashes: dict[str, str] = {}  # from sha256 to that hash
        self.xet_tokens: dict[str, XetToken] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, Job] = {}
        self.machine: Callable[[Job], None] | None = None  # runs each new job, in a thread of its own
        self.log_patience = 30.0  # seconds that a log may be silent before its stream ends
        self.trusted_publishers: dict[str, str] = {}  # resource -> the id token that it trusts
        self.faults = Faults()
        self.log = RequestLog()
        self.unknown: list[str] = []  # requests that no route answers
        self.crashes: list[str] = []
        self.page_size = 1000  # of listings; small in the tests of pagination
        self.multipart_from_bytes = 5 * 1024**3
        self.part_bytes = 10 * 1024**2
        self.urls = Signer()
        self._clock = itertools.count(1)
        self._names = itertools.count(1)
        # Clients before 2.0 tell origins apart by the name of the host, without the port.
        self.hub_origin, self.cdn_origin = Origin("hub", self), Origin("cdn", self, host="localhost")
        self.cas_origin = Origin("cas", self)

    # --- Life ---

    @property
    def endpoint(self) -> str:
        return self.hub_origin.url

    @property
    def cdn(self) -> str:
        return self.cdn_origin.url

    @property
    def cas(self) -> str:
        return self.cas_origin.url

    @property
    def running(self) -> bool:
        return self.hub_origin.running

    def start(self) -> None:
        """Listen; after a `stop`, on the same ports."""
        for origin in (self.hub_origin, self.cdn_origin, self.cas_origin):
            origin.start()

    def stop(self) -> None:
        """Refuse connections and end those that are open; everything stored is kept for the next `start`."""
        for origin in (self.hub_origin, self.cdn_origin, self.cas_origin):
            origin.stop()

    def reset(self) -> None:
        """What a test starts from: running, no faults, an empty log; repositories and users stay."""
        if not self.running:
            self.start()
        self.faults.clear()
        self.log.clear()
        self.unknown.clear()
        self.crashes.clear()
        self.page_size, self.multipart_from_bytes, self.part_bytes = 1000, 5 * 1024**3, 10 * 1024**2
        self.machine, self.log_patience = None, 30.0

    def complaints(self) -> list[str]:
        """What no test may cause: requests without a route, crashes of this server, tokens where they do not belong."""
        return [
            *(f"the test Hub has no route for: {request}" for request in self.unknown),
            *(f"the test Hub crashed at {crash}" for crash in self.crashes),
            *(f"a token was sent to a storage that must not see it: {leak}" for leak in self.log.token_leaks),
        ]

    # --- Seeding and looking, without HTTP ---

    def add_user(
        self, name: str, role: str = "write", *, organisations: Iterable[str] = (), quota_bytes: int | None = None
    ) -> str:
        """A new user; the secret of a token of theirs with this role."""
        self.accounts.add_user(name, organisations=organisations, quota_bytes=quota_bytes)
        return self.add_token(name, role)

    def add_token(self, user: str, role: str = "write", scopes: dict[str, Iterable[str]] | None = None) -> str:
        return self.accounts.add_token(user, role, scopes)

    def token(self, user: str = "alice", role: str = "write") -> str:
        """The secret of a token of this user with this role, made when it is first asked for."""
        for token in self.accounts.tokens.values():
            if token.user.name == user and token.role == role and not token.scopes:
                return token.secret
        return self.add_token(user, role)

    def unique(self, name: str = "repo", namespace: str | None = None) -> str:
        """A repository id that nobody has used: caches of clients hide what a reused id would show."""
        owner = namespace if namespace is not None else next(iter(self.accounts.users))
        return f"{owner}/{name}-{next(self._names)}"

    def create_repo(
        self,
        repo: str,
        files: Mapping[str, Content] | None = None,
        *,
        type: str = "model",
        private: bool = False,
        gated: str | bool = False,
        settings: Mapping[str, object] | None = None,
    ) -> str:
        """A new repository with .gitattributes and, in a second commit, these files; the sha of its head."""
        with self.lock:
            made = Repo(type, repo, private=private, gated=gated, clock=self._clock)
            made.settings.update(settings or {})
            self.repos[type, repo] = made
            first = {".gitattributes": Blob.of(GITATTRIBUTES, lfs=False)}
            made.commit("refs/heads/main", first, title="initial commit", author=made.namespace, parent=None)
        return self.commit(repo, files, type=type, title="seed") if files else self.head(repo, type=type)

    def repo(self, repo: str, type: str = "model") -> Repo:
        return self.repos[type, repo]

    def commit(
        self,
        repo: str,
        files: Mapping[str, Content | None],
        *,
        type: str = "model",
        revision: str = "main",
        title: str = "commit",
    ) -> str:
        """Add, change and (None) delete files on a branch or pull request; the new sha."""
        with self.lock:
            target = self.repos[type, repo]
            ref = target.ref_to_write(revision)
            assert ref is not None, f"{repo} has no branch {revision}"
            parent = target.commits[target.refs[ref]]
            tree = dict(parent.files)
            for path, content in files.items():
                tree.pop(path, None)
                if content is not None:
                    raw = content.encode() if isinstance(content, str) else content
                    tree[path] = self.blob(target, raw, lfs=target.wants_lfs(path, len(raw), raw[:512], tree))
            return target.commit(ref, tree, title=title, author=target.namespace, parent=parent.sha).sha

    def blob(self, repo: Repo, content: bytes, *, lfs: bool) -> Blob:
        """A blob; where it is LFS its bytes are put into the storage and the repository may point to them."""
        blob = Blob.of(content, lfs=lfs)
        if lfs:
            self.objects[blob.sha256] = content
            repo.uploaded.add(blob.sha256)
        return blob

    def head(self, repo: str, revision: str = "main", *, type: str = "model") -> str:
        """The sha that a revision points to."""
        commit = self.repos[type, repo].resolve(revision)
        assert commit is not None, f"{repo} has no revision {revision}"
        return commit.sha

    def files(self, repo: str, revision: str = "main", *, type: str = "model") -> dict[str, bytes]:
        """The files of a revision, but for the .gitattributes that the Hub adds by itself."""
        commit = self.repos[type, repo].resolve(revision)
        assert commit is not None, f"{repo} has no revision {revision}"
        return {path: blob.content for path, blob in commit.files.items() if path != ".gitattributes"}

    def history(self, repo: str, revision: str = "main", *, type: str = "model") -> list[Commit]:
        """The commits of a revision, newest first."""
        target = self.repos[type, repo]
        return list(target.history(self.head(repo, revision, type=type)))

    def set_ref(self, repo: str, ref: str, sha: str | None, *, type: str = "model") -> None:
        """Point a full ref ("refs/tags/v1", "refs/heads/main") somewhere, or (None) delete it."""
        target = self.repos[type, repo]
        with self.lock:
            if sha is None:
                del target.refs[ref]
            else:
                assert sha in target.commits
                target.refs[ref] = sha

    def grant(self, repo: str, user: str, *, type: str = "model") -> None:
        """Let a user through the gate of a repository."""
        self.repos[type, repo].access.add(user)

    def trust(self, resource: str, id_token: str) -> None:
        """Let who has this id token exchange it for a token to "user/model", "datasets/user/x", or (to read) "user"."""
        self.trusted_publishers[resource] = id_token

    # --- For the endpoints ---

    def visible(self, kind: str, repo: str, request: Request) -> Repo:
        """The repository if the caller may know of it; otherwise the Hub's 404 or 401, or a redirect where it moved."""
        if (kind, repo) in self.moved:
            location = request.url.replace(repo, self.moved[kind, repo], 1)
            raise HubError(307, f"Moved to {location}", Location=location)
        return check_visible(self.repos.get((kind, repo)), request.token)

    def commit_of(self, repo: Repo, revision: str) -> Commit:
        commit = repo.resolve(revision)
        if commit is None:
            raise revision_missing(revision)
        return commit

    def user_of(self, request: Request) -> User:
        if request.token is None:
            raise needs_login()
        return request.token.user

    # --- One request ---

    def begin(self, request: Request) -> LogEntry:
        authorization = request.headers.get("authorization")
        token: Token | None = None
        if authorization is not None:
            token = self.accounts.tokens.get(authorization.removeprefix("Bearer "))
        label = "" if authorization is None else token.label if token is not None else "invalid"
        if request.origin == "cas" and label == "invalid" and authorization is not None:
            label = "xet" if authorization.removeprefix("Bearer ") in self.xet_tokens else label
        return self.log.add(entry_of(request, label))

    def before_body(self, request: Request, entry: LogEntry) -> None:
        request.faults = self.faults.strike(request)
        entry.faults = [type(action).__name__ for action in request.faults]
        for action in request.faults:
            action.before_body(request)

    def answer(self, request: Request, entry: LogEntry) -> Response:
        response: Response | None = None
        for action in request.faults:
            response = response or action.before(request)
        if response is None:
            response = self._handle(request)
            entry.done = response.status
        for action in request.faults:
            response = action.after(request, response)
        entry.status = response.status
        return response

    def _handle(self, request: Request) -> Response:
        router = {"hub": api.HUB, "cdn": api.CDN, "cas": api.CAS}[request.origin]
        endpoint = router.find(request)
        if endpoint is None:
            self.unknown.append(f"{request.method} {request.origin} {request.url}")
            return Response.json({"error": "the test Hub has no such route"}, status=404)
        try:
            with self.lock:
                if request.origin == "hub":
                    request.token = self.accounts.token_of(request.headers.get("authorization"))
                return endpoint(self, request)
        except HubError as error:
            return error.response()

    def crashed(self, request: Request, trace: str) -> None:
        self.crashes.append(f"{request.method} {request.url}\n{trace}")
