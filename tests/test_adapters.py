"""Adapters by themselves: packed as plain, nothing added before training, merged as unmerged, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from inspo_hub.adapters import (
    adapter_off,
    existing_adapter,
    load_nf4,
    merge_adapter,
    name_base,
    new_adapter,
    quantise,
    unpack_nf4,
)
from inspo_hub.errors import InspoError, RecipeError, ResolutionError
from inspo_hub.logprobs import check_packing, tree_logps
from inspo_hub.models import load_model
from inspo_hub.recipe import AdapterSection
from inspo_hub.views import SCORES
from tests.architectures import VOCAB, Architecture, pairs_of_different_lengths
from tests.test_logprobs import LAYOUTS, assert_equal, batch_of, expected

LLAMA = Architecture(name="Llama", family="Llama", options={"num_hidden_layers": 3})
KINDS = {
    "LoRA": AdapterSection(r=4),
    "rsLoRA": AdapterSection(r=4, use_rslora=True),
    "DoRA": AdapterSection(r=4, use_dora=True),
    "some layers": AdapterSection(r=2, alpha=3.0, target_modules=("q_proj", "down_proj")),
    "the output layer too": AdapterSection(r=2, target_modules=("v_proj", "lm_head")),
}
EVERY_KIND = pytest.mark.parametrize("section", KINDS.values(), ids=KINDS.keys())


def adapted(section: AdapterSection, *, trained: bool = False, seed: int = 0) -> Any:
    """A new adapter on a random Llama in float64; `trained` gives it weights that add something."""
    model: Any = new_adapter(LLAMA.build(), section, seed=seed).double().eval()
    if trained:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.add_(0.1 * noise)
    return model


def plain_logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 21).remainder(VOCAB)[None], use_cache=False).logits


# --- new adapters --------------------------------------------------------------------------------------------------


@LAYOUTS
@EVERY_KIND
def test_packed_equals_plain_in_value_and_gradient(section: AdapterSection, layout: Any) -> None:
    model = adapted(section, trained=True)
    oracle = expected(model)
    assert all("lora_" in name for name in oracle[1]), "the base is frozen"
    assert_equal(model, batch_of(layout), oracle)


@EVERY_KIND
def test_it_adds_nothing_until_it_is_trained(section: AdapterSection) -> None:
    model = adapted(section)
    with torch.no_grad():
        on = tree_logps(model, batch_of())
        with adapter_off(model):
            off = tree_logps(model, batch_of())
    base, _ = expected(LLAMA.build())
    for score in SCORES:
        torch.testing.assert_close(on.get(score), off.get(score), rtol=1e-12, atol=1e-11)
        torch.testing.assert_close(off.get(score), base[score], rtol=1e-12, atol=1e-11)


@EVERY_KIND
def test_switched_off_it_is_the_base_and_switched_on_again_it_trains(section: AdapterSection) -> None:
    model = adapted(section, trained=True)
    trained_before = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with adapter_off(model):
        assert torch.equal(plain_logits(model), plain_logits(LLAMA.build()))
    assert not torch.equal(plain_logits(model), plain_logits(LLAMA.build()))
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trained_before


@pytest.mark.parametrize(("rslora", "scale"), [(False, 8 / 4), (True, 8 / 4**0.5)])
def test_what_it_adds_is_scaled_by_alpha_and_rank(rslora: bool, scale: float) -> None:
    model = adapted(AdapterSection(r=4, alpha=8, use_rslora=rslora), trained=True)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    x = torch.randn(3, layer.in_features, dtype=torch.float64)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(layer(x) - layer.base_layer(x), scale * x @ a.T @ b.T)


def test_the_usual_adapter_is_rank_16_alpha_32_on_every_linear_layer_but_the_head() -> None:
    model = adapted(AdapterSection())
    config = model.active_peft_config
    assert (config.r, config.lora_alpha, config.lora_dropout) == (16, 32, 0.0)
    assert config.target_modules == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_names_stay_long_where_their_ends_would_say_more() -> None:
    names = ("layers.0.self_attn.q_proj", "layers.2.self_attn.q_proj")
    model = adapted(AdapterSection(target_modules=names))
    assert model.active_peft_config.target_modules == [f"model.{name}" for name in names]


def test_first_weights_depend_on_the_seed_alone_and_take_no_random_numbers() -> None:
    first = adapted(AdapterSection(r=2), seed=7).state_dict()
    base = LLAMA.build(seed=3)
    state = torch.random.get_rng_state()
    second = new_adapter(base, AdapterSection(r=2), seed=7).double().state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    other = adapted(AdapterSection(r=2), seed=8).state_dict()
    name = next(name for name in first if "lora_A" in name)
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


def test_the_start_up_check_takes_an_adapter() -> None:
    check = check_packing(adapted(AdapterSection(r=2), trained=True), pairs_of_different_lengths())
    assert check.layout == "tree"


# --- existing adapters, files, merging -----------------------------------------------------------------------------


def saved(folder: Path, section: AdapterSection | None = None) -> tuple[Path, Any]:
    model = adapted(section or AdapterSection(r=2), trained=True)
    name_base(model, "owner/base", "a" * 40)
    model.save_pretrained(folder)
    return folder, model


@EVERY_KIND
def test_a_saved_adapter_is_the_same_policy_again(section: AdapterSection, tmp_path: Path) -> None:
    folder, model = saved(tmp_path, section)
    again = existing_adapter(LLAMA.build(), folder, trainable=True).double().eval()
    assert torch.equal(plain_logits(again), plain_logits(model))
    trained = {name for name, parameter in again.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = existing_adapter(LLAMA.build(), folder, trainable=False)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert_equal(again, batch_of(), expected(again))


def test_the_file_names_its_base_and_asks_the_hub_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *_: pytest.fail("asked the Hub"))
    folder, model = saved(tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/base", "a" * 40)
    assert config["target_modules"] == sorted(config["target_modules"])
    names = load_file(folder / "adapter_model.safetensors").keys()
    assert all("lora_" in name for name in names)
    assert len(names) == 2 * 7 * len(model.get_base_model().model.layers)


@EVERY_KIND
def test_merged_it_is_a_plain_model_with_the_same_logits(section: AdapterSection) -> None:
    model = adapted(section, trained=True)
    before = plain_logits(model)
    merged = merge_adapter(model)
    assert type(merged) is type(LLAMA.build())
    assert merged.state_dict().keys() == LLAMA.build().state_dict().keys()
    torch.testing.assert_close(plain_logits(merged), before, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(plain_logits(LLAMA.build()), before)


def test_dropout_of_an_existing_adapter_is_off(tmp_path: Path) -> None:
    folder, model = saved(tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": 0.5}))
    again = existing_adapter(LLAMA.build(), folder, trainable=True).double().train()
    assert torch.equal(plain_logits(again), plain_logits(model))


# --- what is refused -----------------------------------------------------------------------------------------------


def refused(error: type[InspoError], match: str, action: Any) -> InspoError:
    with pytest.raises(error, match=match) as raised:
        action()
    assert raised.value.fix
    return raised.value


def test_a_name_that_is_no_layers_is_refused_with_the_nearest_although_others_match() -> None:
    problem = refused(RecipeError, "'v_prj'", lambda: adapted(AdapterSection(target_modules=("q_proj", "v_prj"))))
    assert problem.where == "adapter.target_modules"
    assert "v_proj" in problem.fix


def test_a_layer_that_takes_no_adapter_is_refused() -> None:
    refused(RecipeError, "no adapter can be put there", lambda: adapted(AdapterSection(target_modules=("norm",))))


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_tied_embeddings_are_refused_for_merged_both_would_change(name: str) -> None:
    tied = Architecture(name="Llama", family="Llama", options={"tie_word_embeddings": True})
    section = AdapterSection(target_modules=("q_proj", name))
    refused(RecipeError, "one weight", lambda: new_adapter(tied.build(), section, seed=0))
    new_adapter(LLAMA.build(), section, seed=0)


@dataclass(frozen=True)
class Wrong:
    """Changes of adapter_config.json that make an adapter one that cannot be used, and what the error says."""

    change: dict[str, Any]
    match: str


WRONG = {
    "prompt learning": Wrong({"peft_type": "PROMPT_TUNING"}, "kind PROMPT_TUNING"),
    "another tuner": Wrong({"peft_type": "IA3"}, "kind IA3"),
    "parameters": Wrong({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
    "base rewritten": Wrong({"init_lora_weights": "pissa"}, "init_lora_weights"),
    "biases trained": Wrong({"bias": "all"}, "bias"),
    "layers repeated": Wrong({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
    "invocation": Wrong({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
    "tokens trained": Wrong({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_adapters_that_are_no_plain_lora_are_refused(wrong: Wrong, tmp_path: Path) -> None:
    folder, _ = saved(tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | wrong.change))
    problem = refused(ResolutionError, wrong.match, lambda: existing_adapter(LLAMA.build(), folder, trainable=True))
    assert problem.where == str(folder)


def test_an_adapter_of_a_wider_model_is_refused(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path)
    wider = Architecture(name="Llama", family="Llama", options={"num_hidden_layers": 3, "intermediate_size": 72})
    refused(ResolutionError, "does not fit", lambda: existing_adapter(wider.build(), folder, trainable=True))


@pytest.mark.parametrize("layers", [2, 4])
def test_an_adapter_of_a_deeper_or_shallower_model_is_refused(layers: int, tmp_path: Path) -> None:
    folder, _ = saved(tmp_path)
    other = Architecture(name="Llama", family="Llama", options={"num_hidden_layers": layers})
    refused(
        ResolutionError,
        "have no place" if layers < 3 else "are missing",
        lambda: existing_adapter(other.build(), folder, trainable=True),
    )


def test_an_adapter_that_brings_embeddings_is_refused(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path)
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.model.embed_tokens.weight"] = torch.zeros(VOCAB, 4)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    refused(ResolutionError, "does not fit", lambda: existing_adapter(LLAMA.build(), folder, trainable=True))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    problem = refused(
        ResolutionError, "adapter configuration", lambda: existing_adapter(LLAMA.build(), tmp_path, trainable=True)
    )
    assert problem.where.endswith("adapter_config.json")


def test_an_adapter_is_not_taken_for_a_model(tmp_path: Path) -> None:
    """transformers would load its base, put it on, and let it pass for the model: a reference that is no base."""
    folder, _ = saved(tmp_path)
    problem = refused(ResolutionError, "an adapter, not a model", lambda: load_model(folder))
    assert "owner/base" in problem.fix
    assert "adapter.base_adapter" in problem.fix


def test_peft_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    problem = refused(RecipeError, "peft, which is not installed", lambda: adapted(AdapterSection()))
    assert "inspo-hub[peft]" in problem.fix


def test_bitsandbytes_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "find_spec", lambda _name: None)
    problem = refused(RecipeError, "bitsandbytes, which is not installed", lambda: quantised(Path()))
    assert problem.where == "adapter.quantize"


def test_every_setting_of_peft_is_judged() -> None:
    """A new setting of LoRA is refused until it was looked at, and the ones we know still exist."""
    from inspo_hub.adapters.checks import _HARMLESS

    assert set(peft.LoraConfig().to_dict()) >= _HARMLESS


# --- QLoRA ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def base_folder(tmp_path: Path) -> Path:
    """A model of widths that nf4's blocks of 64 fit."""
    pytest.importorskip("bitsandbytes")
    options = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    Architecture(name="Llama", family="Llama", options=options).build(torch.float32).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def quantised(folder: Path) -> Any:
    return load_nf4(folder, dtype=torch.float32, device=torch.device("cpu"))


