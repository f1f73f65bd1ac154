"""Tree attention against the line it stands for: softmax(q kᵀ · scale + tree mask) v, with a mask of the whole row."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from inspo_hub.attention import (
    KeyGather,
    Segment,
    backends,
    blockwise,
    flex,
    gather_keys,
    lay_out,
    position_ids,
    segments_of,
    tree_attention,
    varlen,
)
from inspo_hub.attention.blocks import TILE_QUERIES, blocks_of, visible
from inspo_hub.attention.blockwise import Saved, Scoring
from inspo_hub.attention.context import LayerContext

# A trunk and a branch; a trunk, a cut alternative and a branch with two contexts; a lone run; a branch of one token.
ROW = (
    Segment(0, 20),
    Segment(20, 31, ((0, 6),)),
    Segment(31, 45),
    Segment(45, 50, ((31, 41),)),
    Segment(50, 57, ((31, 33),)),
    Segment(57, 63, ((31, 33), (50, 53))),
    Segment(63, 66),
    Segment(66, 67, ((63, 65),)),
)
LONG_ROW = (Segment(0, 700), Segment(700, 1000, ((0, 300),)), Segment(1000, 1010, ((0, 300), (700, 720))))
SCORINGS = {
    "plain": Scoring(0.3, 0.0, 0),
    "window 1": Scoring(0.3, 0.0, 1),
    "window 4": Scoring(0.3, 0.0, 4),
    "window 12": Scoring(0.3, 0.0, 12),
    "soft-cap": Scoring(0.3, 2.0, 0),
    "soft-cap and window": Scoring(0.3, 2.0, 5),
}


def tree_mask(segments: tuple[Segment, ...], window: int) -> Tensor:
    """Who sees whom, token by token, from the definition of a segment."""
    sees = torch.zeros(segments[-1].stop, segments[-1].stop, dtype=torch.bool)
    for segment in segments:
        for query in range(segment.start, segment.stop):
            path = [k for start, stop in segment.context for k in range(start, stop)]
            path += range(segment.start, query + 1)
            sees[query, path[-window:]] = True  # window 0: all of it
    return sees


def dense(q: Tensor, k: Tensor, v: Tensor, sees: Tensor, scoring: Scoring, sinks: Tensor | None = None) -> Tensor:
    """`(1, heads, tokens, size)` -> `(1, tokens, heads, size)`."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = q @ k.mT * scoring.scale
    if scoring.softcap:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    scores = scores.masked_fill(~sees, -torch.inf)
    if sinks is not None:
        column = sinks[None, :, None, None].expand(1, -1, scores.shape[2], 1)
        scores = torch.cat([scores, column], dim=-1)
    return (scores.softmax(-1)[..., : k.shape[2]] @ v).transpose(1, 2)


