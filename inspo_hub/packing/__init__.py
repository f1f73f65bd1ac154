"""Preference pairs -> one packed batch: every path of a pair laid out once (tree) or each in a row of its own (flat).

    tree    A = prompt, B = rejected, (sep) C = chosen       path A B C scores `rejected` and `chosen_given_rejected`
                        D = chosen, (sep) E = rejected       path A D E scores `chosen` and `rejected_given_chosen`

A, B, sep and C follow each other in the row; D sep E comes after them and sees A and itself. An alternative cut to m
tokens is a shorter range of keys: its first m-1 tokens, and its last one laid out again in front of the separator.
"""

from __future__ import annotations

from inspo_hub.packing.batch import PackedBatch, PackedContext, ScoredTokens
from inspo_hub.packing.paths import Layout, context_and_response, scores_of
from inspo_hub.packing.rows import pack_pairs, packed_tokens

__all__ = [
    "Layout",
    "PackedBatch",
    "PackedContext",
    "ScoredTokens",
    "context_and_response",
    "pack_pairs",
    "packed_tokens",
    "scores_of",
]
