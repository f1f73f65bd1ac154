"""Pairs of realistic lengths: log-normal laws, and the real pairs where they lie beside the checkout."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from inspo_hub.pairs import PreferencePair

REAL_PAIRS = Path(__file__).parents[2].parent / "shared" / "data" / "pairs" / "alpaca_pairs.jsonl.gz"
END = 1
"""Id of the end token; 0 pads, and content starts at 2."""
CANDIDATES = 512
"""Steps from which the typical one is chosen."""


@dataclass(frozen=True, kw_only=True)
class LengthLaw:
    """Prompts and responses are log-normal; a pair's two responses share a part of their logarithm."""

    prompt_median: float
    prompt_sigma: float
    response_median: float
    response_sigma: float
    within_pair_sigma: float

    def draw(self, rng: np.random.Generator, rows: int, max_length: int) -> np.ndarray:
        """Prompt, chosen and rejected lengths `(rows, 3)`; prompt and response together fit into `max_length`."""
        prompt = self.prompt_median * np.exp(self.prompt_sigma * rng.standard_normal(rows))
        shared = self.response_sigma * rng.standard_normal((rows, 1))
        responses = self.response_median * np.exp(shared + self.within_pair_sigma * rng.standard_normal((rows, 2)))
        return cut(np.column_stack([prompt, responses]), max_length)


@dataclass(frozen=True, kw_only=True)
class FilledLaw:
    """Prompt and response fill `max_length`, a fixed share of it the responses, give or take a fifth of them."""

    share: float

    def draw(self, rng: np.random.Generator, rows: int, max_length: int) -> np.ndarray:
        """As `LengthLaw.draw`."""
        prompt = np.full((rows, 1), (1 - self.share) * max_length)
        responses = self.share * max_length * rng.uniform(0.8, 1.0, (rows, 2))
        return np.maximum(np.rint(np.column_stack([prompt, responses])).astype(np.int64), 2)


LAWS: Mapping[str, LengthLaw | FilledLaw] = MappingProxyType(
    {
        # UltraFeedback's own shape; the other two have its spread around means of 951 + 2·241 and 48 + 2·480.
        "ultrafeedback": LengthLaw(
            prompt_median=120, prompt_sigma=0.95, response_median=280, response_sigma=0.65, within_pair_sigma=0.35
        ),
        "long_prompts": LengthLaw(
            prompt_median=865, prompt_sigma=0.5, response_median=184, response_sigma=0.65, within_pair_sigma=0.35
        ),
        "short_prompts": LengthLaw(
            prompt_median=30.5, prompt_sigma=0.95, response_median=372, response_sigma=0.65, within_pair_sigma=0.35
        ),
        **{f"filled_{share}": FilledLaw(share=share / 100) for share in (20, 60, 95)},
    }
)
LENGTHS = (*LAWS, "real")


def cut(lengths: np.ndarray, max_length: int) -> np.ndarray:
    """Whole lengths of at least 2 tokens; a prompt keeps at most 3/4 of `max_length`, a response the rest."""
    whole = np.maximum(np.rint(lengths).astype(np.int64), 2)
    whole[:, 0] = np.minimum(whole[:, 0], max_length * 3 // 4)
    whole[:, 1:] = np.minimum(whole[:, 1:], max_length - whole[:, :1])
    return whole


def padded_tokens(rows: np.ndarray, batch: int) -> np.ndarray:
    """Tokens of `(steps, pairs, 2)` row lengths when every `batch` pairs are padded to their longest row `(steps,)`."""
    steps, pairs, _ = rows.shape
    return 2 * batch * rows.reshape(steps, pairs // batch, -1).max(axis=-1).sum(axis=-1)


def typical_step(lengths: np.ndarray, batch: int) -> int:
    """Of many steps `(steps, pairs, 3)` the one that is nearest to their average in size and in what padding adds.

    One random step of eight pairs can need half or twice the padding of another, and its ratios would say little.
    """
    prompt, responses = lengths[..., :1], lengths[..., 1:]
    counts = np.stack(
        [
            (prompt[..., 0] + 2 * responses.sum(axis=-1)).sum(axis=-1),
            padded_tokens(prompt + responses, batch),
            padded_tokens((prompt + responses.sum(axis=-1, keepdims=True)).repeat(2, axis=-1), batch),
        ]
    )
    distance = np.abs(np.log(counts / counts.mean(axis=1, keepdims=True))).sum(axis=0)
    return int(distance.argmin())


def bench_pairs(law: str, *, pairs: int, max_length: int, vocab: int, batch: int, seed: int) -> list[PreferencePair]:
    """The pairs of one step: random ids of a law's lengths, or real text."""
    rng = np.random.default_rng(seed)
    if law == "real":
        return _real_pairs(rng, (CANDIDATES, pairs), max_length, vocab, batch)
    lengths = LAWS[law].draw(rng, CANDIDATES * pairs, max_length).reshape(CANDIDATES, pairs, 3)
    step = lengths[typical_step(lengths, batch)].tolist()
    return [_random_pair(rng, row, vocab, f"{law}/{index}") for index, row in enumerate(step)]


def _random_pair(rng: np.random.Generator, lengths: list[int], vocab: int, row_id: str) -> PreferencePair:
    prompt, chosen, rejected = (rng.integers(2, vocab, size=length).tolist() for length in lengths)
    return PreferencePair(prompt=prompt, chosen=[*chosen[:-1], END], rejected=[*rejected[:-1], END], row_id=row_id)


def _real_pairs(
    rng: np.random.Generator, size: tuple[int, int], max_length: int, vocab: int, batch: int
) -> list[PreferencePair]:
    """Real text under a byte-level BPE that is trained on it here; nothing of it is kept."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    with gzip.open(REAL_PAIRS, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    columns = ("instruction", "chosen", "rejected")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocab, 32_000),
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((row[name] for row in rows[::2] for name in columns), trainer)
    ids = [[text.ids for text in tokenizer.encode_batch([row[name] for row in rows])] for name in columns]
    lengths = cut(np.array([[len(text) for text in column] for column in ids]).T, max_length)
    choices = rng.integers(0, len(rows), size=size)
    step = choices[typical_step(lengths[choices], batch)].tolist()
    return [_real_pair([column[row] for column in ids], lengths[row].tolist(), f"real/{row}") for row in step]


def _real_pair(ids: list[list[int]], lengths: list[int], row_id: str) -> PreferencePair:
    (prompt, chosen, rejected), (for_prompt, for_chosen, for_rejected) = ids, lengths
    return PreferencePair(
        prompt=prompt[-for_prompt:] or [2],
        chosen=[*chosen[: for_chosen - 1], END],
        rejected=[*rejected[: for_rejected - 1], END],
        row_id=row_id,
    )
