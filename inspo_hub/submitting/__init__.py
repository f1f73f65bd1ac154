"""The same recipe as a Job of the Hub: its inputs packed, its request written, started, followed, resumed when lost."""

from __future__ import annotations

from inspo_hub.submitting.checks import refuse_to_start
from inspo_hub.submitting.following import Done, JobLost, follow_to_the_end, running_job, start
from inspo_hub.submitting.inputs import check_travels
from inspo_hub.submitting.request import DEFAULT_IMAGE, Submission, Wishes, labels_of, make_submission

__all__ = [
    "DEFAULT_IMAGE",
    "Done",
    "JobLost",
    "Submission",
    "Wishes",
    "check_travels",
    "follow_to_the_end",
    "labels_of",
    "make_submission",
    "refuse_to_start",
    "running_job",
    "start",
]
