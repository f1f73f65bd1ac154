"""Who calls: users, organisations, and tokens with roles, and what each of them may do to a repository."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from .errors import HubError, forbidden, invalid_credentials, repo_missing
from .store import Repo


@dataclass(slots=True)
class User:
    """A user; `organisations` are the namespaces they may write to beside their own."""

    name: str
    organisations: set[str] = field(default_factory=set)
    quota_bytes: int | None = None  # of LFS objects; None: as much as they like
    can_pay: bool = True

    @property
    def namespaces(self) -> set[str]:
        return {self.name} | self.organisations


@dataclass(frozen=True, slots=True)
class Token:
    """A token: `label` stands for it in the log, so that its secret never has to be printed.

    A fine-grained token may only do what `scopes` names: repository ("user/name", "datasets/user/name") or namespace
    ("user") -> permissions, of "repo.content.read", "repo.write", "repo.access.read" (gated repositories), "job.write".
    """

    secret: str
    user: User
    role: str  # "read", "write" or "fineGrained"
    label: str
    scopes: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def allows(self, permission: str, repo: Repo | None = None, namespace: str | None = None) -> bool:
        """Whether the token's role covers a permission, before asking whether its user has it."""
        if self.role != "fineGrained":
            return self.role == "write" or permission in ("repo.content.read", "repo.access.read")
        entities = {namespace or self.user.name}
        if repo is not None:
            entities = {repo.namespace, repo.prefix + repo.name}
        return any(entity in entities and permission in granted for entity, granted in self.scopes)


class Accounts:
    """All users, organisations and tokens of the server."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.organisations: set[str] = set()
        self.tokens: dict[str, Token] = {}

    def add_user(self, name: str, *, organisations: Iterable[str] = (), quota_bytes: int | None = None) -> User:
        self.organisations.update(organisations)
        self.users[name] = User(name, set(organisations), quota_bytes)
        return self.users[name]

    def add_token(self, user: str, role: str = "write", scopes: dict[str, Iterable[str]] | None = None) -> str:
        """The secret of a new token of this user."""
        assert role in ("read", "write", "fineGrained"), role
        secret = "hf_" + secrets.token_hex(17)
        frozen = tuple((entity, tuple(granted)) for entity, granted in (scopes or {}).items())
        self.tokens[secret] = Token(secret, self.users[user], role, f"{user}:{role}", frozen)
        return secret

    def token_of(self, authorization: str | None) -> Token | None:
        """The token of an Authorization header; None where there is none, 401 where it is not one of ours."""
        if authorization is None:
            return None
        secret = authorization.removeprefix("Bearer ")
        if secret not in self.tokens:
            raise invalid_credentials()
        return self.tokens[secret]


def check_visible(repo: Repo | None, token: Token | None) -> Repo:
    """The repository, or the answer that does not tell a private one from a missing one."""
    if repo is None:
        raise repo_missing(token is not None)
    if repo.private and not (
        token is not None and repo.namespace in token.user.namespaces and token.allows("repo.content.read", repo)
    ):
        raise repo_missing(token is not None)
    return repo


def check_gate(repo: Repo, token: Token | None, endpoint: str) -> None:
    """Refuse the files of a gated repository to whoever was not let in, naming the page where to ask."""
    if not repo.gated or (token is not None and repo.namespace in token.user.namespaces):
        return
    url = f"{endpoint}/{repo.prefix}{repo.name}"
    start = f"Access to {repo.kind} {repo.name} is restricted"
    if token is None:
        message = f"{start}. You must have access to it and be authenticated to access it. Please log in."
        raise HubError(401, message, code="GatedRepo")
    if token.user.name not in repo.access:
        message = f"{start} and you are not in the authorized list. Visit {url} to ask for access."
        raise HubError(403, message, code="GatedRepo")
    if not token.allows("repo.access.read", repo):
        message = "Please enable access to public gated repositories in your fine-grained token settings to view this."
        raise HubError(403, message, code="GatedRepo")


def may_write(repo: Repo, token: Token | None) -> bool:
    return token is not None and repo.namespace in token.user.namespaces and token.allows("repo.write", repo)


def check_write(repo: Repo, token: Token | None) -> Token:
    """The caller's token if it may change the repository, else the refusal that says why."""
    if token is None:
        raise invalid_credentials()
    if token.role == "read":
        raise forbidden("you must use a write token to upload to a repository.")
    if not may_write(repo, token):
        raise forbidden("Authorization error.", "You don't have write access to this repository. Pass create_pr=1.")
    return token
