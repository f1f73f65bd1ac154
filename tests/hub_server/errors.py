"""Refusals of the server, with the headers from which the real client picks its exception."""

from __future__ import annotations

from .http import Response


class HubError(Exception):
    """Ends a request with this status; `code` goes into X-Error-Code."""

    def __init__(self, status: int, message: str, *, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        headers = {"X-Error-Message": self.message.replace("\n", " "), **self.headers}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return Response.json({"error": self.message}, status=self.status, headers=headers)


def invalid_credentials() -> HubError:
    return HubError(401, "Invalid credentials in Authorization header")


def needs_login() -> HubError:
    return HubError(401, "Invalid username or password.")


def forbidden(*reasons: str) -> HubError:
    return HubError(403, "Forbidden: " + " ".join(reasons))


def repo_missing(authenticated: bool) -> HubError:
    """404, or 401 for a stranger: production's answer, with the code that its client adds by itself over https."""
    if authenticated:
        return HubError(404, "Repository not found", code="RepoNotFound")
    return HubError(401, "Invalid username or password.", code="RepoNotFound")


def revision_missing(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_missing(path: str, commit: str) -> HubError:
    return HubError(404, f"Entry not found: {path}", code="EntryNotFound", X_Repo_Commit=commit)


def bad_request(message: str) -> HubError:
    return HubError(400, message)
