"""Who sees whom: one registered attention function over the paths of a packed row."""

from __future__ import annotations

from inspo_hub.attention.backends import AttentionShape, backends_for, use_backend
from inspo_hub.attention.choosing import measure_backends
from inspo_hub.attention.context import ContextKeys
from inspo_hub.attention.errors import TreeUnsupported
from inspo_hub.attention.interface import LAYOUT_ARGUMENT, TREE_ATTENTION, AttentionCall, AttentionSwitch, record_calls
from inspo_hub.attention.layout import KeyGather, Segment, TreeLayout, gather_keys, lay_out, position_ids, segments_of
from inspo_hub.attention.operator import tree_attention

__all__ = [
    "LAYOUT_ARGUMENT",
    "TREE_ATTENTION",
    "AttentionCall",
    "AttentionShape",
    "AttentionSwitch",
    "ContextKeys",
    "KeyGather",
    "Segment",
    "TreeLayout",
    "TreeUnsupported",
    "backends_for",
    "gather_keys",
    "lay_out",
    "measure_backends",
    "position_ids",
    "record_calls",
    "segments_of",
    "tree_attention",
    "use_backend",
]
