"""Win rates with the effect of length taken out: AlpacaEval 2's metric, and its relative without AlpacaEval's tables.

Both are a regression of preferences on the length difference, read at no difference (arXiv 2404.04475). AlpacaEval's
also has a difficulty for each of its 805 instructions, and 1610 rows of two baselines that gamed length, which keep
the length coefficient honest. Without those tables (another prompt set) the number is a different and less robust one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from inspo_hub.evaluate.logistic import Floats, l1_logistic, sigmoid, soft_log_loss
from inspo_hub.evaluate.scores import Estimate, bootstrap_estimate, cluster_numbers, resampled_counts

ALPACA_EVAL_LC = "AlpacaEval 2 length-controlled win rate"
ALPACA_TABLES_LC = "length-controlled win rate on AlpacaEval's prompts, by another judge: not the leaderboard's LC"
LENGTH_ADJUSTED = "length-adjusted win rate: not AlpacaEval's LC"

CHOICES = np.logspace(-4, 4, 10)
"""Strengths that cross-validation chooses from: 2.78 and 21.5 are those of most published models."""
FIXED_STRENGTH = 10.0
"""For bootstraps and for tables of our own; the metric moves by less than 0.1 points from the chosen one."""
FOLDS = 5
GAMED_WEIGHT = 0.1
"""λ/2 with λ = 0.2: there are two gamed baselines."""
FEWEST_ROWS = 100
"""With fewer, what is left after two or three coefficients says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GamedRows:
    """Judged answers of the two baselines that were told to be verbose or concise; `(rows,)` each."""

    length_difference: Floats
    """Of the baseline less the gamed answer, already in standard deviations of its model."""
    difficulty: Floats
    preference: Floats
    """In [0, 1], of the gamed answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthControlled:
    """One fitted regression. `value` and `standard_error` are shares in [0, 1], as everywhere in this room."""

    value: float
    standard_error: float
    """Of the fitted values, as AlpacaEval publishes it: about half the real error. The bootstrap gives that."""
    weights: Floats
    """Of tanh(length difference), difficulty (absent without tables) and the constant."""
    strength: float
    rows: int


def length_controlled(
    preferences: ArrayLike,
    lengths: ArrayLike,
    opponent_lengths: ArrayLike,
    *,
    difficulty: ArrayLike | None = None,
    gamed: GamedRows | None = None,
    strength: float | None = None,
) -> LengthControlled | None:
    """The length-controlled win rate of one system: mean of σ(w₂·difficulty + w₃), the length difference set to 0.

    With `difficulty` and `gamed` this is AlpacaEval 2's `length_controlled_winrate` / 100. Rows whose preference is
    not a number were not judged and are left out. None where all answers are as long as the opponent's: there is
    nothing to control.

    Args:
        preferences: share in [0, 1] by which the system's answer is preferred, `(rows,)`.
        lengths: of the system's answers in characters; `opponent_lengths` likewise.
        difficulty: of each row's instruction.
        strength: of the data against the L1 penalty; None: chosen by 5-fold cross-validation, as AlpacaEval does.
    """
    model = _Regression.of(preferences, lengths, opponent_lengths, difficulty, gamed)
    if model is None:
        return None
    chosen = model.cross_validated_strength() if strength is None else strength
    weights = model.fit(chosen)
    fitted = model.at_equal_length(weights)
    return LengthControlled(
        value=float(fitted.mean()),
        standard_error=float(fitted.std(ddof=1) / math.sqrt(len(fitted))),
        weights=weights,
        strength=float(chosen),
        rows=len(fitted),
    )


def length_controlled_estimate(
    preferences: ArrayLike,
    lengths: ArrayLike,
    opponent_lengths: ArrayLike,
    clusters: Sequence[object] | None = None,
    *,
    difficulty: ArrayLike | None = None,
    gamed: GamedRows | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate | None:
    """The same with a bootstrap interval over prompts, and the bootstrap's standard error; the strength is fixed.

    Published errors are those of the fitted values and about half of this.
    """
    model = _Regression.of(preferences, lengths, opponent_lengths, difficulty, gamed)
    if model is None:
        return None
    value, draws, groups = _bootstrap(model, clusters, resamples, seed)
    return bootstrap_estimate(value, draws, level, rows=len(model.preferences), clusters=groups)


def length_controlled_difference(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    opponent_lengths: ArrayLike,
    clusters: Sequence[object] | None = None,
    *,
    difficulty: ArrayLike | None = None,
    gamed: GamedRows | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate | None:
    """First less second of two systems' (preferences, lengths) on the same prompts, resampled together."""
    models = [_Regression.of(*each, opponent_lengths, difficulty, gamed) for each in (first, second)]
    if models[0] is None or models[1] is None:
        return None
    found = [_bootstrap(model, clusters, resamples, seed) for model in models if model is not None]
    (value, draws, groups), (other_value, other_draws, _) = found
    return bootstrap_estimate(
        value - other_value, draws - other_draws, level, rows=len(models[0].kept), clusters=groups
    )


