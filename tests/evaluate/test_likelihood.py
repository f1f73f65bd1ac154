"""Batched log-probabilities against one plain forward per row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from inspo_hub.evaluate.likelihood import response_logps


@torch.no_grad()
def logp_oracle(model: PreTrainedModel, prompt: list[int], response: list[int]) -> float:
    ids = torch.tensor([prompt + response])
    token_logps = model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    return token_logps.gather(1, ids[0, len(prompt) :, None]).sum().item()


def make_model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if name == "llama":
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        return LlamaForCausalLM(LlamaConfig(vocab_size=61, **sizes)).double().eval()
    config = GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).double().eval()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("logits_at_once", [1, 4000, 2**24])
def test_every_batching_equals_plain_forwards(name: str, logits_at_once: int) -> None:
    model = make_model(name)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 61, length).tolist() for length in (3, 11, 1, 7, 7)]
    responses = [rng.integers(0, 61, length).tolist() for length in (9, 2, 5, 1, 12)]
    expected = [logp_oracle(model, prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    found = response_logps(model, prompts, responses, logits_at_once=logits_at_once)
    # float32 log-softmax of float64 logits: about 1e-6 per token
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_an_empty_response_is_certain_and_takes_no_part() -> None:
    model = make_model("llama")
    found = response_logps(model, [[1, 2], [3]], [[], [4, 5]])
    assert found[0] == 0.0
    assert found[1] == pytest.approx(logp_oracle(model, [3], [4, 5]), abs=2e-5)
    assert response_logps(model, [[1]], [[]]).tolist() == [0.0]
