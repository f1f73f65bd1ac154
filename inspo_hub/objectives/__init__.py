"""Objectives: one view of the pairs in, a loss per pair `(pairs,)` out. Reading the table imports no torch."""

from __future__ import annotations

from inspo_hub.objectives.base import Objective
from inspo_hub.objectives.table import OBJECTIVES

__all__ = ["OBJECTIVES", "Objective"]
