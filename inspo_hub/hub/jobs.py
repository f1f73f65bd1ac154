"""Jobs of the Hub: started with one request, followed line by line, found again by their labels, cancelled."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from inspo_hub.errors import ResolutionError
from inspo_hub.hub.client import DEFAULT_PATIENCE, ONCE, HubFailure, Patience, api, call, repo_url
from inspo_hub.hub.faults import Fault, classify, client_errors

if TYPE_CHECKING:
    from huggingface_hub import JobInfo

TOKEN_SECRET = "HF_TOKEN"
FINAL_STAGES = ("COMPLETED", "CANCELED", "ERROR", "DELETED")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """All that a Job is asked to be. Secrets are names here: their values are read when it is sent, and never kept."""

    image: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    secrets: tuple[str, ...]
    flavor: str
    timeout_s: int
    labels: Mapping[str, str]
    namespace: str | None = None
    """User or organisation that pays; None: the owner of the token."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "image": self.image,
            "command": list(self.command),
            "env": dict(self.env),
            "secrets": list(self.secrets),
            "flavor": self.flavor,
            "timeout_s": self.timeout_s,
            "labels": dict(self.labels),
            "namespace": self.namespace,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A Job as the Hub described it last."""

    id: str
    namespace: str
    url: str
    stage: str
    message: str | None
    started: datetime | None
    finished: datetime | None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.stage in FINAL_STAGES

    @property
    def hours(self) -> float:
        """What it ran until now, which is what is paid."""
        if self.started is None:
            return 0.0
        return max(0.0, ((self.finished or datetime.now(UTC)) - self.started).total_seconds() / 3600)

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "namespace": self.namespace, "url": self.url, "stage": self.stage}


def missing_secrets(names: tuple[str, ...]) -> list[str]:
    """Those of the secrets that have no value on this machine."""
    return [name for name in names if not _secret(name)]


def start_job(request: JobRequest) -> Job:
    """Sends the request, once: a second attempt after a lost answer could start, and bill, a second Job.

    Raises:
        ResolutionError: the Hub did not take it.
    """
    secrets = {name: _secret(name) for name in request.secrets}
    try:
        info = call(
            lambda: api().run_job(
                image=request.image,
                command=list(request.command),
                env=dict(request.env),
                secrets=secrets,
                flavor=request.flavor,
                timeout=request.timeout_s,
                labels=dict(request.labels),
                namespace=request.namespace,
            ),
            patience=ONCE,
        )
    except HubFailure as failure:
        raise _job_error(failure.fault, f"a Job on {request.flavor}", "starting it") from None
    return _job(info)


def find_jobs(labels: Mapping[str, str], *, namespace: str | None = None) -> list[Job]:
    """The Jobs that carry these labels, newest first. Raises ResolutionError."""
    try:
        found = call(lambda: list(api().list_jobs(labels=dict(labels), namespace=namespace)))
    except HubFailure as failure:
        raise _job_error(failure.fault, "Jobs", "listing them") from None
    newest = sorted(found, key=lambda info: info.created_at or datetime.min.replace(tzinfo=UTC), reverse=True)
    return [_job(info) for info in newest]


def look_at_job(job: Job, *, patience: Patience = DEFAULT_PATIENCE) -> Job:
    """The Job as it is now. Raises ResolutionError."""
    try:
        return _job(
            call(lambda: api().inspect_job(job_id=job.id, namespace=job.namespace), patience=patience), job.labels
        )
    except HubFailure as failure:
        raise _job_error(failure.fault, f"Job {job.id}", "looking at it") from None


def job_lines(job: Job, *, skip: int = 0, follow: bool = True) -> Iterator[str]:
    """What the Job prints, from its line `skip` on; with `follow` until it is over or the stream ends.

    Raises HubFailure.
    """
    try:
        for number, line in enumerate(api().fetch_job_logs(job_id=job.id, namespace=job.namespace, follow=follow)):
            if number >= skip:
                yield line
    except client_errors() as error:
        raise HubFailure(classify(error)) from None


def cancel_job(job: Job) -> None:
    """Ends the Job. Raises ResolutionError."""
    try:
        call(lambda: api().cancel_job(job_id=job.id, namespace=job.namespace))
    except HubFailure as failure:
        raise _job_error(failure.fault, f"Job {job.id}", "cancelling it") from None


def _secret(name: str) -> str | None:
    if name != TOKEN_SECRET:
        return os.environ.get(name)
    from huggingface_hub import get_token

    return get_token()


def _job(info: JobInfo, labels: Mapping[str, str] | None = None) -> Job:
    return Job(
        id=info.id,
        namespace=info.owner.name,
        url=info.url,
        stage=str(getattr(info.status.stage, "value", info.status.stage)),
        message=info.status.message,
        # Older clients do not tell when a Job started: the whole of its life is counted then.
        started=getattr(info, "started_at", info.created_at),
        finished=getattr(info, "finished_at", None),
        labels=dict(getattr(info, "labels", None) or labels or {}),
    )


def _job_error(fault: Fault, where: str, doing: str) -> ResolutionError:
    advice = {
        "denied": f"use a token that may run Jobs for this namespace: {repo_url('settings/tokens')}; "
        "a trusted publisher's token may not",
        "quota": f"add credits to the account that pays: {repo_url('settings/billing')}",
        "away": "run the same command with --attach: it finds the Job if it was started",
        "busy": "the Hub is busy or limits requests: run the same command again later",
    }
    fix = advice.get(fault.kind, "see the message of the Hub above")
    return ResolutionError(f"{doing} failed: {fault.message}", where=where, expected="an answer of the Hub", fix=fix)
