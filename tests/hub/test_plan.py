"""Plans and locks: everything pinned once, recorded without paths or tokens, and drift said line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspo_hub.errors import ResolutionError
from inspo_hub.plan import (
    Lock,
    compare_environment,
    compare_lock,
    make_plan,
    make_plans,
    read_lock,
    refuse_drift,
    write_lock,
)
from inspo_hub.recipe import Recipe, parse_recipe
from tests.hub_server import HubServer

from .conftest import QUICK, model_files, write_files


def recipe_of(model: str, rows: str, *, more: str = "", folder: Path | None = None) -> Recipe:
    text = (
        f"version: 1\nname: twins\nmodel: {{id: {model}}}\ndata: {{train: [{{id: {rows}}}]}}\ntrain: {{lr: 1.0e-6}}\n"
    )
    return parse_recipe(text + more, folder=folder)


@pytest.fixture
def repos(alice: HubServer) -> tuple[str, str]:
    model, rows = alice.unique("base", "bob"), alice.unique("rows", "bob")
    alice.create_repo(model, model_files())
    alice.create_repo(rows, {"train.jsonl": b'{"prompt": "a"}\n'}, type="dataset")
    return model, rows


def test_everything_is_pinned_and_asked_for_once(alice: HubServer, repos: tuple[str, str]) -> None:
    model, rows = repos
    twins = "variants: {dpo: {conditioning: none}, inspo: {conditioning: symmetric}}\n"
    recipe = recipe_of(model, rows, more=twins)
    plans = make_plans(recipe.variant_recipes())
    assert list(plans) == ["dpo", "inspo"]
    plan = plans["dpo"]
    assert plan.model.sha == plan.tokenizer.sha == alice.head(model)
    assert [pinned.sha for pinned in plan.train] == [alice.head(rows, type="dataset")]
    assert (plan.reference, plan.heldout, plan.prompts, plan.remote_code) == (None, (), None, None)
    assert plan.data_fingerprint() == plans["inspo"].data_fingerprint()
    assert alice.log.count("GET", f"/api/models/{model}(\\?|$)") == 1, "twins and the tokenizer share one answer"


def test_all_problems_come_in_one_message(alice: HubServer, repos: tuple[str, str]) -> None:
    gone = "reference: {source: model, id: bob/gone, revision: v3}\n"
    with pytest.raises(
        ResolutionError, match=r"2 things stand in the way[\s\S]*model bob/gone[\s\S]*dataset bob/no-rows"
    ):
        make_plan(recipe_of(repos[0], "bob/no-rows", more=gone), patience=QUICK)


def test_main_moves_between_two_runs(alice: HubServer, repos: tuple[str, str], tmp_path: Path) -> None:
    model, rows = repos
    recipe = recipe_of(model, rows)
    first = make_plan(recipe)
    lock = Lock.of(first)
    write_lock(lock, tmp_path)
    assert read_lock(tmp_path) == lock
    assert compare_lock(lock, make_plan(recipe)) == []
    old = alice.head(model)
    new = alice.commit(model, {"tokenizer_config.json": b'{"chat_template": "other"}'})
    moved = compare_lock(lock, make_plan(recipe))
    assert moved[:2] == [
        f"model: {model} (main) was at {old}, is at {new}",
        f"model.tokenizer: {model} (main) was at {old}, is at {new}",
    ]
    assert moved[2].startswith("chat template: ")
    with pytest.raises(ResolutionError, match=r"3 thing\(s\) moved since the lock[\s\S]*was at") as said:
        refuse_drift(moved, where=str(tmp_path))
    assert said.value.exit_code == 3
    again = make_plan(recipe, lock=lock, from_lock=True)
    assert again.pins == first.pins
    assert compare_lock(lock, again) == []


def test_a_lock_survives_a_deleted_branch_and_a_hub_that_is_away(alice: HubServer, repos: tuple[str, str]) -> None:
    model, rows = repos
    sha = alice.head(model)
    alice.set_ref(model, "refs/heads/exp", sha)
    recipe = recipe_of(model, rows, more="").model_copy(
        update={"model": recipe_of(model, rows).model.model_copy(update={"revision": "exp"})}
    )
    plan = make_plan(recipe)
    lock = Lock.of(plan)
    from inspo_hub import hub as room

    for pinned in (plan.model, *plan.train):
        room.fetch(pinned)
    alice.set_ref(model, "refs/heads/exp", None)
    with pytest.raises(ResolutionError, match="'exp' does not exist"):
        make_plan(recipe, lock=lock)
    assert make_plan(recipe, lock=lock, from_lock=True).model.sha == sha
    alice.stop()
    assert make_plan(recipe, lock=lock, patience=QUICK).model.sha == sha
    with pytest.raises(ResolutionError, match="may have moved since it was cached"):
        make_plan(recipe, patience=QUICK)


def test_a_changed_recipe_or_reference_is_drift(alice: HubServer, repos: tuple[str, str]) -> None:
    model, rows = repos
    lock = Lock.of(make_plan(recipe_of(model, rows)), pairs_fingerprint="abc")
    assert any(
        line.startswith("recipe: sha256")
        for line in compare_lock(lock, make_plan(recipe_of(model, rows, more="seed: 3\n")))
    )
    other = alice.unique("rows", "bob")
    alice.create_repo(other, {"train.jsonl": b"{}\n"}, type="dataset")
    lines = compare_lock(lock, make_plan(recipe_of(model, other)))
    assert any(line.startswith(f"data.train.0: {rows}@") and f" -> {other}@" in line for line in lines)
    unchanged = make_plan(recipe_of(model, rows))
    assert compare_lock(lock, unchanged, pairs_fingerprint="abc") == []
    assert compare_lock(lock, unchanged, pairs_fingerprint="abd") == ["preference pairs: fingerprint abc -> abd"]


def test_local_paths_are_locked_by_content_and_leave_no_path_behind(alice: HubServer, tmp_path: Path) -> None:
    base = write_files(tmp_path / "secret-folder" / "base", model_files())
    rows = write_files(tmp_path / "secret-folder", {"rows.jsonl": b"{}\n"}) / "rows.jsonl"
    recipe = recipe_of(str(base), str(rows))
    plan = make_plan(recipe)
    assert len(alice.log) == 0, "nothing to ask the Hub"
    lock = Lock.of(plan)
    assert "secret-folder" not in lock.to_json()
    fingerprint = plan.data_fingerprint()
    rows.write_bytes(b'{"a": 1}\n')
    changed = make_plan(recipe)
    assert changed.data_fingerprint() != fingerprint
    assert [line.split(":")[0] for line in compare_lock(lock, changed)] == ["data.train.0"]
    assert "content of rows.jsonl changed" in compare_lock(lock, changed)[0]


@pytest.mark.parametrize(
    ("files", "same"),
    [
        ({"chat_template.jinja": b"{{ messages }}", "tokenizer_config.json": b"{}"}, True),
        ({"tokenizer_config.json": b'{"chat_template": [{"name": "default", "template": "{{ messages }}"}]}'}, True),
        ({"tokenizer_config.json": b'{"chat_template": "{{ other }}"}'}, False),
        ({"tokenizer_config.json": b"{}"}, False),
    ],
)
def test_chat_template_is_hashed_wherever_it_stands(
    alice: HubServer, tmp_path: Path, files: dict[str, bytes], same: bool
) -> None:
    rows = write_files(tmp_path, {"rows.jsonl": b"{}\n"}) / "rows.jsonl"
    expected = make_plan(recipe_of(str(write_files(tmp_path / "a", model_files())), str(rows))).chat_template_sha256
    model = alice.unique("base", "bob")
    alice.create_repo(model, {**model_files(), **files})
    plan = make_plan(recipe_of(model, str(rows)))
    assert (plan.chat_template_sha256 == expected) is same
    assert (plan.chat_template_sha256 is None) is (files.get("tokenizer_config.json") == b"{}" and len(files) == 1)
    assert alice.log.count("GET", origin="cdn") == 0, "weights were downloaded for a plan"


def test_lock_records_versions_and_says_what_differs_here(alice: HubServer, repos: tuple[str, str]) -> None:
    lock = Lock.of(make_plan(recipe_of(*repos)), extra={"gpus": 0})
    assert compare_environment(lock) == []
    assert {"torch", "transformers", "huggingface_hub", "inspo_hub"} <= set(lock.packages)
    older = Lock.from_json(lock.to_json().replace(f'"torch": "{lock.packages["torch"]}"', '"torch": "1.0"'), where="x")
    assert compare_environment(older) == [f"torch: 1.0 -> {lock.packages['torch']}"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 9}', '{"format": 1, "pins": {}}'])
def test_unreadable_locks_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock.json").write_text(text)
    with pytest.raises(ResolutionError, match="the lock cannot be read"):
        read_lock(tmp_path)
    with pytest.raises(ResolutionError, match="there is no lock"):
        read_lock(tmp_path / "nowhere")


def test_no_token_in_a_lock(alice: HubServer, repos: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-token-of-an-odd-form-0123")
    alice.accounts.tokens["a-token-of-an-odd-form-0123"] = next(iter(alice.accounts.tokens.values()))
    lock = Lock.of(make_plan(recipe_of(*repos)), extra={"command": "run --token a-token-of-an-odd-form-0123"})
    assert "a-token" not in lock.to_json()
    assert json.loads(lock.to_json())["extra"] == {"command": "run --token [hidden]"}
