"""Real preference pairs: Unicode, Markdown, code and lengths as they come; run where they lie beside the checkout."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from inspo_hub.pairs import PairSource, PreparedData, prepare_pairs, separator_ids
from inspo_hub.pairs.overlong import Limits, path_lengths
from tests.pairs.tokenizers import CHATML

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "pairs" / "alpaca_pairs.jsonl.gz"
pytestmark = pytest.mark.skipif(not REAL.exists(), reason=f"the real pairs are not here: {REAL}")
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One data set cache for the tests of this file: tokenised once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    with gzip.open(REAL, "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def tokenizer(rows: list[dict]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((row[name] for row in rows[::4] for name in ("instruction", "chosen", "rejected")), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    return fast


def prepare(tokenizer: PreTrainedTokenizerFast, *, limit: int | None = None, **options: object) -> PreparedData:
    source = PairSource(id="real", local_path=str(REAL), columns={"prompt": "instruction"}, limit=limit)
    separator = separator_ids(tokenizer)
    return prepare_pairs([source], tokenizer, seed=0, conditioned=True, separator=separator, **options)


@pytest.mark.parametrize("limit", [500, pytest.param(2853, marks=pytest.mark.slow)])
def test_every_pair_decodes_to_its_rendered_text(
    limit: int, rows: list[dict], tokenizer: PreTrainedTokenizerFast
) -> None:
    data = prepare(tokenizer, max_length=10**6, limit=limit)
    assert len(data.train) + sum(found.count for found in data.report.invalid.values()) == limit
    assert len(data.train) > 0.99 * limit
    for pair in data.train:
        row = rows[int(pair.row_id.rsplit("/", 1)[1])]
        asked = [{"role": "user", "content": row["instruction"]}]
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        for name, ids in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            text = tokenizer.decode([*pair.prompt, *ids], clean_up_tokenization_spaces=False)
            assert text == prompt + row[name] + "<|im_end|>"
            assert ids.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("max_length", [256, 1024])
def test_every_path_fits_and_no_response_is_empty(max_length: int, tokenizer: PreTrainedTokenizerFast) -> None:
    data = prepare(tokenizer, max_length=max_length, limit=500)
    limits = Limits(max_length, conditioned=True, separator_tokens=len(separator_ids(tokenizer)))
    assert (path_lengths(data.train.lengths, limits, data.train.max_alternative) <= max_length).all()
    assert data.train.lengths.min() >= 1
    assert data.report.truncated.count > 0


@pytest.mark.slow
def test_throughput(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least 20k pairs a minute on one core; the mark here is half of it, so that a busy machine does not fail."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    began = time.process_time()
    data = prepare(tokenizer, max_length=1024)
    seconds = time.process_time() - began
    per_minute = 60 * len(data.train) / seconds
    print(f"{per_minute:.0f} pairs a minute of processor time, {len(data.train)} pairs in {seconds:.1f} s")
    assert per_minute > 10_000
