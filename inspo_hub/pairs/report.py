"""The data report: what the rows were, what was done to them, and which rows to look at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from inspo_hub.pairs.store import PairSet

MAX_ROW_IDS = 20
_PERCENTILES = (5, 50, 90, 95, 99, 100)


@dataclass
class Rows:
    """How many rows, and the names of the first of them."""

    count: int = 0
    row_ids: list[str] = field(default_factory=list)
    detail: str = ""
    """What the first of them has, where more than its kind can be said."""

    def add(self, row_ids: Iterable[str], detail: str = "") -> None:
        self.detail = self.detail or detail
        for row_id in row_ids:
            self.count += 1
            if len(self.row_ids) < MAX_ROW_IDS:
                self.row_ids.append(row_id)

    def merge(self, more: Rows) -> None:
        """Adds what another source found."""
        self.count += more.count
        self.row_ids = [*self.row_ids, *more.row_ids][:MAX_ROW_IDS]
        self.detail = self.detail or more.detail


@dataclass
class SourceReport:
    name: str
    rows: int
    valid: int
    used: int
    weight: float | None
    revision: str | None
    format: str
    """chat (rendered by the chat template) or raw (strings as they stand)."""


@dataclass
class DataReport:
    """JSON-able; `text()` is the short form for a terminal."""

    seed: int = 0
    max_length: int = 0
    conditioned: bool = False
    sources: list[SourceReport] = field(default_factory=list)
    train_pairs: int = 0
    heldout_pairs: int = 0
    invalid: dict[str, Rows] = field(default_factory=dict)
    """Rows that cannot be pairs, by kind; dropped under `on_invalid: drop`."""
    duplicate: Rows = field(default_factory=Rows)
    """Rows of which an equal one comes earlier; kept."""
    contradicting: Rows = field(default_factory=Rows)
    """Rows of which another one prefers the other response; kept."""
    overlong: Rows = field(default_factory=Rows)
    """Rows whose longest path is longer than max_length; cut or dropped, as `on_overlong` says."""
    truncated: Rows = field(default_factory=Rows)
    responses_cut: Rows = field(default_factory=Rows)
    """Rows of which a response lost its tail, end token included."""
    truncated_tokens: dict[str, int] = field(default_factory=dict)
    merged_boundary: Rows = field(default_factory=Rows)
    """Rows in which a token of the joint text would have reached from the prompt into a response; kept apart."""
    length_bias: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, dict[str, float]] = field(default_factory=dict)
    leaked_prompts: Rows = field(default_factory=Rows)
    """Held-out rows whose prompt is also a training prompt."""
    near_leaked_prompts: Rows = field(default_factory=Rows)
    """The same, comparing letters and digits only."""
    max_token_id: int = -1
    end_token: str = ""
    fingerprint: str = ""
    """sha256 over the training pairs' token ids and limits, in order."""
    heldout_fingerprint: str = ""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def dropped(self) -> int:
        return sum(source.rows for source in self.sources) - self.train_pairs - self.heldout_pairs

    def text(self) -> str:
        """A dozen lines: counts, what to look at, lengths."""
        lines = [f"{self.train_pairs} training pairs, {self.heldout_pairs} held out, {self.dropped} rows left out"]
        lines += [f"  {s.name}: {s.used} of {s.rows} rows used ({s.format})" for s in self.sources]
        findings = {**self.invalid, **{name: getattr(self, name) for name in _FINDINGS}}
        lines += [
            f"  {name.replace('_', ' ')}: {rows.count} ({', '.join(rows.row_ids[:3])}{', …' * (rows.count > 3)})"
            for name, rows in findings.items()
            if rows.count
        ]
        if any(self.truncated_tokens.values()):
            taken = ", ".join(f"{count} of {part}" for part, count in self.truncated_tokens.items() if count)
            lines.append(f"  tokens cut: {taken}")
        lines += [
            f"  {part} tokens: median {stats['p50']:.0f}, p95 {stats['p95']:.0f}, longest {stats['p100']:.0f}"
            for part, stats in self.tokens.items()
        ]
        if self.length_bias:
            bias = self.length_bias
            lines.append(
                f"  chosen is longer in {bias['chosen_longer']:.0%} of the pairs"
                f" (mean {bias['mean_chosen']:.0f} against {bias['mean_rejected']:.0f} tokens)"
            )
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


