"""What a recipe comes to: everything pinned, and the lock that records it. Imports no torch, and no Hub client."""

from __future__ import annotations

from inspo_hub.plan.lock import (
    LOCK_FILE,
    RUN_SHA256,
    Lock,
    LockedPin,
    compare_environment,
    compare_lock,
    package_versions,
    read_lock,
    refuse_drift,
    write_lock,
)
from inspo_hub.plan.pins import Plan, Reference, make_plan, make_plans, references

__all__ = [
    "LOCK_FILE",
    "RUN_SHA256",
    "Lock",
    "LockedPin",
    "Plan",
    "Reference",
    "compare_environment",
    "compare_lock",
    "make_plan",
    "make_plans",
    "package_versions",
    "read_lock",
    "references",
    "refuse_drift",
    "write_lock",
]
