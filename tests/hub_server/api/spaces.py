"""What runs a Space: its stage, hardware, secrets and variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..accounts import check_write
from ..cards import front_matter
from ..errors import HubError, bad_request
from ..http import Request, Response
from ..store import Repo
from . import HUB
from .hardware import HARDWARE

if TYPE_CHECKING:
    from ..server import HubServer

_ENTRY = {"gradio": "app.py", "docker": "Dockerfile", "static": "index.html"}


def runtime_of(repo: Repo) -> dict[str, Any]:
    """The runtime: a Space runs as soon as the file that it starts from is there. Tests may set `settings["stage"]`."""
    files = repo.commits[repo.refs["refs/heads/main"]].files
    card = (front_matter(files["README.md"].content.decode()) if "README.md" in files else None) or {}
    entry = card.get("app_file") or _ENTRY.get(str(card.get("sdk")), "app.py")
    stage = repo.settings.get("stage") or ("RUNNING" if entry in files else "NO_APP_FILE")
    hardware = repo.settings.get("hardware", "cpu-basic")
    return {
        "stage": stage,
        "hardware": {"current": hardware if stage == "RUNNING" else None, "requested": hardware},
        "gcTimeout": repo.settings.get("sleepTimeSeconds", 172800),
        "storage": None,
        "devMode": False,
        "volumes": repo.settings.get("volumes"),
    }


def _mine(server: HubServer, request: Request, repo: str) -> Repo:
    found = server.visible("space", repo, request)
    check_write(found, request.token)
    return found


@HUB.route("GET", "/api/spaces/hardware")
def list_hardware(server: HubServer, request: Request) -> Response:
    return Response.json(HARDWARE)


@HUB.route("GET", "/api/spaces/{repo}/runtime")
def runtime(server: HubServer, request: Request, repo: str) -> Response:
    return Response.json(runtime_of(server.visible("space", repo, request)))


@HUB.route("POST", "/api/spaces/{repo}/hardware")
def change_hardware(server: HubServer, request: Request, repo: str) -> Response:
    found = _mine(server, request, repo)
    asked = request.read_json()
    flavor = asked["flavor"]
    if flavor not in {*(one["name"] for one in HARDWARE), "zero-a10g"}:
        raise bad_request(f'"flavor" is not a hardware: {flavor}')
    if flavor != "cpu-basic" and not server.user_of(request).can_pay:
        raise HubError(402, "Payment Required: subscribe or add a payment method to use this hardware")
    found.settings["hardware"] = flavor
    if "sleepTimeSeconds" in asked:
        found.settings["sleepTimeSeconds"] = asked["sleepTimeSeconds"]
    return Response.json(runtime_of(found))


@HUB.route("POST", "/api/spaces/{repo}/sleeptime")
def change_sleep_time(server: HubServer, request: Request, repo: str) -> Response:
    found = _mine(server, request, repo)
    found.settings["sleepTimeSeconds"] = request.read_json()["seconds"]
    return Response.json(runtime_of(found))


@HUB.route("POST", "/api/spaces/{repo}/pause")
def pause(server: HubServer, request: Request, repo: str) -> Response:
    found = _mine(server, request, repo)
    found.settings["stage"] = "PAUSED"
    return Response.json(runtime_of(found))


@HUB.route("POST", "/api/spaces/{repo}/restart")
def restart(server: HubServer, request: Request, repo: str) -> Response:
    found = _mine(server, request, repo)
    found.settings.pop("stage", None)
    return Response.json(runtime_of(found))


def _kept(repo: Repo, what: str) -> dict[str, Any]:
    kept = repo.settings.setdefault(what, {})
    assert isinstance(kept, dict)
    return kept


def _shown(kept: dict[str, Any], *, secret: bool) -> dict[str, Any]:
    """Variables with their values, secrets without: they cannot be read back."""
    hidden = ("key", "value") if secret else ("key",)
    return {key: {name: value for name, value in item.items() if name not in hidden} for key, item in kept.items()}


@HUB.route("GET", "/api/spaces/{repo}/variables")
def list_variables(server: HubServer, request: Request, repo: str) -> Response:
    return Response.json(_shown(_kept(server.visible("space", repo, request), "variables"), secret=False))


@HUB.route("GET", "/api/spaces/{repo}/secrets")
def list_secrets(server: HubServer, request: Request, repo: str) -> Response:
    return Response.json(_shown(_kept(_mine(server, request, repo), "secrets"), secret=True))


def _set(server: HubServer, request: Request, repo: str, what: str) -> Response:
    kept = _kept(_mine(server, request, repo), what)
    asked = request.read_json()
    kept[asked["key"]] = {**asked, "updatedAt": "2026-01-01T00:00:00.000Z"}
    return Response.json(_shown(kept, secret=what == "secrets"))


def _unset(server: HubServer, request: Request, repo: str, what: str) -> Response:
    kept = _kept(_mine(server, request, repo), what)
    if kept.pop(request.read_json()["key"], None) is None:
        raise HubError(404, "no such key")
    return Response.json(_shown(kept, secret=what == "secrets"))


@HUB.route("POST", "/api/spaces/{repo}/variables")
def set_variable(server: HubServer, request: Request, repo: str) -> Response:
    return _set(server, request, repo, "variables")


@HUB.route("DELETE", "/api/spaces/{repo}/variables")
def unset_variable(server: HubServer, request: Request, repo: str) -> Response:
    return _unset(server, request, repo, "variables")


@HUB.route("POST", "/api/spaces/{repo}/secrets")
def set_secret(server: HubServer, request: Request, repo: str) -> Response:
    return _set(server, request, repo, "secrets")


@HUB.route("DELETE", "/api/spaces/{repo}/secrets")
def unset_secret(server: HubServer, request: Request, repo: str) -> Response:
    return _unset(server, request, repo, "secrets")