def _bootstrap(
    model: _Regression, clusters: Sequence[object] | None, resamples: int, seed: int
) -> tuple[float, Floats, int]:
    """(value, value of every draw, number of clusters): two systems with the same prompts and seed draw the same."""
    index, groups = cluster_numbers(clusters, len(model.kept))
    weights = model.fit(FIXED_STRENGTH)
    value = float(model.at_equal_length(weights).mean())
    draws = np.empty(resamples)
    for number, counts in enumerate(resampled_counts(groups, resamples, seed)):
        times = counts[index][model.kept].astype(np.float64)
        fitted = model.at_equal_length(model.fit(FIXED_STRENGTH, times=times, start=weights))
        draws[number] = fitted @ times / times.sum()
    return value, draws, groups


@dataclass(frozen=True, slots=True, kw_only=True)
class _Regression:
    """The features of one system's judged rows, and of the gamed baselines' where the metric has them."""

    kept: np.ndarray
    """Which of the given rows were judged, `(given rows,)` of bool."""
    preferences: Floats
    features: Floats
    gamed_features: Floats
    gamed_preferences: Floats

    @classmethod
    def of(
        cls,
        preferences: ArrayLike,
        lengths: ArrayLike,
        opponent_lengths: ArrayLike,
        difficulty: ArrayLike | None,
        gamed: GamedRows | None,
    ) -> _Regression | None:
        q = np.asarray(preferences, dtype=np.float64)
        gap = np.asarray(opponent_lengths, dtype=np.float64) - np.asarray(lengths, dtype=np.float64)
        assert q.shape == gap.shape, "one preference and two lengths for each row"
        assert gamed is None or difficulty is not None, "the gamed rows have a difficulty, so all rows need one"
        kept = np.isfinite(q)
        q, gap = q[kept], gap[kept]
        assert ((q >= 0) & (q <= 1)).all(), "preferences are shares in [0, 1]"
        spread = gap.std(ddof=1) if len(gap) > 1 else 0.0
        if spread == 0:
            return None
        columns = [np.tanh(gap / spread), np.ones_like(gap)]
        if difficulty is not None:
            columns.insert(1, np.asarray(difficulty, dtype=np.float64)[kept])
        wide = len(columns)
        gamed_features, gamed_preferences = np.empty((0, wide)), np.empty(0)
        if gamed is not None:
            length = np.tanh(gamed.length_difference)
            gamed_features = np.stack([length, gamed.difficulty, np.zeros_like(length)], axis=1)
            gamed_preferences = gamed.preference
        return cls(
            kept=kept,
            preferences=q,
            features=np.stack(columns, axis=1),
            gamed_features=gamed_features,
            gamed_preferences=gamed_preferences,
        )

    def fit(self, strength: float, *, times: Floats | None = None, start: Floats | None = None) -> Floats:
        """The weights, each row of the model counted `times`; the gamed rows are the metric's, and stay."""
        own = np.ones_like(self.preferences) if times is None else times
        features, targets, weights = self._rows(own)
        return l1_logistic(features, targets, weights, strength=strength, start=start)

    def at_equal_length(self, weights: Floats) -> Floats:
        return sigmoid(self.features[:, 1:] @ weights[1:])

    def cross_validated_strength(self) -> float:
        """The strength whose held-out loss is least; the weakest of equals.

        AlpacaEval puts each row, with its copy, into the fold that an unstable sort gives it; ours are dealt from the
        last row on. Losses of the candidates differ in the sixth decimal, so that the choice is a toss-up there too.
        """
        features, targets, weights = self._rows(np.ones_like(self.preferences))
        fold = np.arange(len(targets))[::-1] % FOLDS
        losses = np.zeros(len(CHOICES))
        for held in range(FOLDS):
            train, test = fold != held, fold == held
            w = None
            for number, strength in enumerate(CHOICES):
                w = l1_logistic(features[train], targets[train], weights[train], strength=strength, start=w)
                loss = soft_log_loss(features[test] @ w, targets[test])
                losses[number] += float((weights[test] * loss).mean()) / FOLDS
        return float(CHOICES[int(losses.argmin())])

    def _rows(self, own_weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Gamed rows first, as AlpacaEval has them: the folds are dealt by place."""
        return (
            np.concatenate([self.gamed_features, self.features]),
            np.concatenate([self.gamed_preferences, self.preferences]),
            np.concatenate([np.full(len(self.gamed_preferences), GAMED_WEIGHT), own_weights]),
        )
