"""What a pair costs: tokens, attention, head positions and FLOPs, from lengths alone. Imports neither torch nor numpy.

One model for whoever has to know before it happens: dealing pairs to processes, micro-batches under a token budget, a
plan's time and memory. Lengths are ints or integer arrays `(rows,)` throughout; results have the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from inspo_hub.views import AlternativeGradient, Score

if TYPE_CHECKING:
    import numpy as np

Layout = Literal["tree", "flat"]
Count = Any
"""An int or an integer array: only operators are used that Python numbers and numpy arrays share."""
_Run = tuple[Count, Count, Count]
"""Tokens of a run, tokens of the context before it, and 1 where the run is laid out, else 0."""


@dataclass(frozen=True, kw_only=True)
class PairWork:
    """What a pair lays out."""

    tokens: Count
    """Tokens in the row (or rows): separators included, padding not."""
    attention: Count
    """Query-key pairs that an attention layer without a window looks at, a token itself included."""
    windowed_attention: Count
    """The same for a layer with the sliding window that was asked for."""
    head_positions: Count
    """Positions that the LM head runs on: one per scored token."""
    longest_path: Count
    """Tokens of the longest path: what a context window must hold."""
    trained: RunWork
    """What a training runs backward through: all of it, or the responses given an alternative."""


@dataclass(frozen=True, kw_only=True)
class RunWork:
    """Tokens, attention and attention under a window of some runs, as in `PairWork`."""

    tokens: Count
    attention: Count
    windowed_attention: Count


def pair_work(
    lengths: Sequence[Count] | np.ndarray,
    *,
    scores: Sequence[Score],
    separator: int = 0,
    max_alternative_tokens: Count | None = None,
    layout: Layout = "tree",
    window: int | None = None,
    alternative_gradient: AlternativeGradient = "full",
) -> PairWork:
    """The work of pairs whose `scores` are laid out: counts what `pack_pairs` lays out, for one pair or for many.

    Args:
        lengths: prompt, chosen and rejected tokens of a pair, or an array `(rows, 3)`.
        scores: the scores that are laid out.
        separator: tokens between an alternative and the response that follows it.
        max_alternative_tokens: limit of an alternative, or one limit per row; None where there is none.
        layout: `tree`, or `flat` where every path repeats what it shares with another.
        window: sliding window in tokens along the path; None where layers see everything.
        alternative_gradient: `stopped` where only responses that are scored given an alternative are trained.
    """
    runs = _runs(lengths, scores, separator, max_alternative_tokens, flat=layout == "flat")
    _, chosen, rejected = _columns(lengths)
    longest = runs[0][0] * 0
    for own, context, there in runs:
        longest = _greatest(longest, (own + context) * there)
    everything = trained = _run_work(runs, window)
    if alternative_gradient == "stopped":
        assert layout == "tree", "the gradient can stop in tree packing only"
        targets, repeated = _targets(lengths, scores, separator, max_alternative_tokens)
        runs, trained = [*runs, *repeated], _run_work(targets, window)
        everything = _run_work(runs, window)
    return PairWork(
        **vars(everything),
        head_positions=sum(chosen if score.startswith("chosen") else rejected for score in scores),
        longest_path=longest,
        trained=trained,
    )


def _run_work(runs: Sequence[_Run], window: int | None) -> RunWork:
    def seen(width: int | None) -> Count:
        return sum((_seen(own + context, width) - _seen(context, width)) * there for own, context, there in runs)

    tokens = sum(own * there for own, _, there in runs)
    return RunWork(tokens=tokens, attention=seen(None), windowed_attention=seen(window))


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The numbers of a decoder that its cost depends on."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    head_dim: int
    gated: bool = True
    """Whether the MLP has a gate, hence three matrices (Llama and its kin), not two (GPT-2, GPT-NeoX)."""
    window: int | None = None
    windowed_layers: int = 0
    body_params: int | None = None
    """Parameters that a token meets in the decoder layers; None: counted from the shape, for models without experts."""

    @property
    def active_params(self) -> int:
        """Matrix parameters of the decoder layers that one token meets: no embeddings, no head, no norms."""
        if self.body_params is not None:
            return self.body_params
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + (3 if self.gated else 2) * self.hidden * self.intermediate)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, body_params: int | None = None) -> ModelShape:
        """The shape that a `config.json` describes; models with experts need `body_params` (active ones)."""
        get = _reader(config)
        hidden, heads, layers = int(get("hidden_size")), int(get("num_attention_heads")), int(get("num_hidden_layers"))
        types = config.get("layer_types") or ()
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        everywhere = layers if window and not types else 0
        return cls(
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=int(get("num_key_value_heads") or heads),
            intermediate=int(get("intermediate_size") or 4 * hidden),
            vocab=int(get("vocab_size")),
            head_dim=int(config.get("head_dim") or hidden // heads),
            gated=config.get("model_type") not in _PLAIN_MLP,
            window=window,
            windowed_layers=sum(kind == "sliding_attention" for kind in types) or everywhere,
            body_params=body_params,
        )


@dataclass(frozen=True, kw_only=True)
class PairFlops:
    """Floating-point operations of a pair; a multiplication and its addition are two."""

    body: Count
    """Matrix products of the decoder layers."""
    attention: Count
    """Scores and weighted sums of all layers."""
    head: Count
    """The LM head on the scored positions."""

    @property
    def total(self) -> Count:
        return self.body + self.attention + self.head


def pair_flops(
    shape: ModelShape,
    lengths: Sequence[Count] | np.ndarray,
    *,
    scores: Sequence[Score],
    separator: int = 0,
    max_alternative_tokens: Count | None = None,
    layout: Layout = "tree",
    training: bool = True,
    checkpointing: bool = False,
    head_recomputed: bool = True,
    alternative_gradient: AlternativeGradient = "full",
) -> PairFlops:
    """FLOPs of the pair's forward, and with `training` of its backward, counted as two forwards (arXiv:2001.08361).

    `checkpointing` adds a forward of the layers, `head_recomputed` one of the head. Norms, rotations, activations and
    the softmax are left out: they are bound by memory, and small.
    """
    work = pair_work(
        lengths,
        scores=scores,
        separator=separator,
        max_alternative_tokens=max_alternative_tokens,
        layout=layout,
        window=shape.window,
        alternative_gradient=alternative_gradient,
    )
    again = training * (2 + checkpointing)
    head_passes = 1 + training * (2 + head_recomputed)
    full, windowed = shape.layers - shape.windowed_layers, shape.windowed_layers
    forward = full * work.attention + windowed * work.windowed_attention
    backward = (full * work.trained.attention + windowed * work.trained.windowed_attention) * again
    return PairFlops(
        body=2 * shape.active_params * (work.tokens + work.trained.tokens * again),
        attention=4 * shape.heads * shape.head_dim * (forward + backward),
        head=2 * shape.hidden * shape.vocab * work.head_positions * head_passes,
    )


_PLAIN_MLP = {"gpt2", "gpt_neox", "opt", "phi", "starcoder2", "falcon", "bloom"}
_ALIASES = {"hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}


def _reader(config: Mapping[str, Any]) -> Callable[[str], Any]:
    """Reads a key of a config, under its GPT-2 name where it has only that."""
    return lambda key: config[key] if key in config else config.get(_ALIASES.get(key, key))


def _columns(lengths: Sequence[Count] | np.ndarray) -> tuple[Count, Count, Count]:
    """Prompt, chosen and rejected lengths, of one pair or of each row."""
    table = lengths.T if getattr(lengths, "ndim", 1) == 2 else lengths  # type: ignore[union-attr]
    prompt, chosen, rejected = table
    return prompt, chosen, rejected


def _runs(
    lengths: Sequence[Count] | np.ndarray, scores: Sequence[Score], separator: int, limit: Count | None, *, flat: bool
) -> list[_Run]:
    """The runs of a pair, as `pack_pairs` lays them out."""
    prompt, chosen, rejected = _columns(lengths)
    chains: tuple[tuple[Count, Score, Count, Score], ...] = (
        (rejected, "rejected", chosen, "chosen_given_rejected"),
        (chosen, "chosen", rejected, "rejected_given_chosen"),
    )
    runs: list[_Run] = []
    for first, plain, second, conditioned in chains:
        if plain not in scores and conditioned not in scores:
            continue
        # The first chain carries the prompt, the second sees it; flat, every row carries it.
        head, context = (prompt, 0) if flat or not runs else (prompt * 0, prompt)
        if conditioned not in scores:
            runs.append((head + first, context, 1))
            continue
        kept = first if limit is None else _least(first, limit)
        tail = separator + second
        if plain not in scores:
            runs.append((head + kept + tail, context, 1))
            continue
        # Both are scored: one run where the alternative is whole; where it is cut, its last token starts a branch.
        cut = 1 * (kept < first)
        last = _least(kept, 1)
        runs.append((head + first + tail, context, 1 - cut))
        runs.append((head + first, context, cut))
        runs.append((prompt + kept + tail, 0, cut) if flat else (last + tail, prompt + kept - last, cut))
    assert runs, "no score is laid out"
    return runs


def _targets(
    lengths: Sequence[Count] | np.ndarray, scores: Sequence[Score], separator: int, limit: Count | None
) -> tuple[list[_Run], list[_Run]]:
    """Runs of the responses given an alternative, each with the token that predicts its first one, as
    `packing.stopped` lays them out; and those tokens where they are in the context too: the ends of prompts."""
    prompt, chosen, rejected = _columns(lengths)
    targets: list[_Run] = []
    repeated: list[_Run] = []
    for score, alternative, response in (
        ("chosen_given_rejected", rejected, chosen),
        ("rejected_given_chosen", chosen, rejected),
    ):
        if score in scores:
            between = separator + (alternative if limit is None else _least(alternative, limit))
            targets.append((1 + response, prompt + between - 1, 1))
            repeated.append((prompt * 0 + 1, prompt - 1, 1 * (between == 0)))
    assert targets, "no response is scored given an alternative"
    return targets, repeated


def _seen(length: Count, window: int | None) -> Count:
    """Query-key pairs of a plain causal sequence whose queries see at most `window` keys."""
    if window is None:
        return length * (length + 1) // 2
    ramp = _least(length, window)
    return ramp * (ramp + 1) // 2 + (length - ramp) * window


def _least(left: Count, right: Count) -> Count:
    return right + (left - right) * (left < right)


def _greatest(left: Count, right: Count) -> Count:
    return right + (left - right) * (left > right)