_FINDINGS = (
    "duplicate",
    "contradicting",
    "overlong",
    "truncated",
    "responses_cut",
    "merged_boundary",
    "leaked_prompts",
    "near_leaked_prompts",
)


def rows_where(pairs: PairSet, mask: Bool[np.ndarray, " pairs"]) -> Rows:
    """The pairs that a mask marks."""
    found = np.flatnonzero(mask)
    return Rows(len(found), [pairs.row_id(int(index)) for index in found[:MAX_ROW_IDS]])


def percentiles(lengths: Int[np.ndarray, " pairs"]) -> dict[str, float]:
    """Mean and percentiles of token counts."""
    values = np.percentile(lengths, _PERCENTILES, method="nearest")
    return {"mean": float(lengths.mean()), **{f"p{p}": float(v) for p, v in zip(_PERCENTILES, values, strict=True)}}


def fingerprint(pairs: PairSet) -> str:
    """sha256 over every pair's ids and limit, in order: whatever files they came from."""
    digest = hashlib.sha256()
    for index in range(len(pairs)):
        for ids in pairs.arrays(index):
            digest.update(len(ids).to_bytes(4, "little") + ids.astype("<i4", copy=False).tobytes())
        digest.update(int(pairs.max_alternative[index]).to_bytes(4, "little"))
    return digest.hexdigest()


def describe(report: DataReport, pairs: PairSet, paths: Int[np.ndarray, " pairs"]) -> None:
    """Fills in what the training pairs look like: duplicates, cuts, lengths, length bias."""
    prompt, chosen, rejected = pairs.lengths.T
    report.tokens = {
        "prompt": percentiles(prompt),
        "chosen": percentiles(chosen),
        "rejected": percentiles(rejected),
        "longest path": percentiles(paths),
    }
    report.length_bias = {
        "chosen_longer": float((chosen > rejected).mean()),
        "equal": float((chosen == rejected).mean()),
        "mean_chosen": float(chosen.mean()),
        "mean_rejected": float(rejected.mean()),
    }
    parts = ("prompt", "chosen", "rejected", "alternative")
    report.truncated_tokens = {part: int(pairs.taken[:, i].sum()) for i, part in enumerate(parts)}
    report.truncated = rows_where(pairs, pairs.taken.sum(axis=1) > 0)
    report.responses_cut = rows_where(pairs, pairs.taken[:, 1:3].sum(axis=1) > 0)
    report.merged_boundary = rows_where(pairs, pairs.column("merged") > 0)
    _duplicates(report, pairs)


def _duplicates(report: DataReport, pairs: PairSet) -> None:
    names = ("prompt_hash", "chosen_hash", "rejected_hash")
    prompt, chosen, rejected = (pairs.column(name) for name in names)
    keys: Sequence[tuple[int, int, int]] = list(zip(prompt.tolist(), chosen.tolist(), rejected.tolist(), strict=True))
    seen: set[tuple[int, int, int]] = set()
    everything = set(keys)
    for index, (ask, better, worse) in enumerate(keys):
        if (ask, better, worse) in seen:
            report.duplicate.add([pairs.row_id(index)])
        if (ask, worse, better) in everything:
            report.contradicting.add([pairs.row_id(index)])
        seen.add((ask, better, worse))


def leakage(report: DataReport, train: PairSet, heldout: PairSet) -> None:
    """Held-out rows whose prompt is in training, exactly or but for case and punctuation."""
    exact = np.isin(heldout.column("prompt_hash"), train.column("prompt_hash"))
    near = np.isin(heldout.column("near_hash"), train.column("near_hash"))
    report.leaked_prompts = rows_where(heldout, exact)
    report.near_leaked_prompts = rows_where(heldout, near & ~exact)
