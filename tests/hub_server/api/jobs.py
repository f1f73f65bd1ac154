"""Jobs: start, look, follow the logs, cancel, and the price list."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..accounts import User
from ..errors import HubError, bad_request, forbidden
from ..http import Request, Response
from ..jobs import Job
from . import HUB
from .hardware import HARDWARE
from .pages import paged

if TYPE_CHECKING:
    from ..server import HubServer


def _caller(server: HubServer, request: Request, namespace: str) -> User:
    user = server.user_of(request)
    assert request.token is not None
    if namespace not in user.namespaces or not request.token.allows("job.write", namespace=namespace):
        raise forbidden(f"your token has no permission to run jobs for {namespace}")
    return user


def _find(server: HubServer, request: Request, namespace: str, job: str) -> Job:
    _caller(server, request, namespace)
    found = server.jobs.get(job)
    if found is None or found.namespace != namespace:
        raise HubError(404, "Job not found")
    return found


@HUB.route("GET", "/api/jobs/hardware")
def list_hardware(server: HubServer, request: Request) -> Response:
    return Response.json(HARDWARE)


@HUB.route("POST", "/api/jobs/{namespace}")
def run_job(server: HubServer, request: Request, namespace: str) -> Response:
    user = _caller(server, request, namespace)
    spec = request.read_json()
    if spec.get("flavor") not in {one["name"] for one in HARDWARE}:
        raise bad_request(f'"flavor" is not a hardware: {spec.get("flavor")}')
    if bool(spec.get("dockerImage")) == bool(spec.get("spaceId")) or not spec.get("command"):
        raise bad_request('one of "dockerImage" and "spaceId", and a "command", are required')
    if not user.can_pay:
        raise HubError(402, "Pre-paid credit balance is insufficient - add more credits to your account to use Jobs.")
    job = Job(namespace, spec)
    server.jobs[job.id] = job
    if server.machine is not None:
        threading.Thread(target=server.machine, args=(job,), name=f"job-{job.id}", daemon=True).start()
    return Response.json(job.describe())


@HUB.route("GET", "/api/jobs/{namespace}")
def list_jobs(server: HubServer, request: Request, namespace: str) -> Response:
    _caller(server, request, namespace)
    stages, labels = request.query.get("stage", []), request.query.get("label", [])
    rows = [
        job.describe()
        for job in server.jobs.values()
        if job.namespace == namespace
        and (not stages or job.stage in stages)
        and all(job.spec.get("labels", {}).get(text.split("=")[0]) == text.partition("=")[2] for text in labels)
    ]
    return paged(server, request, rows)


@HUB.route("GET", "/api/jobs/{namespace}/{job}")
def inspect_job(server: HubServer, request: Request, namespace: str, job: str) -> Response:
    return Response.json(_find(server, request, namespace, job).describe())


@HUB.route("GET", "/api/jobs/{namespace}/{job}/logs")
def job_logs(server: HubServer, request: Request, namespace: str, job: str) -> Response:
    """The log as server-sent events, for as long as the job runs."""
    found = _find(server, request, namespace, job)
    tail = int(request.param("tail")) if "tail" in request.query else None

    def events() -> Iterator[bytes]:
        for timestamp, line in found.follow(tail, server.log_patience):
            yield b"data: " + json.dumps({"timestamp": timestamp, "data": line}).encode() + b"\n\n"

    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    return Response(200, b"", headers, stream=events())


@HUB.route("POST", "/api/jobs/{namespace}/{job}/cancel")
def cancel_job(server: HubServer, request: Request, namespace: str, job: str) -> Response:
    found = _find(server, request, namespace, job)
    found.finish("CANCELED")
    return Response.json(found.describe())


@HUB.route("PUT", "/api/jobs/{namespace}/{job}/labels")
def change_labels(server: HubServer, request: Request, namespace: str, job: str) -> Response:
    found = _find(server, request, namespace, job)
    found.spec["labels"] = request.read_json()["labels"]
    return Response.json(found.describe())
