"""Collections: a titled list of repositories and papers."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from ..accounts import check_visible
from ..errors import HubError, bad_request, forbidden
from ..http import Request, Response
from . import HUB
from .pages import paged

if TYPE_CHECKING:
    from ..server import HubServer

_ITEM_TYPES = ("model", "dataset", "space", "paper", "collection", "bucket")


def _find(server: HubServer, request: Request, slug: str, *, write: bool = False) -> dict[str, Any]:
    """A collection by the id at the end of its slug, as its title may change; private ones are the owner's."""
    found = next((one for one in server.collections.values() if one["slug"].endswith(slug[-24:])), None)
    mine = found is not None and request.token is not None and found["owner"]["name"] in request.token.user.namespaces
    if found is None or (found["private"] and not mine):
        raise HubError(404, "Collection not found")
    if write and not (mine and request.token is not None and request.token.role != "read"):
        raise forbidden("you cannot change this collection")
    return found


def _check(asked: dict[str, Any]) -> None:
    for key, limit in (("title", 60), ("description", 150)):
        if len(asked.get(key) or "") > limit:
            raise bad_request(f'"{key}" length must be less than or equal to {limit} characters long')


@HUB.route("POST", "/api/collections")
def create_collection(server: HubServer, request: Request) -> Response:
    user = server.user_of(request)
    asked = request.read_json()
    namespace, title = asked["namespace"], asked["title"]
    if namespace not in user.namespaces or request.token is None or request.token.role == "read":
        raise forbidden(f"you cannot create a collection under {namespace}")
    _check(asked)
    same = [one for one in server.collections.values() if (one["owner"]["name"], one["title"]) == (namespace, title)]
    if same:
        return Response.json({"error": "This collection already exists", "slug": same[0]["slug"]}, status=409)
    slug = f"{namespace}/{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}-{secrets.token_hex(12)}"
    made: dict[str, Any] = {
        "slug": slug,
        "title": title,
        "owner": {"name": namespace, "type": "user"},
        "items": [],
        "lastUpdated": "2026-01-01T00:00:00.000Z",
        "position": 0,
        "private": bool(asked.get("private")),
        "theme": "orange",
        "upvotes": 0,
        "gating": False,
    }
    if asked.get("description"):
        made["description"] = asked["description"]
    server.collections[slug] = made
    return Response.json(made)


@HUB.route("GET", "/api/collections")
def list_collections(server: HubServer, request: Request) -> Response:
    owner = request.param("owner")
    mine = request.token.user.namespaces if request.token is not None else set()
    rows = [
        {key: value for key, value in one.items() if key != "position"}  # the client counts by itself
        for one in server.collections.values()
        if owner in ("", one["owner"]["name"]) and (not one["private"] or one["owner"]["name"] in mine)
    ]
    return paged(server, request, rows)


@HUB.route("GET", "/api/collections/{namespace}/{name}")
def show_collection(server: HubServer, request: Request, namespace: str, name: str) -> Response:
    return Response.json(_find(server, request, name))


@HUB.route("PATCH", "/api/collections/{namespace}/{name}")
def change_collection(server: HubServer, request: Request, namespace: str, name: str) -> Response:
    found = _find(server, request, name, write=True)
    asked = request.read_json()
    _check(asked)
    found.update({key: asked[key] for key in ("title", "description", "private", "theme", "position") if key in asked})
    return Response.json({"success": True, "data": found})


@HUB.route("DELETE", "/api/collections/{namespace}/{name}")
def delete_collection(server: HubServer, request: Request, namespace: str, name: str) -> Response:
    del server.collections[_find(server, request, name, write=True)["slug"]]
    return Response.json({"success": True})


@HUB.route("POST", "/api/collections/{namespace}/{name}/items")
def add_item(server: HubServer, request: Request, namespace: str, name: str) -> Response:
    found = _find(server, request, name, write=True)
    asked = request.read_json()
    kind, identity = asked["item"]["type"], asked["item"]["id"]
    if kind not in _ITEM_TYPES:
        raise bad_request(f'"item.type" must be one of {list(_ITEM_TYPES)}')
    if kind in ("model", "dataset", "space"):
        check_visible(server.repos.get((kind, identity)), request.token)
    if any((item["type"], item["id"]) == (kind, identity) for item in found["items"]):
        raise HubError(409, "This item is already in the collection")
    note = asked.get("note")
    if len(note or "") > 500:
        raise bad_request('"note" length must be less than or equal to 500 characters long')
    item: dict[str, Any] = {"_id": secrets.token_hex(12), "id": identity, "type": kind, "position": len(found["items"])}
    if note:
        item["note"] = {"html": note, "text": note}
    found["items"].append(item)
    return Response.json(found)


def _item(found: dict[str, Any], item: str) -> dict[str, Any]:
    for one in found["items"]:
        if one["_id"] == item:
            return dict(one)
    raise HubError(404, "Collection item not found")


@HUB.route("PATCH", "/api/collections/{namespace}/{name}/items/{item}")
def change_item(server: HubServer, request: Request, namespace: str, name: str, item: str) -> Response:
    found = _find(server, request, name, write=True)
    asked, changed = request.read_json(), _item(found, item)
    if "note" in asked:
        changed["note"] = {"html": asked["note"], "text": asked["note"]}
    rest = [one for one in found["items"] if one["_id"] != item]
    rest.insert(asked.get("position", changed["position"]), changed)
    found["items"] = [{**one, "position": position} for position, one in enumerate(rest)]
    return Response.json({"success": True})


@HUB.route("DELETE", "/api/collections/{namespace}/{name}/items/{item}")
def delete_item(server: HubServer, request: Request, namespace: str, name: str, item: str) -> Response:
    found = _find(server, request, name, write=True)
    _item(found, item)
    rest = [one for one in found["items"] if one["_id"] != item]
    found["items"] = [{**one, "position": position} for position, one in enumerate(rest)]
    return Response.json({"success": True})
