"""What ours is held against in plain torch: naive InSPO, InSPO without padding, and the floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from inspo_hub.packing import context_and_response
from inspo_hub.pairs import PreferencePair
from inspo_hub.views import Score
from tests.bench.sides.side import SideName, SideUnavailable, batches
from tests.bench.workload import Workload

_SCORES: tuple[Score, Score] = ("chosen_given_rejected", "rejected_given_chosen")
_PLAIN: tuple[Score, Score] = ("chosen", "rejected")
_BETA = 0.1
_MOST_LOGITS = 0.5
"""Share of the memory that full logits, their log-softmax and its gradient may take before a side is left out."""


def _sequences(workload: Workload, members: Sequence[int], scores: Sequence[Score]) -> list[tuple[list[int], int]]:
    """For each score and pair the tokens of its path, and how many of the last ones are scored."""
    paths = [
        context_and_response(workload.pairs[member], score, workload.separator)
        for score in scores
        for member in members
    ]
    return [(context + response, len(response)) for context, response in paths]


def _padded_logps(model: nn.Module, sequences: list[tuple[list[int], int]], device: torch.device) -> Tensor:
    """Summed log-probabilities `(sequences,)` of right-padded sequences, through full logits."""
    longest = max(len(tokens) for tokens, _ in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
    attention_mask, scored = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (tokens, response) in enumerate(sequences):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        attention_mask[row, : len(tokens)] = 1
        scored[row, len(tokens) - response : len(tokens)] = 1
    ids, attention_mask, scored = ids.to(device), attention_mask.to(device), scored.to(device)
    logits = model(input_ids=ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1]
    token_logps = logits.float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return (token_logps * scored[:, 1:]).sum(-1)


def _dpo_loss(policy: Tensor, reference: Tensor) -> Tensor:
    """DPO's loss `(pairs,)` of log-probabilities `(2 pairs,)`, chosen before rejected."""
    chosen, rejected = (policy - reference).chunk(2)
    return -F.logsigmoid(_BETA * (chosen - rejected))


class NaiveStep:
    """InSPO as one writes it first: both conditioned sequences of each pair padded, the reference in the loop."""

    holds_reference = True
    note = ""

    def __init__(self, workload: Workload, name: SideName) -> None:
        self.workload = workload
        self.batches = list(batches(len(workload.pairs), name.batch or workload.case.batch))
        plain = name.name == "naive_plain_reference"
        self.computes = "inspo" if plain else "inspo, reference in the same context"
        self.reference_scores = _PLAIN if plain else _SCORES
        _require_memory(workload, max(self._padded(members) for members in self.batches))
        self.policy = workload.fresh_policy(checkpointing=name.checkpointing)
        self.reference = workload.fresh_reference()

    def _padded(self, members: range) -> int:
        sequences = _sequences(self.workload, members, _SCORES)
        return len(sequences) * max(len(tokens) for tokens, _ in sequences)

    def step(self) -> Tensor:
        total = torch.zeros((), device=self.workload.device)
        for members in self.batches:
            conditioned = _sequences(self.workload, members, _SCORES)
            policy = _padded_logps(self.policy, conditioned, self.workload.device)
            with torch.no_grad():
                seen = _sequences(self.workload, members, self.reference_scores)
                reference = _padded_logps(self.reference, seen, self.workload.device)
            loss = _dpo_loss(policy, reference).sum() / len(self.workload.pairs)
            loss.backward()
            total += loss.detach()
        return total


class UnpaddedStep:
    """InSPO sequence by sequence: no padding, cached reference, full logits."""

    computes = "inspo"
    holds_reference = False
    note = ""

    def __init__(self, workload: Workload, name: SideName) -> None:
        self.workload = workload
        self.policy = workload.fresh_policy(checkpointing=name.checkpointing)
        cached = workload.reference_scores(_PLAIN)
        self.reference = torch.stack([cached.get(score) for score in _PLAIN])

    def step(self) -> Tensor:
        total = torch.zeros((), device=self.workload.device)
        for member in range(len(self.workload.pairs)):
            sequences = _sequences(self.workload, [member], _SCORES)
            policy = [_padded_logps(self.policy, [sequence], self.workload.device) for sequence in sequences]
            loss = _dpo_loss(torch.cat(policy), self.reference[:, member]).sum() / len(self.workload.pairs)
            loss.backward()
            total += loss.detach()
        return total


def _require_memory(workload: Workload, tokens: int) -> None:
    """Refuses to build full logits that would push the machine into swapping."""
    needed = 3 * tokens * workload.case.model.vocab * 4
    if workload.device.type == "cuda":
        there = torch.cuda.mem_get_info(workload.device)[0]
    else:
        import psutil

        there = psutil.virtual_memory().available
    if needed > _MOST_LOGITS * there:
        raise SideUnavailable(f"full logits would take {needed / 1e9:.0f} GB of {there / 1e9:.0f} GB")


# --- the floor --------------------------------------------------------------------------------------------------------

FLOOR_ATTENTION = "bench_floor"
_CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**29}


@dataclass(frozen=True)
class _Row:
    """Sequences laid end to end, padding-free, and where their scored tokens stand."""

    ids: Tensor
    position_ids: Tensor
    lengths: list[int]
    positions: Tensor
    targets: Tensor


