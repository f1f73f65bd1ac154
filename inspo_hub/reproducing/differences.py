"""Two runs compared by what they logged last: equal, equal within a tolerance, or how far apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Record = Mapping[str, Any]
SPLITS = ("train", "heldout")
_POSITION = ("step", "split")


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of the last line of a split, in both runs; `size` is |published - here| / max(1, |published|)."""

    split: str
    step: int
    metric: str
    published: float | None
    here: float | None
    size: float

    def __str__(self) -> str:
        return f"{self.metric} ({self.split}, step {self.step}): published {self.published}, here {self.here}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, which knows no infinity."""
        return {**asdict(self), "size": self.size if math.isfinite(self.size) else None}


def compare_metrics(published: Sequence[Record], here: Sequence[Record]) -> list[Difference]:
    """Every number of the last training line and the last held-out line that is not the same, the largest first.

    A number that only one of the runs has, or that was logged at another step, differs by infinity.
    """
    found = [each for split in SPLITS for each in _compare(_last(published, split), _last(here, split), split)]
    return sorted(found, key=lambda each: -each.size)


def count_numbers(records: Sequence[Record]) -> int:
    """How many numbers `compare_metrics` looks at."""
    return sum(len(_numbers(_last(records, split))) for split in SPLITS)


def _last(records: Sequence[Record], split: str) -> Record:
    return next((record for record in reversed(records) if record["split"] == split), {})


def _numbers(record: Record) -> dict[str, float | None]:
    return {name: value for name, value in record.items() if name not in _POSITION}


def _compare(published: Record, here: Record, split: str) -> Iterator[Difference]:
    step = int(published.get("step", here.get("step", 0)))
    same_step = published.get("step") == here.get("step")
    before, now = _numbers(published), _numbers(here)
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new and same_step:
            continue
        size = abs(old - new) / max(1.0, abs(old)) if same_step and old is not None and new is not None else math.inf
        yield Difference(split, step, name, old, new, math.inf if math.isnan(size) else size)