def tensors(
    tokens: int, *, heads: int = 4, kv_heads: int = 2, size: int = 8, value_size: int = 8, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Random query, key, value (as transformers lays them out in memory) and output gradient."""
    generator = torch.Generator().manual_seed(0)

    def random(count: int, width: int) -> Tensor:
        return torch.randn(1, tokens, count, width, generator=generator, dtype=torch.float64).to(dtype)

    q, k, v = random(heads, size), random(kv_heads, size), random(kv_heads, value_size)
    return *(x.transpose(1, 2).requires_grad_() for x in (q, k, v)), random(heads, value_size)


def assert_equal(segments: tuple[Segment, ...], scoring: Scoring, *, sinks: Tensor | None = None, **sizes: Any) -> None:
    """Output and every gradient equal the dense line in float64."""
    q, k, v, grad = tensors(segments[-1].stop, dtype=torch.float64, **sizes)
    inputs = [q, k, v] + ([] if sinks is None else [sinks])
    expected = dense(q, k, v, tree_mask(segments, scoring.window), scoring, sinks)
    actual = tree_attention(q, k, v, layout=lay_out(segments), sinks=sinks, **scoring._asdict())
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_equals_the_dense_line(scoring: Scoring, kv_heads: int) -> None:
    assert_equal(ROW, scoring, kv_heads=kv_heads)


@pytest.mark.parametrize("sizes", [(12, 8), (8, 12), (5, 5)], ids=str)
def test_values_may_be_narrower_or_wider_than_keys(sizes: tuple[int, int]) -> None:
    assert_equal(ROW, SCORINGS["plain"], size=sizes[0], value_size=sizes[1])


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
def test_sinks_take_weight_and_get_a_gradient(scoring: Scoring) -> None:
    sinks = torch.tensor([-1.0, 0.0, 1.0, 2.5], dtype=torch.float64, requires_grad=True)
    assert_equal(ROW, scoring, sinks=sinks)


@pytest.mark.parametrize("window", [0, 40, TILE_QUERIES, 290, 650])
def test_long_segments_are_cut_into_tiles_without_a_seam(window: int) -> None:
    assert_equal(LONG_ROW, Scoring(0.3, 0.0, window), heads=2, kv_heads=1)
    assert_equal(LONG_ROW, Scoring(0.3, 3.0, window), heads=2, kv_heads=1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
def test_lower_precisions_are_near_the_float64_line(scoring: Scoring, dtype: torch.dtype, tolerance: float) -> None:
    q, k, v, grad = tensors(ROW[-1].stop, dtype=dtype)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = dense(*exact, tree_mask(ROW, scoring.window), scoring)
    actual = tree_attention(q, k, v, layout=lay_out(ROW), **scoring._asdict())
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance * float(expected.detach().abs().max()))
    wanted = torch.autograd.grad(expected, exact, grad.double())
    largest = max(float(x.abs().max()) for x in wanted)
    for ours, theirs in zip(torch.autograd.grad(actual, (q, k, v), grad), wanted, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("window", [0, 1, 4, 12, 300])
@pytest.mark.parametrize("materialised", [False, True])
@pytest.mark.parametrize("segments", [ROW, LONG_ROW], ids=["short", "long"])
def test_blocks_cover_each_visible_pair_once(segments: tuple[Segment, ...], window: int, materialised: bool) -> None:
    tokens = segments[-1].stop
    times = torch.zeros(tokens, tokens, dtype=torch.int64)
    opened = torch.zeros(tokens, dtype=torch.int64)
    for block in blocks_of(lay_out(segments).plan.tolist(), window=window, materialised=materialised):
        area = times[block.q0 : block.q1, block.k0 : block.k1]
        if block.kind == "causal":
            assert area.shape[0] == area.shape[1]
            area += torch.ones_like(area).tril()
        elif block.kind == "full":
            area += 1
        else:
            sees = visible(block, window=window, device=times.device)
            area += 1 if sees is None else sees
        if block.opens:
            assert not opened[block.q0 : block.q1].any()
        else:
            assert opened[block.q0 : block.q1].all(), "a block is merged into queries that nothing has opened"
        opened[block.q0 : block.q1] += block.opens
    assert torch.equal(times, tree_mask(segments, window).long())


def test_plan_keeps_the_segments() -> None:
    assert tuple(segments_of(lay_out(ROW).plan)) == ROW
    positions = position_ids(ROW).tolist()
    assert positions[:26] == [*range(20), *range(6, 12)]
    assert positions[57:63] == [*range(5, 11)]


@pytest.mark.parametrize("segments", [ROW, LONG_ROW], ids=["short", "long"])
def test_gathered_keys_are_each_segments_path(segments: tuple[Segment, ...]) -> None:
    gather = gather_keys(segments)
    keys, bounds = gather.key_index.tolist(), gather.key_bounds.tolist()
    for segment, (start, stop) in zip(segments, pairwise(bounds), strict=True):
        path = [k for first, last in segment.context for k in range(first, last)]
        assert keys[start:stop] == path + list(range(segment.start, segment.stop))
    assert gather.query_bounds.tolist() == [0, *(segment.stop for segment in segments)]
    assert gather.longest.tolist() == [
        max(s.stop - s.start for s in segments),
        max(s.longest_position for s in segments),
    ]


@pytest.mark.parametrize("segments", [ROW, LONG_ROW], ids=["short", "long"])
def test_levels_add_every_gathered_key_once_and_no_row_token_twice(segments: tuple[Segment, ...]) -> None:
    gather = gather_keys(segments)
    used = torch.cat([gather.own_index, gather.repeat_key])
    assert used.sort().values.tolist() == list(range(len(gather.key_index)))
    assert torch.equal(gather.key_index[gather.own_index], torch.arange(segments[-1].stop))
    assert torch.equal(gather.key_index[gather.repeat_key], gather.repeat_row)
    for start, stop in pairwise(gather.repeat_bounds.tolist()):
        level = gather.repeat_row[start:stop]
        assert len(level.unique()) == len(level)
    assert gather.repeat_bounds[-1] == len(gather.repeat_row)


class PlainVarlen:
    """What a variable-length kernel computes: sequence by sequence, causal and windowed, aligned bottom-right."""

    def _sequences(self, bounds: varlen.Bounds) -> Any:
        queries, keys = pairwise(bounds.queries.tolist()), pairwise(bounds.keys.tolist())
        for (q0, q1), (k0, k1) in zip(queries, keys, strict=True):
            assert q1 - q0 <= bounds.longest_queries
            assert k1 - k0 <= bounds.longest_keys
            yield slice(q0, q1), slice(k0, k1)

    def _scores(self, q: Tensor, k: Tensor, scoring: Scoring) -> tuple[Tensor, Tensor]:
        groups = q.shape[1] // k.shape[1]
        raw = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(groups, dim=1)) * scoring.scale
        scores = torch.tanh(raw / scoring.softcap) * scoring.softcap if scoring.softcap else raw
        distance = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))
        sees = (distance >= 0) & ((distance < scoring.window) if scoring.window else True)
        return scores.masked_fill(~sees, -torch.inf), (1 - (scores / scoring.softcap) ** 2 if scoring.softcap else None)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, bounds: varlen.Bounds, scoring: Scoring
    ) -> tuple[Tensor, Tensor]:
        out, lse = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
        for q, k in self._sequences(bounds):
            scores, _ = self._scores(query[q], key[k], scoring)
            lse[:, q] = scores.logsumexp(-1)
            shared = value[k].repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            out[q] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), shared)
        return out, lse

    def backward(
        self, grad_out: Tensor, saved: varlen.PackedSaved, bounds: varlen.Bounds, scoring: Scoring
    ) -> tuple[Tensor, ...]:
        groups = saved.query.shape[1] // saved.key.shape[1]
        dq, dk, dv = (torch.zeros_like(x) for x in saved[:3])
        for q, k in self._sequences(bounds):
            scores, slope = self._scores(saved.query[q], saved.key[k], scoring)
            weights = torch.exp(scores - saved.lse[:, q, None])
            shared_key, shared_value = (x[k].repeat_interleave(groups, dim=1) for x in (saved.key, saved.value))
            inner = torch.einsum("qhd,khd->hqk", grad_out[q], shared_value)
            inner = inner - (grad_out[q] * saved.out[q]).sum(-1).T[..., None]
            d_scores = weights * inner * scoring.scale * (1 if slope is None else slope)
            dq[q] = torch.einsum("hqk,khd->qhd", d_scores, shared_key)
            for total, part in (
                (dk, torch.einsum("hqk,qhd->khd", d_scores, saved.query[q])),
                (dv, torch.einsum("hqk,qhd->khd", weights, grad_out[q])),
            ):
                total[k] = part.unflatten(1, (-1, groups)).sum(2)
        return dq, dk, dv


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
@pytest.mark.parametrize("sizes", [(8, 8), (12, 10)], ids=str)
@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
def test_one_variable_length_launch_equals_the_dense_line(
    scoring: Scoring, sizes: tuple[int, int], sinks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs on a GPU, with the kernel emulated: gathering, bounds, padding, and sums over paths are ours."""
    monkeypatch.setattr(backends, "kernel_for", lambda *_args: PlainVarlen())
    q, k, v, grad = tensors(ROW[-1].stop, size=sizes[0], value_size=sizes[1], dtype=torch.float64)
    sink = torch.tensor([-1.0, 0.0, 1.0, 2.5], dtype=torch.float64, requires_grad=True) if sinks else None
    inputs = [q, k, v] + ([] if sink is None else [sink])
    layout = lay_out(ROW)
    layout = type(layout)(plan=layout.plan, gather=gather_keys(ROW))
    expected = dense(q, k, v, tree_mask(ROW, scoring.window), scoring, sink)
    actual = tree_attention(q, k, v, layout=layout, sinks=sink, **scoring._asdict())
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
@pytest.mark.parametrize("kernel", ["blocks", "one launch"])
def test_a_context_of_another_row_is_seen_and_gets_no_gradient(
    scoring: Scoring, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "one launch":
        monkeypatch.setattr(backends, "kernel_for", lambda *_args: PlainVarlen())
    before, segments = 40, (Segment(0, 9, ((0, 12), (30, 37))), Segment(9, 10, ((3, 4),)), Segment(10, 21, ((12, 40),)))
    stopped = torch.tensor([0, 9, 10])
    q, k, v, grad = tensors(before + 21, dtype=torch.float64)
    context = LayerContext(k[:, :, :before].detach(), v[:, :, :before].detach(), stopped)
    own = [x[:, :, before:].detach().requires_grad_() for x in (q, k, v)]
    layout = lay_out(segments, before=before)
    layout = type(layout)(plan=layout.plan, gather=gather_keys(segments, before=before))
    assert layout.before == before
    sees = torch.zeros(21, before + 21, dtype=torch.bool)
    for segment in segments:
        for query in range(segment.start, segment.stop):
            path = [key for start, stop in segment.context for key in range(start, stop)]
            path += range(before + segment.start, before + query + 1)
            sees[query, path[-scoring.window :]] = True
    trained = torch.ones(21, 1, dtype=torch.bool).index_fill(0, stopped, False)
    keys, values = (
        torch.cat([kept, torch.where(trained, x, x.detach())], 2)
        for kept, x in ((context.key, own[1]), (context.value, own[2]))
    )
    expected = dense(own[0], keys, values, sees, scoring)
    actual = tree_attention(*own, layout=layout, context=context, **scoring._asdict())
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)
    wanted = torch.autograd.grad(expected, own, grad[:, before:])
    for ours, theirs in zip(torch.autograd.grad(actual, own, grad[:, before:]), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)
    mask = flex.mask_function(layout, scoring.window, torch.device("cpu"))
    rows, columns = torch.arange(21)[:, None].expand(-1, before + 21), torch.arange(before + 21).expand(21, -1)
    assert torch.equal(mask(torch.tensor(0), torch.tensor(0), rows, columns), sees)


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
def test_flex_mask_is_the_tree_mask(scoring: Scoring) -> None:
    sees = flex.mask_function(lay_out(ROW), scoring.window, torch.device("cpu"))
    index = torch.arange(ROW[-1].stop)
    zero = torch.tensor(0)
    asked = sees(zero, zero, index[:, None].expand(-1, len(index)), index[None].expand(len(index), -1))
    assert torch.equal(asked, tree_mask(ROW, scoring.window))


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_forward_equals_the_dense_line(sinks: bool) -> None:
    """Forward only: torch has no backward of flex_attention on a CPU."""
    scoring = SCORINGS["soft-cap and window"]
    q, k, v, _ = (x.detach() for x in tensors(ROW[-1].stop, size=16, value_size=16, dtype=torch.float32))
    sink = torch.tensor([-1.0, 0.0, 1.0, 2.5]) if sinks else None
    actual = flex.forward(q, k, v, sink, lay_out(ROW), scoring)
    expected = dense(q, k, v, tree_mask(ROW, scoring.window), scoring, sink)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


class Allocations(TorchDispatchMode):
    """The shape of every tensor that an operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.shapes.append(tuple(value.shape))
        return result


@pytest.mark.parametrize("scoring", [Scoring(0.3, 0.0, 0), Scoring(0.3, 0.0, 300), Scoring(0.3, 2.0, 0)], ids=str)
def test_nothing_grows_with_the_row_squared(scoring: Scoring) -> None:
    rows = [Segment(start, start + 400) for start in range(0, 4000, 400)]
    q, k, v, grad = tensors(4000, heads=1, kv_heads=1, dtype=torch.float32)
    with Allocations() as seen:
        # Inside, where the operator's own allocations are: the dispatcher shows an operator as one call.
        out, lse = blockwise.forward(q.detach(), k.detach(), v.detach(), lay_out(rows).plan, scoring)
        saved = Saved(q.detach(), k.detach(), v.detach(), out, lse)
        blockwise.backward(grad, saved, lay_out(rows).plan, scoring)
    assert seen.shapes
    # Scores are materialised tile by tile at most: TILE_QUERIES queries against one segment's keys.
    assert max(torch.Size(shape).numel() for shape in seen.shapes) <= max(4000 * 8, TILE_QUERIES * 400)


def test_a_gather_survives_its_way_through_the_operator() -> None:
    gather = gather_keys(ROW)
    again = KeyGather.of(gather.tensors())
    assert all(torch.equal(a, b) for a, b in zip(gather.tensors(), again.tensors(), strict=True))


@pytest.mark.parametrize("window", [0, 30])
def test_torchs_flash_kernel_is_called_as_this_torch_declares_it(window: int) -> None:
    """On tensors that are on a GPU by name only: arguments and shapes are checked, nothing is computed."""
    scoring = Scoring(0.1, 0.0, window)
    with FakeTensorMode():
        query, key, value = (
            torch.empty(tokens, heads, 64, dtype=torch.bfloat16, device="cuda")
            for tokens, heads in ((100, 8), (150, 2), (150, 2))
        )
        bounds = (torch.empty(4, dtype=torch.int32, device="cuda") for _ in range(2))
        where = varlen.Bounds(*bounds, 60, 90)
        out, lse = varlen.TorchFlash().forward(query, key, value, where, scoring)
        grads = varlen.TorchFlash().backward(
            torch.empty_like(out), varlen.PackedSaved(query, key, value, out, lse), where, scoring
        )
    assert out.shape == query.shape
    assert (lse.shape, lse.dtype) == ((8, 100), torch.float32)
    assert [x.shape for x in grads] == [query.shape, key.shape, value.shape]


@pytest.mark.gpu
@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gpu_equals_the_dense_line(scoring: Scoring, dtype: torch.dtype) -> None:
    q, k, v, grad = tensors(LONG_ROW[-1].stop, size=64, value_size=64, dtype=dtype)
    ours = [x.detach().cuda().requires_grad_() for x in (q, k, v)]
    exact = [x.detach().double().cuda().requires_grad_() for x in (q, k, v)]
    layout = lay_out(LONG_ROW).to("cuda")
    actual = tree_attention(*ours, layout=layout, **scoring._asdict())
    expected = dense(*exact, tree_mask(LONG_ROW, scoring.window).cuda(), scoring)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance * float(expected.detach().abs().max()))
    got = torch.autograd.grad(actual, ours, grad.cuda())
    wanted = torch.autograd.grad(expected, exact, grad.double().cuda())
    for a, e in zip(got, wanted, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=0, atol=tolerance * float(e.abs().max()))
