"""The cost model against what is really laid out and really multiplied."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from inspo_hub.attention import TreeLayout
from inspo_hub.cost import Count, Layout, ModelShape, pair_flops, pair_work
from inspo_hub.packing import PackedBatch, pack_pairs
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import SCORES, Score

COMBINATIONS = [scores for size in range(1, 5) for scores in itertools.combinations(SCORES, size)]


def pair_tokens(lengths: object, **options: object) -> Count:
    return pair_work(lengths, **options).tokens  # type: ignore[arg-type]


def packed(lengths: tuple[int, int, int], scores: tuple[Score, ...], **options: object) -> PackedBatch:
    prompt, chosen, rejected = (list(range(1, 1 + length)) for length in lengths)
    pair = PreferencePair(prompt=prompt, chosen=chosen, rejected=rejected)
    return pack_pairs([pair], scores, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["tree", "flat"])
@pytest.mark.parametrize("scores", COMBINATIONS, ids="+".join)
def test_counts_are_those_of_the_packed_batch(scores: tuple[Score, ...], layout: Layout) -> None:
    draw = np.random.default_rng(len(scores))
    for separator, limit in itertools.product((0, 3), (None, 0, 1, 2, 5)):
        lengths = draw.integers(1, 10, size=(4, 3))
        table = pair_work(lengths, scores=scores, separator=separator, max_alternative_tokens=limit, layout=layout)
        for row, one in enumerate(lengths.tolist()):
            batch = packed(
                tuple(one),
                scores,
                separator=list(range(separator)),
                max_alternative_tokens=limit,
                layout=layout,
            )
            expected = (
                batch.tokens,
                sum(int(tokens.lengths.sum()) for tokens in batch.scored.values()),
                batch.longest_path,
                _query_keys(batch),
            )
            work = pair_work(one, scores=scores, separator=separator, max_alternative_tokens=limit, layout=layout)
            assert (work.tokens, work.head_positions, work.longest_path, work.attention) == expected
            of_table = (table.tokens, table.head_positions, table.longest_path, table.attention)
            assert tuple(int(column[row]) for column in of_table) == expected


STOPPED = [scores for scores in COMBINATIONS if any("given" in score for score in scores)]


@pytest.mark.parametrize("scores", STOPPED, ids="+".join)
def test_counts_of_a_stopped_batch_are_those_of_its_two_rows(scores: tuple[Score, ...]) -> None:
    draw = np.random.default_rng(len(scores))
    for separator, limit in itertools.product((0, 3), (None, 0, 1, 2, 5)):
        lengths = draw.integers(1, 10, size=(4, 3))
        table = pair_work(
            lengths,
            scores=scores,
            separator=separator,
            max_alternative_tokens=limit,
            alternative_gradient="stopped",
        )
        for row, one in enumerate(lengths.tolist()):
            how = {"max_alternative_tokens": limit, "alternative_gradient": "stopped"}
            batch = packed(tuple(one), scores, separator=list(range(separator)), **how)
            assert batch.context is not None
            targets = _query_keys(batch)
            expected = (
                batch.context.layout.tokens + batch.input_ids.numel(),
                batch.longest_path,
                _plan_query_keys(batch.context.layout) + targets,
                batch.input_ids.numel(),
                targets,
            )
            assert batch.tokens == expected[0]
            trained = table.trained
            columns = (table.tokens, table.longest_path, table.attention, trained.tokens, trained.attention)
            assert tuple(int(column[row]) for column in columns) == expected
            work = pair_work(one, scores=scores, separator=separator, **how)  # type: ignore[arg-type]
            assert (work.tokens, work.trained.tokens, work.trained.attention) == (expected[0], *expected[3:])


def test_a_stopped_step_is_a_forward_of_all_and_two_more_of_the_responses() -> None:
    """Mean lengths of UltraFeedback give about 0.63 of the symmetric step."""
    shape = ModelShape(hidden=4096, layers=32, heads=32, kv_heads=8, intermediate=14_336, vocab=128_256, head_dim=128)
    how = {"scores": ("chosen_given_rejected", "rejected_given_chosen"), "head_recomputed": False}
    full = pair_flops(shape, (180, 362, 362), **how)  # type: ignore[arg-type]
    stopped = pair_flops(shape, (180, 362, 362), alternative_gradient="stopped", **how)  # type: ignore[arg-type]
    tokens, trained = 180 + 4 * 362, 2 * (1 + 362)
    assert stopped.body == 2 * shape.active_params * (tokens + 2 * trained)
    assert stopped.head == full.head
    assert 0.60 < stopped.total / full.total < 0.66
    for gradient in ("full", "stopped"):
        forward = pair_flops(shape, (180, 362, 362), training=False, alternative_gradient=gradient, **how)  # type: ignore[arg-type]
        assert forward.body == 2 * shape.active_params * tokens


def _query_keys(batch: PackedBatch) -> int:
    """Counted one by one: every query and the keys it sees."""
    if batch.layout is None:
        sizes = [rows * columns for rows, columns in batch.rectangles]
        parts = zip(batch.position_ids[0].split(sizes), batch.rectangles, strict=True)
        lengths = [last + 1 for part, shape in parts for last in part.view(shape).amax(1).tolist()]
        return sum(length * (length + 1) // 2 for length in lengths)
    return _plan_query_keys(batch.layout)


def _plan_query_keys(layout: TreeLayout) -> int:
    seen = 0
    for first_query, last_query, first_key, last_key, distance in layout.plan.tolist():
        for query in range(first_query, last_query):
            seen += last_key - first_key if distance else query - first_query + 1
    return seen


def test_a_limit_per_row() -> None:
    lengths = np.array([[3, 8, 9], [3, 8, 9]])
    tokens = pair_tokens(lengths, scores=SCORES, max_alternative_tokens=np.array([2, 100]))
    assert tokens.tolist() == [
        pair_tokens((3, 8, 9), scores=SCORES, max_alternative_tokens=2),
        pair_tokens((3, 8, 9), scores=SCORES),
    ]


def test_the_design_s_own_formulas() -> None:
    x, w, rejected = 7, 11, 13
    pair = (x, w, rejected)
    symmetric: tuple[Score, ...] = ("chosen_given_rejected", "rejected_given_chosen")
    assert pair_tokens(pair, scores=symmetric) == x + 2 * w + 2 * rejected
    assert pair_tokens(pair, scores=SCORES) == x + 2 * w + 2 * rejected, "plain scores are free"
    assert pair_tokens(pair, scores=("chosen", "rejected")) == x + w + rejected
    assert pair_tokens(pair, scores=("rejected", "chosen_given_rejected")) == x + w + rejected
    assert pair_tokens(pair, scores=symmetric, layout="flat") == 2 * x + 2 * w + 2 * rejected


def test_a_window_counts_distance_along_the_path() -> None:
    lengths, window = (5, 4, 6), 3
    work = pair_work(lengths, scores=("chosen", "rejected"), window=window)
    paths = {"rejected": 5 + 6, "chosen": 5 + 4}
    expected = sum(min(position + 1, window) for position in range(paths["rejected"]))
    expected += sum(min(position + 1, window) for position in range(5, paths["chosen"]))
    assert work.windowed_attention == expected
    assert work.attention > expected


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_flops_of_the_matrix_products_are_those_that_torch_counts(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "llama":
        config = LlamaConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=40,
            attn_implementation="eager",
        )
        model, shape = LlamaForCausalLM(config), ModelShape.from_config(config.to_dict())
        assert (shape.kv_heads, shape.gated) == (2, True)
    else:
        config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=40, attn_implementation="eager")
        model, shape = GPT2LMHeadModel(config), ModelShape.from_config(config.to_dict())
        assert (shape.kv_heads, shape.gated) == (4, False)
    prompt, response = 6, 9
    ids = torch.arange(prompt + response)[None]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    # A plain sequence as a pair whose only score is `chosen`; eager attention multiplies the masked half as well, and
    # the model's own head runs on every position.
    flops = pair_flops(shape, (prompt, response, 1), scores=("chosen",), training=False)
    tokens = prompt + response
    dense_attention = 4 * shape.layers * shape.heads * shape.head_dim * tokens**2
    every_head = flops.head * tokens / response
    assert flops.attention == dense_attention * (tokens + 1) / (2 * tokens)
    # Llama computes its rotary angles with a matrix product too: a few hundred FLOPs.
    assert counter.get_total_flops() == pytest.approx(flops.body + dense_attention + every_head, rel=2e-3)


def test_training_costs_three_forwards_and_checkpointing_a_fourth() -> None:
    shape = ModelShape(
        hidden=8, layers=2, heads=2, kv_heads=1, intermediate=16, vocab=32, head_dim=4, window=3, windowed_layers=1
    )
    forward = pair_flops(shape, (5, 6, 7), scores=SCORES, training=False)
    trained = pair_flops(shape, (5, 6, 7), scores=SCORES, head_recomputed=False)
    checked = pair_flops(shape, (5, 6, 7), scores=SCORES, checkpointing=True)
    assert trained.total == 3 * forward.total
    assert (checked.body, checked.attention, checked.head) == (
        4 * forward.body,
        4 * forward.attention,
        4 * forward.head,
    )


def test_shapes_of_configs() -> None:
    mistral = {
        "model_type": "mistral",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 100,
        "sliding_window": 16,
    }
    assert ModelShape.from_config(mistral).windowed_layers == 4
    mixed = mistral | {"layer_types": ["sliding_attention", "full_attention"] * 2, "head_dim": 32}
    assert (ModelShape.from_config(mixed).windowed_layers, ModelShape.from_config(mixed).head_dim) == (2, 32)
    off = mistral | {"use_sliding_window": False}
    assert (ModelShape.from_config(off).window, ModelShape.from_config(off).windowed_layers) == (None, 0)
    assert ModelShape.from_config(mistral, body_params=7).active_params == 7


def test_the_cost_model_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from inspo_hub.cost import pair_work; assert pair_work((1, 2, 3), scores=('chosen',)).tokens == 3;"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
