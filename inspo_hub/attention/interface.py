"""The attention function that transformers calls, its guards, and switching a model to it and back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from inspo_hub.attention.backends import AttentionShape
from inspo_hub.attention.blockwise import Scoring
from inspo_hub.attention.errors import TreeUnsupported
from inspo_hub.attention.layout import TreeLayout
from inspo_hub.attention.operator import in_compute_dtype, tree_attention
from inspo_hub.quiet import quieter

TREE_ATTENTION = "inspo_tree"
LAYOUT_ARGUMENT = "inspo_layout"
"""The keyword argument of `model(...)` under which the layout reaches every layer."""

logger = logging.getLogger(__name__)
_calls: list[AttentionCall] | None = None


class AttentionCall(NamedTuple):
    """One call of the attention function, for the start-up check."""

    module: int
    """The layer's attention module, by id."""
    shape: AttentionShape
    """What it asked for."""


def tree_attention_forward(
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 kv_heads tokens size"],
    value: Float[Tensor, "1 kv_heads tokens value_size"],
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    inspo_layout: TreeLayout | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "1 tokens heads value_size"], None]:
    """Tree attention, with the signature that transformers calls; raises `TreeUnsupported` by its guards."""
    _guard(inspo_layout, attention_mask, dropout, others)
    assert inspo_layout is not None
    if key.shape[2] != query.shape[2] or query.shape[0] != 1:
        raise TreeUnsupported(f"attention was asked for {tuple(query.shape)} queries on {tuple(key.shape)} keys")
    scoring = Scoring(
        scale=float(scaling) if scaling is not None else query.shape[-1] ** -0.5,
        softcap=float(softcap or 0.0),
        window=int(sliding_window or 0),
    )
    if _calls is not None:
        _calls.append(AttentionCall(id(module), AttentionShape.of(query, key, value, scoring)))
    if inspo_layout.writes is not None:
        inspo_layout.writes.write(module, *in_compute_dtype(key, value))
    out = tree_attention(
        query,
        key,
        value,
        layout=inspo_layout,
        **scoring._asdict(),
        sinks=s_aux,
        context=None if inspo_layout.reads is None else inspo_layout.reads.read(module),
    )
    return out, None


def _guard(layout: TreeLayout | None, mask: Tensor | None, dropout: float, others: dict[str, Any]) -> None:
    if layout is None:
        raise TreeUnsupported("the layout did not reach the attention function")
    if mask is not None:
        raise TreeUnsupported("the model brings its own attention mask")
    if dropout:
        raise TreeUnsupported(f"attention dropout is {dropout}, expected 0")
    for name in ("attention_chunk_size", "position_bias", "cache"):
        if others.get(name) is not None:
            raise TreeUnsupported(f"attention was asked for with {name}")
    if others.get("is_causal") is False:
        raise TreeUnsupported("attention is not causal")


@contextlib.contextmanager
def record_calls() -> Iterator[list[AttentionCall]]:
    """Record the attention function's calls."""
    global _calls
    previous, _calls = _calls, []
    try:
        yield _calls
    finally:
        _calls = previous


AttentionInterface.register(TREE_ATTENTION, tree_attention_forward)


class AttentionSwitch:
    """Turns a model's own attention into tree attention and back, by the configs its layers read."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.own = _configs(model)
        self.tree = self._configs_under_tree(model)
        self.is_tree = False

    @property
    def can_switch(self) -> bool:
        """False for models whose attention is code of their own."""
        return any(value == TREE_ATTENTION for _, value in self.tree)

    def require(self) -> None:
        """Raises `TreeUnsupported` where `can_switch` is False."""
        if not self.can_switch:
            raise TreeUnsupported("the model's attention is code of its own, not the registered function")

    def _configs_under_tree(self, model: PreTrainedModel) -> list[tuple[Any, str | None]]:
        with quieter("transformers.modeling_utils", logging.ERROR):  # the start-up check says it better
            model.set_attn_implementation(TREE_ATTENTION)
        tree = [(config, config._attn_implementation) for config, _ in self.own]
        _apply(self.own)
        return tree

    def use(self, *, tree: bool) -> None:
        if tree != self.is_tree:
            _apply(self.tree if tree else self.own)
            self.is_tree = tree

    @contextlib.contextmanager
    def using(self, *, tree: bool) -> Iterator[None]:
        before = self.is_tree
        self.use(tree=tree)
        try:
            yield
        finally:
            self.use(tree=before)


def _configs(model: nn.Module) -> list[tuple[Any, str | None]]:
    found: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        pending = [config] if hasattr(config, "_attn_implementation") else []
        while pending:
            current = pending.pop()
            if id(current) in found:
                continue
            found[id(current)] = current
            children = (getattr(current, name, None) for name in getattr(current, "sub_configs", {}))
            pending.extend(child for child in children if child is not None)
    return [(config, config._attn_implementation) for config in found.values()]


def _apply(values: list[tuple[Any, str | None]]) -> None:
    # Parents come first: setting one sets its sub-configs too, which then get their own values.
    for config, value in values:
        config._attn_implementation = value
