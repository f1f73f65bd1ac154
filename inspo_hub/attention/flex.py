"""Tree attention by torch's `flex_attention`: what is left on a GPU for soft-capping without a kernel that has it.

Its block mask is built anew for each layout, and it needs `torch.compile` to be fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, no_type_check

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from inspo_hub.attention.blockwise import Scoring
from inspo_hub.attention.layout import TreeLayout, position_ids, segments_of


def forward(
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 kv_heads keys size"],
    value: Float[Tensor, "1 kv_heads keys value_size"],
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
        block_mask=block_mask(layout, scoring.window, query.device),
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


def block_mask(layout: TreeLayout, window: int, device: torch.device) -> BlockMask:
    """The layout's block mask, built once per layout and window."""
    if window not in layout.block_masks:
        tokens = layout.tokens
        sees = mask_function(layout, window, device)
        keys = layout.before + tokens
        layout.block_masks[window] = create_block_mask(
            sees, None, None, tokens, keys, device=device, _compile=device.type == "cuda"
        )
    return layout.block_masks[window]


def mask_function(layout: TreeLayout, window: int, device: torch.device) -> Callable[..., Bool[Tensor, ""]]:
    """Who sees whom, as flex_attention asks it: by row tokens, keys of another row in front."""
    segments, before = segments_of(layout.plan), layout.before
    ranges = max(len(segment.context) for segment in segments) or 1
    starts, stops, shifts = (torch.zeros(len(segments), ranges, dtype=torch.int64) for _ in range(3))
    for row, segment in enumerate(segments):
        passed = 0
        for column, (start, stop) in enumerate(segment.context):
            starts[row, column], stops[row, column], shifts[row, column] = start, stop, passed - start
            passed += stop - start
    lengths = torch.tensor([segment.stop - segment.start for segment in segments])
    member = torch.arange(len(segments)).repeat_interleave(lengths)
    position = position_ids(segments)
    starts, stops, shifts, member, position = (x.to(device) for x in (starts, stops, shifts, member, position))

    @no_type_check  # as above
    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = (key - before).clamp_min(0)  # the token that the key belongs to, where it is one of the row's own
        own = (key >= before) & (member[query] == member[row]) & (row <= query)
        seen = own & (query - row < window) if window else own
        for column in range(ranges):
            start, stop, shift = (x[member[query], column] for x in (starts, stops, shifts))
            within = (start <= key) & (key < stop)
            seen = seen | (within & (position[query] - key - shift < window) if window else within)
        return seen

    return sees
