"""A finding and a diagnosis: what was measured, what it means, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["problem", "warning", "advice", "ok"]
SEVERITIES: Mapping[Severity, str] = {
    "problem": "the run would stop, or train something other than the recipe says",
    "warning": "the run would go through, and its result is likely to disappoint or mislead",
    "advice": "another setting is likely to be better",
    "ok": "measured, and as it should be",
}
"""Worst first."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    severity: Severity
    measured: str
    """What was measured, in numbers with their units."""
    means: str
    """What that says of a run."""
    do: str = ""
    """The next step of the user; empty where there is nothing to do."""
    variants: tuple[str, ...] = ()
    """The variants that it is about; empty: all of them."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs."""

    def __post_init__(self) -> None:
        assert self.severity == "ok" or self.do, f"{self.check} does not say what to do"

    def to_dict(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "severity": self.severity,
            "measured": self.measured,
            "means": self.means,
            "do": self.do or None,
            "variants": list(self.variants),
            "numbers": dict(self.numbers),
        }


@dataclass(frozen=True)
class Diagnosis:
    """All findings about a recipe, the worst first."""

    name: str
    findings: Sequence[Finding]

    @classmethod
    def of(cls, name: str, findings: Sequence[Finding]) -> Diagnosis:
        order = list(SEVERITIES)
        return cls(name, sorted(findings, key=lambda finding: order.index(finding.severity)))

    @property
    def counts(self) -> dict[str, int]:
        return {severity: sum(one.severity == severity for one in self.findings) for severity in SEVERITIES}

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "counts": self.counts, "findings": [one.to_dict() for one in self.findings]}

    def text(self) -> str:
        """The findings for a terminal."""
        told = [f"{count} {_plural(severity, count)}" for severity, count in self.counts.items() if count]
        lines = [f"{self.name}: {', '.join(told) or 'nothing was looked at'}"]
        for one in self.findings:
            if one.severity == "ok":
                continue
            about = f" ({', '.join(one.variants)})" if one.variants else ""
            lines += ["", f"{one.severity}: {one.check}{about}", f"  measured: {one.measured}", f"  means: {one.means}"]
            lines += [f"  do: {one.do}"]
        fine = [one for one in self.findings if one.severity == "ok"]
        lines += ["", "as it should be:"] if fine else []
        lines += [f"  {one.check}: {one.measured}" for one in fine]
        return "\n".join(lines)


def _plural(severity: str, count: int) -> str:
    return f"{severity}s" if count != 1 and severity in ("problem", "warning") else severity
