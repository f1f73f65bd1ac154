"""A row's attention as blocks of queries × keys that one kernel call each can compute.

A plan row (a segment and one of its key ranges) is one block, unless a sliding window binds or the kernel must
materialise its scores; then it is cut into tiles small enough that no scores tensor grows with the row squared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

TILE_QUERIES = 256
"""Most queries of a tile whose scores are materialised."""

Kind = Literal["causal", "full", "tile"]


class Block(NamedTuple):
    """Queries `[q0, q1)` against keys `[k0, k1)`; `behind` is how far q0 stands behind k0 along the path."""

    q0: int
    q1: int
    k0: int
    k1: int
    behind: int
    kind: Kind
    opens: bool
    """The first block of its queries: later ones are merged into what it wrote. It holds the diagonal."""


def blocks_of(plan: Sequence[Sequence[int]], *, window: int, materialised: bool) -> Iterator[Block]:
    """The blocks of a plan; every query is in exactly one block that opens, and that block comes before its others.

    Args:
        window: how many tokens a query sees along its path, itself included; 0 for no window.
        materialised: True where no fused kernel computes what is asked (soft-capping), so that all blocks are tiles.
    """
    own = [row for row in plan if row[4] == 0]
    context = [row for row in plan if row[4] > 0]
    for q0, q1, k0, k1, behind in itertools.chain(own, context):
        binds = 0 < window <= behind + q1 - q0 - 1
        if not binds and not materialised:
            yield Block(q0, q1, k0, k1, behind, "full" if behind else "causal", behind == 0)
            continue
        size = tile_size(window if binds else 0, materialised=materialised)
        for first in range(q0, q1, size):
            # A query at row position q stands level with row position q + shift of its keys' range.
            tile = Tile(first, min(q1, first + size), k0, k1, shift=k0 - q0 + behind, own=behind == 0)
            yield from _tile_blocks(tile, window=window if binds else 0, materialised=materialised)


def tile_size(window: int, *, materialised: bool) -> int:
    """Queries per tile; no more than the window, so that the window does not cut a tile's diagonal."""
    return TILE_QUERIES if materialised else min(window, TILE_QUERIES)


class Tile(NamedTuple):
    """A run of queries of a plan row, with all the keys of that row."""

    q0: int
    q1: int
    k0: int
    k1: int
    shift: int
    own: bool


def _tile_blocks(tile: Tile, *, window: int, materialised: bool) -> Iterator[Block]:
    """What a tile's queries see: the diagonal first, then the band's inside and its edge."""
    q0, q1 = tile.q0, tile.q1
    start = max(tile.k0, q0 + tile.shift - window + 1) if window else tile.k0
    stop = min(tile.k1, q1 + tile.shift)
    if start >= stop:
        return

    def block(k0: int, k1: int, kind: Kind, *, opens: bool = False) -> Block:
        return Block(q0, q1, k0, k1, q0 + tile.shift - k0, kind, opens)

    if materialised:
        yield block(start, stop, "tile", opens=tile.own)
        return
    diagonal = q0 + tile.shift if tile.own else stop
    inside = min(max(start, q1 + tile.shift - window), diagonal)  # from here on every query of the tile sees every key
    if tile.own:
        yield block(diagonal, stop, "causal", opens=True)
    if inside < diagonal:
        yield block(inside, diagonal, "full")
    if start < inside:
        yield block(start, inside, "tile")


def visible(block: Block, *, window: int, device: torch.device) -> Bool[Tensor, "queries keys"] | None:
    """Which keys each query of a tile sees; None for all of them."""
    queries, keys = block.q1 - block.q0, block.k1 - block.k0
    if block.behind >= keys - 1 and not 0 < window <= block.behind + queries - 1:
        return None
    distance = torch.arange(queries, device=device)[:, None] - torch.arange(keys, device=device) + block.behind
    sees = distance >= 0
    return sees & (distance < window) if window else sees