def _causal_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: None, *, lengths: Any, **_: Any
) -> tuple[Tensor, None]:
    """Plain causal attention of each sequence of a row by itself."""
    if query.is_cuda and query.dtype.itemsize == 2:
        return _causal_varlen(query, key, value, lengths), None
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    out = [F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True) for q, k, v in parts]
    return torch.cat(out, dim=2).transpose(1, 2), None


def _causal_varlen(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """The same by one launch of torch's variable-length kernel."""
    from torch.nn.attention.varlen import varlen_attn

    bounds = torch.tensor([0, *lengths], device=query.device).cumsum(0).to(torch.int32)
    packed = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    gqa = query.shape[1] != key.shape[1]
    out = varlen_attn(*packed, bounds, bounds, max(lengths), max(lengths), window_size=(-1, 0), enable_gqa=gqa)
    return out[None]


AttentionInterface.register(FLOOR_ATTENTION, _causal_attention)


class Floor:
    """Forward and backward over exactly the tokens that `symmetric` lays out, each run of them as a plain sequence.

    Runs see less than in the tree, where the second one sees the prompt as well; nothing is shared, merged or compared,
    and the head's gradients are computed with its forward (three products). A step of ours cannot do less.
    """

    computes = ""
    holds_reference = False
    note = ""
    scores = _SCORES

    def __init__(self, workload: Workload, name: SideName) -> None:
        self.workload = workload
        self.model = workload.fresh_policy(checkpointing=name.checkpointing)
        self.model.set_attn_implementation(FLOOR_ATTENTION)
        self.micro_batches = workload.micro_batches(self.scores, "tree")

    def runs(self, pair: PreferencePair) -> list[list[int]]:
        """The runs of a pair; the last tokens of each are a response, chosen first."""
        prompt, chosen, rejected = list(pair.prompt), list(pair.chosen), list(pair.rejected)
        separator = self.workload.separator
        return [prompt + rejected + separator + chosen, chosen + separator + rejected]

    def _row(self, members: Sequence[int]) -> _Row:
        runs: list[list[int]] = []
        scored: list[int] = []
        for member in members:
            pair = self.workload.pairs[member]
            own = self.runs(pair)
            runs += own
            # A run that is all response has nothing in front of its first token: one position less.
            lengths = (len(pair.chosen), len(pair.rejected))
            scored += [min(length, len(run) - 1) for length, run in zip(lengths, own, strict=True)]
        device = self.workload.device
        lengths = [len(run) for run in runs]
        ids = torch.tensor([token for run in runs for token in run])
        ends = torch.tensor(lengths).cumsum(0).tolist()
        positions = torch.cat([torch.arange(end - n - 1, end - 1) for end, n in zip(ends, scored, strict=True)])
        return _Row(
            ids=ids[None].to(device),
            position_ids=torch.cat([torch.arange(length) for length in lengths])[None].to(device),
            lengths=lengths,
            positions=positions.to(device),
            targets=ids[positions + 1].to(device),
        )

    def step(self) -> Tensor:
        total = torch.zeros((), device=self.workload.device)
        for members in self.micro_batches:
            row = self._row(members)
            total += self._head(self._hidden(row), row)
        return total

    def _hidden(self, row: _Row) -> Tensor:
        inputs = {"input_ids": row.ids, "position_ids": row.position_ids, "lengths": row.lengths}
        return self.model.model(**inputs, use_cache=False)[0][0]

    def _head(self, hidden: Tensor, row: _Row) -> Tensor:
        """Mean loss of the scored tokens and its backward: three matrix products, and then the body's."""
        scored, weight = hidden[row.positions], self.model.lm_head.weight
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        rows = max(1, _CHUNK_BYTES[hidden.device.type] // (4 * len(weight)))
        total = torch.zeros((), device=hidden.device)
        slopes = []
        with torch.no_grad():
            for states, targets in zip(scored.split(rows), row.targets.split(rows), strict=True):
                logps = (states @ weight.mT).float().log_softmax(1)
                total -= logps.gather(1, targets[:, None]).sum() / len(scored)
                slope = logps.exp_().scatter_add_(1, targets[:, None], logps.new_full((len(targets), 1), -1.0))
                slope = slope.div_(len(scored)).to(weight.dtype)
                weight.grad.addmm_(slope.mT, states)
                slopes.append(slope @ weight)
        scored.backward(torch.cat(slopes))
        return total


class ReferenceFloor(Floor):
    """Forward alone over exactly the tokens that the reference pass lays out: prompt and chosen, then rejected."""

    scores = _PLAIN

    def runs(self, pair: PreferencePair) -> list[list[int]]:
        return [list(pair.prompt) + list(pair.chosen), list(pair.rejected)]

    @torch.no_grad()
    def step(self) -> Tensor:
        total = torch.zeros((), device=self.workload.device)
        for members in self.micro_batches:
            row = self._row(members)
            scored, weight = self._hidden(row)[row.positions], self.model.lm_head.weight
            rows = max(1, _CHUNK_BYTES[scored.device.type] // (4 * len(weight)))
            for states, targets in zip(scored.split(rows), row.targets.split(rows), strict=True):
                logits = (states @ weight.mT).float()
                total += (logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)).sum()
        return total
