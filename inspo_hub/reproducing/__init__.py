"""A published model, trained again from the recipe and the lock in its card. Importing it imports no torch."""

from __future__ import annotations

from inspo_hub.reproducing.again import Planned, Reproduced, Request, plan_again, train_again
from inspo_hub.reproducing.differences import Difference, compare_metrics
from inspo_hub.reproducing.published import PublishedRun, read_published

__all__ = [
    "Difference",
    "Planned",
    "PublishedRun",
    "Reproduced",
    "Request",
    "compare_metrics",
    "plan_again",
    "read_published",
    "train_again",
]
