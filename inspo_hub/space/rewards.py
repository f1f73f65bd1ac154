"""What each system thinks of both answers: implicit rewards, β·log-ratio to the model that both came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rewards:
    """`values[system][answer of]` in nats, and the β of each system."""

    values: Mapping[str, Mapping[str, float]]
    betas: Mapping[str, float]

    def margin(self, system: str, answer: str, other: str) -> float:
        """How much more reward a system gives one answer than the other."""
        return self.values[system][answer] - self.values[system][other]

    def sentences(self) -> list[str]:
        """What the numbers say, one sentence per system; none where a side has no answer."""
        told = []
        for system, values in self.values.items():
            if len(values) < 2:
                continue
            best, other = sorted(values, key=lambda name: -values[name])
            whose = "its own answer" if best == system else f"the answer of {best}"
            told.append(f"{system} prefers {whose} by {self.margin(system, best, other):.2f} nats.")
        return told
