"""What a run leaves on the Hub: model, card, lock and resumable state, and nothing of the machine it ran on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard

from inspo_hub.card import recipe_and_lock_from_card
from inspo_hub.hub import PICKLE_SUFFIXES
from inspo_hub.plan import Lock
from inspo_hub.recipe import parse_recipe
from tests.hub_server import HubServer

from .conftest import STEPS, Whole, World, titles

MODEL_FILES = {
    "README.md", "chat_template.jinja", "config.json", "generation_config.json", "lock.json", "metrics.jsonl",
    "model.safetensors", "recipe.yaml", "report/curves.svg", "report/data.json", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip


def test_the_result_stands_on_main_and_the_state_on_its_own_branch(hub: HubServer, whole: Whole) -> None:
    output, published = whole.machine.output(), hub.files(whole.repo)
    assert set(published) == MODEL_FILES
    for name, content in published.items():
        assert content == (output / name).read_bytes(), name
    assert titles(hub, whole.repo)[-2:] == [f"Model after step {STEPS}", "Model card"], "the card comes last"
    state = hub.files(whole.repo, "checkpoints")
    # The newest state that was pushed while training went on: the result takes the place of what still waited.
    manifest = json.loads(state["last-checkpoint/published.json"])
    assert manifest["step"] in range(2, STEPS + 1, 2)
    assert {f"last-checkpoint/{name}" for name in ("model.safetensors", "complete.json")} < set(manifest["files"])
    assert set(state) - {*published, "last-checkpoint/published.json"} == set(manifest["files"])
    assert not [path for path in [*published, *state] if path.endswith(PICKLE_SUFFIXES)], "safetensors only"
    assert hub.repo(whole.repo).private, "private unless the recipe says otherwise"


def test_json_says_where_everything_is(hub: HubServer, whole: Whole) -> None:
    told = whole.told
    output = str(whole.machine.output())
    assert (told["ok"], told["exit_code"], told["output"]) == (True, 0, output)
    variant = told["variants"]["tiny"]
    assert variant["output"] == output
    published = variant["published"]
    assert published["repo_id"] == whole.repo
    assert published["complete"]
    parts = {each["what"]: (each["step"], each["sha"]) for each in published["published"]}
    assert (parts["weights"], parts["card"]) == (
        (STEPS, hub.history(whole.repo)[1].sha),
        (STEPS, hub.head(whole.repo)),
    )
    assert parts["state"][1] == hub.head(whole.repo, "checkpoints")
    assert json.loads((whole.machine.output() / "published.json").read_text(encoding="utf-8")) == published


def test_the_lock_pins_everything_to_commits(hub: HubServer, whole: Whole, world: World) -> None:
    lock = Lock.from_json(hub.files(whole.repo)["lock.json"].decode(), where="lock.json")
    assert {role: (pin.id, pin.sha) for role, pin in lock.pins.items()} == {
        "model": (world.base, hub.head(world.base)),
        "model.tokenizer": (world.base, hub.head(world.base)),
        "data.train.0": (world.rows, hub.head(world.rows, type="dataset")),
        "data.heldout.0": (world.rows, hub.head(world.rows, type="dataset")),
    }
    assert {"torch", "transformers", "huggingface_hub", "datasets", "inspo_hub"} <= set(lock.packages)
    hashes = (lock.recipe_sha256, lock.chat_template_sha256, lock.data_fingerprint, lock.pairs_fingerprint)
    assert all(value is not None and len(value) == 64 for value in hashes)
    assert (lock.seed, lock.extra["processes"], lock.extra["device"]) == (0, 1, "cpu")


def test_the_card_is_accepted_and_says_what_was_done(hub: HubServer, whole: Whole, world: World) -> None:
    text = hub.files(whole.repo)["README.md"].decode()
    ModelCard(text).validate()
    data = ModelCard(text).data.to_dict()
    assert (data["license"], data["base_model"], data["base_model_relation"]) == ("apache-2.0", world.base, "finetune")
    assert (data["datasets"], data["pipeline_tag"], data["library_name"]) == (
        [world.rows], "text-generation", "transformers"
    )  # fmt: skip
    results = data["model-index"][0]["results"]
    last = whole.machine.records()[-1]
    accuracy = {metric["name"]: metric["value"] for metric in results[0]["metrics"]}
    assert accuracy["Preference accuracy, plain"] == pytest.approx(last["plain_accuracy"], abs=1e-4)
    assert results[0]["dataset"]["revision"] == hub.head(world.rows, type="dataset")
    assert f"inspo-hub reproduce {whole.repo}" in text
    assert f'model_id = "{whole.repo}"' in text
    recipe, lock = recipe_and_lock_from_card(text)
    assert lock == json.loads(hub.files(whole.repo)["lock.json"])
    assert parse_recipe(recipe).sha256() == lock["recipe_sha256"]


def test_nothing_of_the_machine_and_no_token_gets_out(hub: HubServer, whole: Whole) -> None:
    token, home = whole.machine.token, str(whole.machine.home)
    assert token is not None
    for branch in ("main", "checkpoints"):
        for name, content in hub.files(whole.repo, branch).items():
            assert token.encode() not in content, name
            assert home.encode() not in content, name
    for path in whole.machine.home.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path
    assert token not in "".join(whole.machine.said)
    messages = "".join(commit.title for branch in ("main", "checkpoints") for commit in hub.history(whole.repo, branch))
    assert token not in messages


def test_plain_transformers_loads_what_was_published(as_alice: HubServer, whole: Whole, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(whole.repo, cache_dir=tmp_path)
    model = AutoModelForCausalLM.from_pretrained(whole.repo, cache_dir=tmp_path)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "the cat"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert model.generate(**inputs, max_new_tokens=4, do_sample=False).shape[1] > inputs["input_ids"].shape[1]
    assert HfApi(endpoint=as_alice.endpoint).model_info(whole.repo).safetensors is not None
