"""Tree attention by torch's `flex_attention`: the last resort on a GPU, for soft-capping without a kernel that has it.

Its block mask is built anew for each layout, and it needs `torch.compile` to be fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, no_type_check

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from inspo_hub.attention.blockwise import Scoring
from inspo_hub.attention.layout import TreeLayout, position_ids, segments_of


def forward(
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 kv_heads tokens size"],
    value: Float[Tensor, "1 kv_heads tokens value_size"],
    sinks: Float[Tensor, " heads"] | None,
    layout: TreeLayout,
    scoring: Scoring,
) -> Float[Tensor, "1 tokens heads value_size"]:
    """Attention of a packed row, differentiable by flex_attention's own backward."""
    cap = scoring.softcap

    @no_type_check  # torch reads its signature, which a checking wrapper hides
    def softcap(score: Tensor, _batch: Tensor, _head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    out, aux = _flex(query.is_cuda)(
        query,
        key,
        value,
        score_mod=softcap if cap else None,
        block_mask=_block_mask(layout, scoring.window, query.device),
        scale=scoring.scale,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    if sinks is not None:
        out = out * torch.sigmoid(aux.lse - sinks[None, :, None].to(aux.lse.dtype))[..., None].to(out.dtype)
    return out.transpose(1, 2)


@cache
def _flex(compiled: bool) -> Callable[..., Any]:
    function: Any = torch.compile(flex_attention, dynamic=True) if compiled else flex_attention
    return function


def _block_mask(layout: TreeLayout, window: int, device: torch.device) -> BlockMask:
    """The layout's block mask, built once per layout and window."""
    if window not in layout.block_masks:
        tokens = layout.tokens
        sees = mask_function(layout.plan, window, device)
        layout.block_masks[window] = create_block_mask(sees, None, None, tokens, tokens, device=device)
    return layout.block_masks[window]


def mask_function(plan: Int[Tensor, "blocks 5"], window: int, device: torch.device) -> Callable[..., Bool[Tensor, ""]]:
    """Who sees whom, as flex_attention asks it: by row tokens."""
    segments = segments_of(plan)
    ranges = max(len(segment.context) for segment in segments) or 1
    starts, stops = (torch.zeros(len(segments), ranges, dtype=torch.int64) for _ in range(2))
    for row, segment in enumerate(segments):
        for column, (start, stop) in enumerate(segment.context):
            starts[row, column], stops[row, column] = start, stop
    lengths = torch.tensor([segment.stop - segment.start for segment in segments])
    member = torch.arange(len(segments)).repeat_interleave(lengths)
    position = position_ids(segments)
    starts, stops, member, position = (x.to(device) for x in (starts, stops, member, position))

    @no_type_check  # as above
    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (member[query] == member[key]) & (key <= query)
        for column in range(ranges):
            own = own | ((starts[member[query], column] <= key) & (key < stops[member[query], column]))
        return own & (position[query] - position[key] < window) if window else own

    return sees
