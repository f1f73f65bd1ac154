"""Who am I, and what the client asks before anything else."""

from __future__ import annotations

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
