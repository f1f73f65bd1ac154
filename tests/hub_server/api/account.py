"""Who am I, and what the client asks before anything else."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from ..cards import check_card
from ..http import Request, Response
from . import HUB

if TYPE_CHECKING:
    from ..server import HubServer


@HUB.route("GET", "/api/whoami-v2")
def whoami(server: HubServer, request: Request) -> Response:
    user = server.user_of(request)
    token = request.token
    assert token is not None
    access: dict[str, object] = {
        "displayName": token.label,
        "role": token.role,
        "createdAt": "2026-01-01T00:00:00.000Z",
    }
    if token.role == "fineGrained":
        access["fineGrained"] = {
            "canReadGatedRepos": any("repo.access.read" in granted for _, granted in token.scopes),
            "global": [],
            "scoped": [
                {
                    "entity": {"name": entity, "type": "user" if "/" not in entity else "repo", "_id": entity},
                    "permissions": list(granted),
                }
                for entity, granted in token.scopes
            ],
        }
    orgs = [
        {"type": "org", "name": name, "fullname": name, "roleInOrg": "write", "isEnterprise": False}
        for name in sorted(user.organisations)
    ]
    return Response.json(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name,
            "isPro": False,
            "canPay": True,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": access},
        }
    )


@HUB.route("GET", "/api/agent-harnesses")
def agent_harnesses(server: HubServer, request: Request) -> Response:
    """The environment variables by which the client would recognise a coding agent: none here."""
    return Response.json({"standardEnvVars": [], "harnesses": {}})


@HUB.route("POST", "/api/validate-yaml")
def validate_yaml(server: HubServer, request: Request) -> Response:
    asked = request.read_json()
    errors, warnings = check_card(asked["content"], asked.get("repoType", "model"))
    status = 400 if errors else 200
    if "text/plain" in request.headers.get("accept", ""):
        return Response.text("\n".join(errors) or "OK", status)
    return Response.json(
        {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}, status
    )


@HUB.route("POST", "/oauth/token")
def exchange_token(server: HubServer, request: Request) -> Response:
    """A token for one repository, or to read what a user may read, for the id token of a CI job that it trusts."""
    asked = request.read_json()
    resource = asked.get("resource", "")
    trusted = server.trusted_publishers.get(resource)
    if not asked.get("grant_type", "").endswith(":token-exchange") or trusted is None:
        return _refused(f"no trusted publisher is configured for {resource}")
    if not hmac.compare_digest(trusted, asked.get("subject_token", "")):
        return _refused("the id token is not of the trusted publisher")
    parts = resource.split("/")
    user = parts[0] if len(parts) < 3 else parts[1]
    granted = ("repo.content.read", "repo.access.read", *(["repo.write"] if len(parts) > 1 else []))
    if user not in server.accounts.users:
        server.accounts.add_user(user)  # an organisation acts for itself here
    secret = server.add_token(user, "fineGrained", {resource: granted})
    return Response.json(
        {
            "access_token": secret,
            "token_type": "bearer",
            "expires_in": 3600,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }
    )


def _refused(why: str) -> Response:
    return Response.json({"error": "invalid_grant", "error_description": why}, status=400)
