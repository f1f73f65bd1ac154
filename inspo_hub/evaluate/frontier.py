"""Win rate against KL: what a system gains for how far it moved from where it began.

One win rate says little, for most methods win more the further they go, up to a point. Of several systems (settings of
a sweep) those on the frontier win most at their KL or less.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def on_frontier(kl: ArrayLike, win_rate: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other one beats: at most as much KL and at least as high a win rate, one of them strictly."""
    x, y = np.asarray(kl, dtype=np.float64), np.asarray(win_rate, dtype=np.float64)
    assert x.shape == y.shape
    no_worse = (x[None] <= x[:, None]) & (y[None] >= y[:, None])
    better = (x[None] < x[:, None]) | (y[None] > y[:, None])
    return np.logical_not(np.any(no_worse & better, axis=1), dtype=np.bool_)


def win_rate_at(kl: ArrayLike, win_rate: ArrayLike, at: ArrayLike) -> NDArray[np.float64]:
    """The frontier as a function of KL: the highest win rate of a point with at most so much; NaN before the first."""
    x, y = np.asarray(kl, dtype=np.float64), np.asarray(win_rate, dtype=np.float64)
    order = np.argsort(x, kind="stable")
    best = np.concatenate([[np.nan], np.maximum.accumulate(y[order])])
    found: NDArray[np.float64] = best[np.searchsorted(x[order], np.asarray(at, dtype=np.float64), side="right")]
    return found
