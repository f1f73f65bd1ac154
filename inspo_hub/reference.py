"""Which model is the reference, and its log-probabilities: computed once, cached by content, checked at load.

The cache is one SQLite file per reference identity (weights, compute dtype, packing layout, device kind); a row's key
is the hash of the token ids it was scored on. So a changed learning rate, β, epoch count or output folder hits, a
changed truncation, template or weight misses, and twins and sweeps share every row. SQLite gives atomic writes and lets
two runs fill the same file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from inspo_hub.errors import TrainingError
from inspo_hub.packing import context_and_response
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import Score

log = logging.getLogger(__name__)

# A write every so many rows: a run killed in the reference pass repeats at most this many.
ROWS_PER_COMMIT = 64
# Re-scored rows must agree within this many nats per response token; bfloat16 keeps 8 bits of each logit.
AGREEMENT_PER_TOKEN = {"float64": 1e-6, "float32": 1e-4, "bfloat16": 5e-2}

ScoreRows = Callable[[Sequence[int], Sequence[Score]], Iterator[tuple[int, dict[Score, float]]]]
"""Scores the rows with the given indices: yields (row index, its log-probabilities in nats), in any order."""


@dataclass(frozen=True)
class ReferenceIdentity:
    """Everything beside the token ids that a reference log-probability depends on."""

    description: str
    """For people: 'initial policy (./base)'; printed, recorded in the lock and the card, not part of the key."""
    weights: str
    """Content hash of the weights, the Hub's own where there is one."""
    compute_dtype: str
    layout: str
    device_kind: str

    def key(self) -> str:
        fields = {name: value for name, value in asdict(self).items() if name != "description"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def row_key(context: Sequence[int], response: Sequence[int]) -> bytes:
    """Content key of log π_ref(response | context): SHA-256 over both lists of token ids, lengths included."""
    digest = hashlib.sha256()
    for ids in (context, response):
        array = np.asarray(ids, dtype="<i8")
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(array.tobytes())
    return digest.digest()


class ReferenceCache:
    """Log-probabilities by content key, in one SQLite file; safe for several processes and for a kill at any moment."""

    def __init__(self, identity: ReferenceIdentity, folder: Path) -> None:
        self.path = folder / f"{identity.key()[:40]}.sqlite"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS logps (key BLOB PRIMARY KEY, logps REAL NOT NULL) WITHOUT ROWID"
            )

    def _connect(self) -> sqlite3.Connection:
        # A minute of patience: another run may be writing.
        return sqlite3.connect(self.path, timeout=60.0)

    def get(self, keys: Sequence[bytes]) -> np.ndarray:
        """Float64 `(keys,)`, NaN where the cache has no row."""
        values = np.full(len(keys), np.nan)
        with closing(self._connect()) as connection:
            for index, key in enumerate(keys):
                row = connection.execute("SELECT logps FROM logps WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    values[index] = row[0]
        return values

    def put(self, rows: Sequence[tuple[bytes, float]]) -> None:
        with closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO logps VALUES (?, ?)", rows)


@dataclass(frozen=True)
class Contexts:
    """How a pair's responses are put into context: what a score's token ids depend on beside the pair."""

    separator: tuple[int, ...] = ()
    max_alternative_tokens: int | None = None

    def key(self, pair: PreferencePair, score: Score) -> bytes:
        return row_key(*context_and_response(pair, score, self.separator, self.max_alternative_tokens))


def _first_with_same(keys: Sequence[bytes]) -> np.ndarray:
    """For each key the index of the first one equal to it, `(keys,)`."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(key, index) for index, key in enumerate(keys)], dtype=np.int64)


class ReferenceScores:
    """Reference log-probabilities of every pair of a data set, `(rows,)` float64 per score, from cache or scored now.

    Args:
        pairs: the data set; rows are its indices.
        scores: what is needed: the plain scores, and the conditioned ones for `reference.context: conditioned`.
        contexts: separator and cap of the conditioned scores.
        cache: where rows are looked up and kept.
    """

    def __init__(
        self, pairs: Sequence[PreferencePair], scores: Sequence[Score], *, contexts: Contexts, cache: ReferenceCache
    ) -> None:
        self.pairs, self.scores, self.cache = pairs, tuple(scores), cache
        self._keys = {score: [contexts.key(pairs[row], score) for row in range(len(pairs))] for score in self.scores}
        self._owners = {score: _first_with_same(keys) for score, keys in self._keys.items()}
        self.values = {score: cache.get(self._keys[score]) for score in self.scores}

    def missing_rows(self) -> list[int]:
        """Rows that must be scored, in data set order: of rows that share a response and its context, the first."""
        rows = np.arange(len(self.pairs))
        lacking = [np.isnan(self.values[score]) & (self._owners[score] == rows) for score in self.scores]
        return [int(row) for row in np.flatnonzero(np.any(lacking, axis=0))] if lacking else []

    def fill(self, micro_batches: Iterable[Sequence[int]], score_rows: ScoreRows) -> int:
        """Scores micro-batches and keeps what was missing in the cache, a few at a time; returns how many rows it were.

        A row's last bits depend on the rows it is scored with. So what is scored together, and kept together, is a
        micro-batch as the caller cut the whole data set: a run that was killed in between ends with the same values.

        Raises:
            TrainingError: a log-probability is not finite.
        """
        pending: list[tuple[bytes, float]] = []
        scored = uncommitted = 0
        for members in micro_batches:
            for row, logps in score_rows(members, self.scores):
                pending += self._take(row, logps)
            scored, uncommitted = scored + len(members), uncommitted + len(members)
            if uncommitted >= ROWS_PER_COMMIT:
                self.cache.put(pending)
                pending, uncommitted = [], 0
        self.cache.put(pending)
        return scored

    def _take(self, row: int, logps: dict[Score, float]) -> list[tuple[bytes, float]]:
        """Sets what the row lacks and no row before it has, and returns it with its keys."""
        taken = []
        for score, value in logps.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"the reference gives {value} for {score}",
                    where=f"row {self.pairs[row].row_id}",
                    expected="a finite log-probability",
                    fix="check the reference's weights and compute dtype, or drop the row",
                )
            if math.isnan(self.values[score][row]) and self._owners[score][row] == row:
                self.values[score][row] = value
                taken.append((self._keys[score][row], value))
        return taken

    def merge(self, parts: Iterable[tuple[Sequence[int], dict[Score, Sequence[float]]]]) -> None:
        """Takes over what all processes scored, `(rows, values)` each; rows that share a score share its bits too."""
        for rows, values in parts:
            for score in self.scores:
                known = self.values[score][list(rows)]
                self.values[score][list(rows)] = np.where(np.isnan(known), values[score], known)
        for score, owners in self._owners.items():
            self.values[score] = self.values[score][owners]

    def verify(self, score_rows: ScoreRows, *, compute_dtype: str, rows: int = 4) -> float:
        """Re-scores a few rows and compares; the largest |difference| in nats per response token.

        Where the reference is the initial policy this is the step-0 check too: the plain log-ratios must be 0.

        Raises:
            TrainingError: they do not agree.
        """
        worst = self._disagreement(score_rows, rows)
        if not worst <= AGREEMENT_PER_TOKEN[compute_dtype]:
            raise TrainingError(
                f"cached reference log-probabilities differ from the model's by {worst:.3g} nats per token",
                where=str(self.cache.path),
                expected=f"at most {AGREEMENT_PER_TOKEN[compute_dtype]:g} with {compute_dtype} compute",
                fix="the cache file does not belong to these weights; delete it and run again",
            )
        return worst

    def verify_start(self, score_rows: ScoreRows, *, compute_dtype: str, rows: int = 4) -> None:
        """Scores a few rows with the policy before training, whose plain log-ratios to the reference must be 0.

        Only where policy and reference are one model in two states, such as with an adapter switched on and off.

        Raises:
            TrainingError: they are not.
        """
        worst = self._disagreement(score_rows, rows)
        if not worst <= AGREEMENT_PER_TOKEN[compute_dtype]:
            raise TrainingError(
                f"the policy differs from its reference by {worst:.3g} nats per token before the first step",
                where="step 0",
                expected="plain log-ratios of 0: a new adapter adds nothing",
                fix="this is a defect, of inspo_hub or of the installed peft; report it with the recipe and the lock",
            )

    def _disagreement(self, score_rows: ScoreRows, rows: int) -> float:
        """Largest |difference| of a few rows, scored now, in nats per response token."""
        probe = sorted({int(row) for row in np.linspace(0, len(self.pairs) - 1, min(rows, len(self.pairs)))})
        worst = 0.0
        for row, logps in score_rows(probe, self.scores):
            for score, value in logps.items():
                side = self.pairs[row].chosen if score.startswith("chosen") else self.pairs[row].rejected
                worst = max(worst, abs(value - float(self.values[score][row])) / len(side))
        return worst
