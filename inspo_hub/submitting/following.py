"""A started Job to its end: its lines told, what became of it, and another one where it was lost."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inspo_hub import hub
from inspo_hub.errors import INTERRUPTED_EXIT_CODE, ResolutionError
from inspo_hub.submitting.request import ENDED, labels_of

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe
    from inspo_hub.submitting.request import Submission

log = logging.getLogger(__name__)

_ENDED = re.compile(re.escape(ENDED) + r" (\d+)\s*")
BY_SIGNAL = {INTERRUPTED_EXIT_CODE, 128 + 15, 128 + 2}
"""Exit codes of a run that was told to stop: the machine is taken away, and the run can be resumed."""
POLL_S = 5.0
SILENT_S = 900.0
"""How long the Hub may be away while a Job is followed; the Job runs on meanwhile."""


class JobLost(ResolutionError):
    """A Job that ended without its run having ended."""

    def __init__(self, what: str, job: hub.Job, *, fix: str) -> None:
        self.job = job
        super().__init__(what, where=job.url, expected="a Job that ends when its run does", fix=fix)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "job": self.job.to_dict()}


@dataclass
class Done:
    """What became of a submission: the exit code of its run, and every Job it took."""

    exit_code: int
    jobs: list[hub.Job] = field(default_factory=list)
    usd: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "exit_code": self.exit_code,
            "jobs": [{**job.to_dict(), "hours": job.hours} for job in self.jobs],
            "usd": self.usd,
        }


def running_job(recipe: Recipe, namespace: str | None = None) -> hub.Job | None:
    """The newest Job of this recipe that is not over. Raises ResolutionError."""
    found = hub.find_jobs(labels_of(recipe), namespace=namespace)
    return next((job for job in found if not job.is_over), None)


def start(submission: Submission) -> hub.Job:
    """Starts the Job. Raises ResolutionError."""
    job = hub.start_job(submission.request)
    log.info("started Job %s on %s: %s", job.id, submission.request.flavor, job.url)
    return job


def follow_to_the_end(
    submission: Submission,
    job: hub.Job,
    say: Callable[[str], None],
    *,
    resubmit: int = 0,
    cancel: bool = False,
) -> Done:
    """Tells what the Job prints until its run has ended; a Job that was lost is started again, from its checkpoints.

    Args:
        resubmit: how often at most.
        cancel: an interrupt ends the Job; otherwise it runs on, and what to do about it is said.

    Raises:
        JobLost: lost, and not to be started again.
        ResolutionError: the Hub stays away; the Job runs on.
    """
    done = Done(exit_code=0)
    while True:
        try:
            ended_with, job = _follow(job, say)
        except KeyboardInterrupt:
            _interrupted(job, cancel)
            raise
        done.jobs.append(job)
        done.usd += job.hours * submission.usd_per_hour
        if job.stage == "CANCELED":
            log.warning("Job %s was cancelled", job.id)
            done.exit_code = INTERRUPTED_EXIT_CODE
            return done
        if ended_with is not None and ended_with not in BY_SIGNAL:
            done.exit_code = ended_with
            return done
        reason = f"Job {job.id} was lost ({job.stage}{f': {job.message}' if job.message else ''})"
        following = submission.again(done.usd)
        if len(done.jobs) > resubmit or not submission.resumable or following is None:
            raise JobLost(reason, job, fix=_advice(submission, following is None))
        log.warning("%s; going on from its last checkpoint on the Hub", reason)
        job = start(following)


def _interrupted(job: hub.Job, cancel: bool) -> None:
    if cancel:
        hub.cancel_job(job)
        log.warning("cancelled Job %s", job.id)
    else:
        log.warning("the Job runs on: %s (--attach follows it, `hf jobs cancel %s` ends it)", job.url, job.id)


def _advice(submission: Submission, money_is_spent: bool) -> str:
    if money_is_spent:
        return "the same command with a higher --max-usd goes on from the last checkpoint on the Hub"
    if submission.resumable:
        return "the same command goes on from the last checkpoint on the Hub"
    return "with `publish.strategy: checkpoint` the next one can go on where this one was lost"


class _Listener:
    """Tells each line of a Job's log once, however often the log breaks off, and notices the one that ends a run."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.told = say, 0
        self.ended_with: int | None = None
        self.heard_at = time.monotonic()

    def listen(self, job: hub.Job, *, follow: bool) -> None:
        """Raises ResolutionError where the Hub does not let the log be read."""
        try:
            for line in hub.job_lines(job, skip=self.told, follow=follow):
                self.told += 1
                self.heard_at = time.monotonic()
                match = _ENDED.fullmatch(line)
                if match is None:
                    self.say(line)
                else:
                    self.ended_with = int(match[1])
        except hub.HubFailure as failure:
            if not failure.fault.transient:
                raise ResolutionError(f"its log cannot be read: {failure.fault.message}", where=job.url) from None
            log.warning("The log broke off (%s); looking again", failure.fault.message)


def _follow(job: hub.Job, say: Callable[[str], None]) -> tuple[int | None, hub.Job]:
    """(Exit code of the run, None where it did not end by itself; the Job as it ended)."""
    listener = _Listener(say)
    while True:
        listener.listen(job, follow=True)
        try:
            job = hub.look_at_job(job)
            listener.heard_at = time.monotonic()
        except ResolutionError:
            if time.monotonic() - listener.heard_at > SILENT_S:
                raise
        if job.is_over:
            if listener.ended_with is None:  # its last lines may have come while nobody listened
                listener.listen(job, follow=False)
            completed = 0 if job.stage == "COMPLETED" else None
            return completed if listener.ended_with is None else listener.ended_with, job
        time.sleep(POLL_S)