def test_nf4_is_another_base_and_packed_as_plain(base_folder: Path) -> None:
    whole, model = load_model(base_folder), new_adapter(quantised(base_folder), AdapterSection(r=2), seed=0)
    difference = (plain_logits(model) - plain_logits(whole)).abs().max()
    assert difference > 0.01, "nothing was quantised"
    check = check_packing(model, pairs_of_different_lengths())
    assert (check.layout, check.max_abs_difference < 1e-2) == ("tree", True)
    with torch.no_grad(), adapter_off(model):
        off = tree_logps(model, batch_of())
    for score in SCORES:
        torch.testing.assert_close(tree_logps(model, batch_of()).get(score), off.get(score), rtol=1e-3, atol=1e-2)
    tree_logps(model, batch_of()).chosen.sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if "lora_" in name}


def test_merged_into_unpacked_nf4_values_it_is_what_was_trained(base_folder: Path) -> None:
    model = new_adapter(quantised(base_folder), AdapterSection(r=2), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    before = plain_logits(model)
    model.save_pretrained(base_folder.parent / "adapter")
    unpacked = unpack_nf4(quantised(base_folder))
    again = existing_adapter(unpacked, base_folder.parent / "adapter", trainable=False)
    merged = plain_logits(merge_adapter(again))
    torch.testing.assert_close(merged, before, rtol=1e-3, atol=1e-2)
    whole = existing_adapter(load_model(base_folder), base_folder.parent / "adapter", trainable=False)
    assert (plain_logits(merge_adapter(whole)) - before).abs().max() > (merged - before).abs().max() * 10
