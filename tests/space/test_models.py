"""Answers of models on this machine, against evaluation's own generation and likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from inspo_hub.adapters import existing_adapter, new_adapter
from inspo_hub.evaluate import Prompt, Sampling, generate, response_logps
from inspo_hub.models import load_model, load_tokenizer
from inspo_hub.recipe.adapters import AdapterSection
from inspo_hub.space.config import SamplingSection
from inspo_hub.space.models import LocalModels, SystemFiles
from inspo_hub.space.rounds import Piece
from tests.space.conftest import QUESTION, QUICKSTART

BASE = QUICKSTART / "base"
CONVERSATION = [{"role": "user", "content": QUESTION}]
SAMPLING = SamplingSection(max_new_tokens=80, seed=4)


@pytest.fixture(scope="module")
def twin_models(twins: Path) -> LocalModels:
    files = {name: SystemFiles(model=twins / name, beta=0.3) for name in ("dpo", "inspo")}
    return LocalModels(files, BASE, device="cpu")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Two adapters on the quickstart's base that move its answers, each its own way."""
    folders = {}
    for seed, name in enumerate(("dpo", "inspo")):
        folder = tmp_path_factory.mktemp(name)
        wrapped = new_adapter(load_model(BASE), AdapterSection(type="lora", r=2), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for key, weight in wrapped.named_parameters():
            if "lora_B" in key:
                weight.data = torch.randn(weight.shape, generator=generator)
        wrapped.save_pretrained(str(folder))
        folders[name] = folder
    return folders


def last(models: LocalModels, sampling: SamplingSection = SAMPLING) -> dict[str, Piece]:
    return list(models.stream(CONVERSATION, sampling))[-1]


def evaluated(model: Any, sampling: SamplingSection = SAMPLING) -> tuple[int, ...]:
    """The oracle: what an evaluation draws for this prompt with this seed."""
    asked = Sampling(
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
    )
    prompt = Prompt(tuple(CONVERSATION), "row")
    return generate(model, load_tokenizer(BASE), [prompt], asked)[0].response_ids


@pytest.mark.parametrize(
    "sampling",
    [
        SAMPLING,
        SAMPLING.model_copy(update={"temperature": 0.0}),
        SAMPLING.model_copy(update={"temperature": 0.7, "top_p": 0.8, "seed": 9}),
        SAMPLING.model_copy(update={"max_new_tokens": 5}),
    ],
)
def test_a_stream_draws_what_an_evaluation_draws(
    twins: Path, twin_models: LocalModels, sampling: SamplingSection
) -> None:
    frames = list(twin_models.stream(CONVERSATION, sampling))
    assert all(not piece.ended for piece in frames[2].values()), "both write at the same time"
    for name, piece in frames[-1].items():
        assert piece.token_ids == evaluated(load_model(twins / name), sampling)
        assert piece.tokens == len(piece.token_ids) <= sampling.max_new_tokens
        assert piece.state == ("cut" if sampling.max_new_tokens == 5 else "finished")
        assert piece.seconds > 0


def test_two_adapters_share_one_base_and_answer_as_on_bases_of_their_own(adapters: Mapping[str, Path]) -> None:
    files = {name: SystemFiles(model=BASE, adapter=folder, beta=0.3) for name, folder in adapters.items()}
    models = LocalModels(files, BASE, device="cpu")
    assert len(models._models) == 1, "the base is loaded once"
    found = last(models)
    alone = {
        name: existing_adapter(load_model(BASE), folder, trainable=False).get_base_model().eval()
        for name, folder in adapters.items()
    }
    for name, piece in found.items():
        assert piece.token_ids == evaluated(alone[name])
    assert found["dpo"].token_ids != found["inspo"].token_ids, "the adapters are told apart"
    rewards = models.rewards(CONVERSATION, found)
    assert rewards is not None
    _check_rewards(rewards.values, found, alone, load_model(BASE))


def test_an_adapter_against_its_own_base(adapters: Mapping[str, Path]) -> None:
    files = {"dpo": SystemFiles(model=BASE, adapter=adapters["dpo"]), "base": SystemFiles(model=BASE)}
    found = last(LocalModels(files, device="cpu"))
    assert found["base"].token_ids == evaluated(load_model(BASE)), "its adapter is off while the base writes"
    assert found["dpo"].token_ids != found["base"].token_ids


def test_implicit_rewards_are_log_ratios(twins: Path, twin_models: LocalModels) -> None:
    found = last(twin_models)
    rewards = twin_models.rewards(CONVERSATION, found)
    assert rewards is not None
    _check_rewards(rewards.values, found, {name: load_model(twins / name) for name in found}, load_model(BASE))
    first, second = rewards.values
    margin = rewards.values[first][first] - rewards.values[first][second]
    assert rewards.margin(first, first, second) == margin
    assert rewards.sentences()[0].startswith(f"{first} prefers")
    assert f"{abs(margin):.2f} nats" in rewards.sentences()[0]


def _check_rewards(values: Any, found: Mapping[str, Piece], models: Mapping[str, Any], base: Any) -> None:
    tokenizer = load_tokenizer(BASE)
    prompt = tokenizer.apply_chat_template(CONVERSATION, add_generation_prompt=True, return_dict=False)
    for system, model in models.items():
        for answer, piece in found.items():
            ours, theirs = (response_logps(each, [prompt], [piece.token_ids])[0] for each in (model, base))
            assert values[system][answer] == pytest.approx(0.3 * (ours - theirs), abs=1e-4)


def test_no_rewards_without_a_base(twins: Path) -> None:
    models = LocalModels({name: SystemFiles(model=twins / name, beta=0.3) for name in ("dpo", "inspo")}, device="cpu")
    assert models.rewards(CONVERSATION, last(models)) is None


def test_a_side_that_breaks_ends_alone(
    twins: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    models = LocalModels({name: SystemFiles(model=twins / name) for name in ("dpo", "inspo")}, device="cpu")
    broken, calls = models._models[twins / "dpo"], []
    forward = broken.forward

    def fails(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("CUDA error: secret details")
        return forward(*arguments, **more)

    fails.__signature__ = __import__("inspect").signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(broken, "forward", fails)
    found = last(models)
    assert (found["dpo"].state, found["dpo"].tokens) == ("failed", 3)
    assert "secret" not in found["dpo"].problem
    assert "secret details" in caplog.text, "the cause is in the log"
    assert found["inspo"].state == "finished"


def test_a_conversation_that_is_too_long_is_said_on_both_sides(twin_models: LocalModels) -> None:
    found = last(twin_models, SAMPLING.model_copy(update={"max_new_tokens": 600}))
    assert {piece.state for piece in found.values()} == {"failed"}
    assert "512 positions" in found["dpo"].problem
