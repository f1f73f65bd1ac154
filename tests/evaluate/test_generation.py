"""Answers against a loop without cache or batch, and their independence of the batch they were made in."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig

from inspo_hub.errors import DataError
from inspo_hub.evaluate.generation import (
    InverseCdfSampler,
    PromptEncoder,
    Sampling,
    generate,
    row_uniforms,
    stop_token_ids,
)
from inspo_hub.evaluate.prompts import Prompt, prompts_from_rows
from inspo_hub.pairs.formats import Example
from inspo_hub.pairs.tokenise import PairTokeniser, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAMPLED = Sampling(max_new_tokens=64, seed=3)
GREEDY = replace(SAMPLED, temperature=0.0)


@torch.no_grad()
def answer_oracle(model: PreTrainedModel, ids: list[int], uniforms: np.ndarray | None, stop: int) -> list[int]:
    """One row, the whole sequence forward for every token: the most probable one, or the inverse of the running sum."""
    row = list(ids)
    for step in range(SAMPLED.max_new_tokens):
        probabilities = model(input_ids=torch.tensor([row])).logits[0, -1].double().softmax(0).numpy()
        running = probabilities.cumsum()
        token = probabilities.argmax() if uniforms is None else np.searchsorted(running, uniforms[step], side="right")
        row.append(int(token))
        if token == stop:
            break
    return row[len(ids) :]


@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY], ids=["sampled", "greedy"])
def test_answers_equal_a_loop_over_whole_sequences(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt], sampling: Sampling
) -> None:
    for prompt, answer in zip(prompts[:4], generate(base, tokenizer, prompts[:4], sampling), strict=True):
        uniforms = row_uniforms(sampling, prompt, 0) if sampling.temperature > 0 else None
        expected = answer_oracle(base, PromptEncoder(tokenizer)([prompt])[0], uniforms, tokenizer.eos_token_id)
        assert list(answer.response_ids) == expected
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)


def test_an_answer_does_not_depend_on_its_batch(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt]
) -> None:
    together = generate(base, tokenizer, prompts, SAMPLED, batch_size=24)
    apart = generate(base, tokenizer, prompts, SAMPLED, batch_size=5)
    backwards = generate(base, tokenizer, prompts[::-1], SAMPLED, batch_size=7)[::-1]
    alone = generate(base, tokenizer, prompts[:3], SAMPLED, batch_size=1)
    assert together == apart == backwards
    assert together[:3] == alone
    assert [answer.row_id for answer in together] == [prompt.row_id for prompt in prompts]


def test_samples_and_seeds_give_other_answers_and_the_same_seed_the_same(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt]
) -> None:
    few = prompts[:4]
    twice = generate(base, tokenizer, few, replace(SAMPLED, samples_per_prompt=2))
    assert [(answer.row_id, answer.sample) for answer in twice] == [(p.row_id, s) for p in few for s in (0, 1)]
    assert [answer.text for answer in twice[::2]] == [a.text for a in generate(base, tokenizer, few, SAMPLED)]
    assert all(first.text != second.text for first, second in zip(twice[::2], twice[1::2], strict=True))
    other = generate(base, tokenizer, few, replace(SAMPLED, seed=4))
    assert all(first.text != second.text for first, second in zip(twice[::2], other, strict=True))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_evenly_spread_numbers_reproduce_the_distribution(temperature: float, top_p: float) -> None:
    scores = torch.tensor([2.0, -1.0, 0.5, 0.0, -torch.inf, 1.0])
    rows = 20_000
    uniforms = ((torch.arange(rows) + 0.5) / rows)[:, None].double()
    sampler = InverseCdfSampler(uniforms, prompt_width=3, temperature=temperature, top_p=top_p)
    left = sampler(torch.zeros(rows, 3, dtype=torch.long), scores.expand(rows, -1).clone())
    shares = torch.bincount(left.argmax(dim=1), minlength=6) / rows
    expected = (scores / temperature).softmax(0)
    if top_p < 1:  # the largest tokens until top_p is reached: 2.0 alone has .55, with 1.0 it is .75
        expected = torch.where(torch.tensor([True, False, False, False, False, True]), expected, 0.0)
        expected = expected / expected.sum()
    torch.testing.assert_close(shares, expected, atol=2 / rows, rtol=0)
    assert (left.isfinite().sum(dim=1) == 1).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53, 1.0])
def test_the_ends_of_the_unit_interval_give_a_possible_token(uniform: float) -> None:
    sampler = InverseCdfSampler(
        torch.tensor([[uniform]], dtype=torch.float64), prompt_width=1, temperature=1.0, top_p=1.0
    )
    scores = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert int(sampler(torch.zeros(1, 1, dtype=torch.long), scores).argmax()) in (1, 2)


def test_the_models_own_generation_defaults_are_put_aside_and_given_back(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt]
) -> None:
    expected = generate(base, tokenizer, prompts[:4], SAMPLED)
    own = base.generation_config
    peculiar = GenerationConfig(do_sample=True, temperature=0.1, top_k=2, repetition_penalty=9.0, eos_token_id=2)
    base.generation_config = peculiar
    try:
        assert generate(base, tokenizer, prompts[:4], SAMPLED) == expected
        assert base.generation_config is peculiar
    finally:
        base.generation_config = own


def test_a_cut_answer_is_not_finished_and_has_no_end_token(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt]
) -> None:
    whole = generate(base, tokenizer, prompts[:2], SAMPLED)
    cut = generate(base, tokenizer, prompts[:2], replace(SAMPLED, max_new_tokens=9))
    assert all(answer.finished and answer.response_ids[-1] == tokenizer.eos_token_id for answer in whole)
    assert not any(answer.finished for answer in cut)
    assert [answer.response_ids for answer in cut] == [answer.response_ids[:9] for answer in whole]


def test_every_end_token_stops_an_answer(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt]
) -> None:
    own = base.generation_config
    full_stop = tokenizer.convert_tokens_to_ids(".")
    base.generation_config = GenerationConfig(eos_token_id=[full_stop])
    try:
        assert stop_token_ids(base, PromptEncoder(tokenizer)) == sorted({full_stop, tokenizer.eos_token_id})
        answer = generate(base, tokenizer, prompts[:1], GREEDY)[0]
    finally:
        base.generation_config = own
    assert answer.finished
    assert answer.response_ids.count(full_stop) == 1
    assert answer.response_ids[-1] == full_stop


def test_a_prompt_without_room_for_its_answer_is_refused(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = prompts_from_rows([{"prompt": "Describe the owl."}, {"prompt": "owl " * 460}])
    with pytest.raises(DataError, match=r"prompts/1.*512 positions"):
        generate(base, tokenizer, prompts, SAMPLED)


def test_a_tokenizer_without_chat_template_is_refused(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(DataError, match=r"no chat template[\s\S]*model\.chat_template"):
        generate(base, tokenizer, prompts, SAMPLED)


def test_progress_counts_to_the_end(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt]
) -> None:
    seen: list[tuple[int, int]] = []
    generate(
        base, tokenizer, prompts[:5], GREEDY, batch_size=2, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_prompts_have_the_ids_that_training_gives_them(
    tokenizer: PreTrainedTokenizerBase, quickstart: Path, prompts: list[Prompt]
) -> None:
    row = json.loads((quickstart / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    example = Example(prompt=row["prompt"], chosen=row["chosen"][0], rejected=row["rejected"][0])
    tokeniser = PairTokeniser(tokenizer, chat=True)
    tokens = tokeniser.tokenise([tokeniser.texts(example)])[0]
    assert isinstance(tokens, Tokens)
    assert PromptEncoder(tokenizer)(prompts_from_rows([row]))[0] == tokens.prompt
    assert tokens.chosen[-1] in PromptEncoder(tokenizer).end_ids()


def test_raw_prompts_follow_the_tokenizers_own_bos(tokenizer: PreTrainedTokenizerBase) -> None:
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    raw = copy.deepcopy(tokenizer)
    raw.backend_tokenizer.post_processor = TemplateProcessing(
        "<|im_start|> $A", special_tokens=[("<|im_start|>", start)]
    )
    prompts = prompts_from_rows([{"prompt": "the owl"}])
    words = tokenizer("the owl")["input_ids"]
    assert PromptEncoder(raw, chat=False)(prompts) == [[start, *words]]
    assert PromptEncoder(tokenizer, chat=False)(prompts) == [words]
    assert PromptEncoder(tokenizer, chat=False).end_ids() == [tokenizer.eos_token_id]
