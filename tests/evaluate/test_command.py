"""`inspo-hub evaluate` on a run's output, on a model of the Hub and on a folder, against every kind of opponent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspo_hub import hub as room
from inspo_hub.cli import main
from inspo_hub.describing import note
from inspo_hub.plan import make_plans
from inspo_hub.recipe import RecipeProblems, load_recipe
from inspo_hub.recipe.evaluation import evaluation_section
from tests.evaluate.chat_server import ChatServer
from tests.evaluate.test_whole_evaluation import opinion
from tests.hub_server import HubServer

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart"
FEW = ["--set", "evaluate.limit=4", "--set", "evaluate.max_new_tokens=16", "--set", "evaluate.bootstrap=20"]


@pytest.fixture
def server(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "inspo_cache"))
    monkeypatch.chdir(tmp_path)
    with ChatServer(opinion) as running:
        yield running


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    assert main(["evaluate", *arguments, "--json"]) == exit_code, capsys.readouterr().out
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def asks(server: ChatServer) -> list[str]:
    return [
        *("--set", "evaluate.judge.endpoint.model=judge-1"),
        *("--set", f"evaluate.judge.endpoint.base_url={server.url}"),
    ]


@pytest.fixture
def output(tmp_path: Path, server: ChatServer) -> Path:
    """What a run of the quickstart's twins leaves, their weights not moved."""
    recipe = load_recipe(QUICKSTART.with_suffix(".yaml"))
    folder = tmp_path / "out"
    plans = make_plans(recipe.variant_recipes())
    folders = {name: folder / name for name in plans}
    for each in folders.values():
        shutil.copytree(QUICKSTART / "base", each)
    note(recipe, plans, folders, dict.fromkeys(plans), folder)
    summary = {"heldout": None, "train": {"plain_margin": 1.0}, "tokens_per_step": 9.0, "seconds_per_step": 0.1}
    for each in folders.values():
        room.write_json(each / "trained.json", {**summary, "training": "1", "steps": 3})
    return folder


def test_the_twins_of_a_run_by_its_own_recipe_and_by_another_judge(
    output: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(capsys, str(output), *FEW)
    assert found["judge"] == "judge.py:score"
    assert [(pair["first"], pair["second"]) for pair in found["comparisons"]] == [
        ("dpo", "base"), ("inspo", "base"), ("dpo", "inspo"),
    ]  # fmt: skip
    assert found["training"]["dpo"]["plain_margin"] == 1.0
    assert (output / "evaluation" / "report" / "generations.jsonl").is_file()
    again = evaluated(capsys, str(output), *FEW, *asks(server), "--against", "base", "-o", str(output.parent / "other"))
    assert again["judge"] == "judge-1"
    assert {pair["judging"]["ties"] for pair in again["comparisons"]} == {4}, "all of them are one model"
    assert server.requests == []


def test_a_model_of_the_hub_against_its_base_a_rival_and_a_file(
    hub: HubServer, server: ChatServer, tmp_path: Path, moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, mine, prompts = hub.unique("base", "bob"), hub.unique("mine", "bob"), hub.unique("prompts", "bob")
    files = {file.name: file.read_bytes() for file in (QUICKSTART / "base").iterdir()}
    hub.create_repo(base, files)
    card = f"---\nbase_model: {base}\n---\n# mine\n".encode()
    weights = {file.name: file.read_bytes() for file in moved.iterdir()}
    hub.create_repo(mine, {**files, **weights, "README.md": card})
    lines = (QUICKSTART / "prompts.jsonl").read_bytes().split(b"\n")[:4]
    hub.create_repo(prompts, {"asked.jsonl": b"\n".join(lines) + b"\n"}, type="dataset")
    column = "evaluate.prompts.column=prompt"
    common = ["--set", f"evaluate.prompts.id={prompts}", "--set", column, *FEW, *asks(server)]
    found = evaluated(capsys, mine, *common)
    name = mine.split("/")[1]
    assert [(pair["first"], pair["second"]) for pair in found["comparisons"]] == [(name, "base")]
    assert next(each for each in found["systems"] if each["name"] == name)["kl_from_base"] is not None
    assert Path(found["output"]) == Path("outputs") / f"{name}-evaluation"
    outputs = Path(found["output"]) / "report" / "model_outputs" / f"{name}.json"
    saved = tmp_path / "saved.json"
    saved.write_text(outputs.read_text().replace(f'"generator": "{name}"', '"generator": "yesterday"'))
    asked = len(server.requests)
    rivals = evaluated(capsys, mine, *common, "--against", str(saved), "--against", base, "--against", "base")
    pairs = [(pair["first"], pair["second"]) for pair in rivals["comparisons"]]
    rival = base.split("/")[1]
    assert pairs == [(name, "yesterday"), (name, rival), (name, "base")]
    assert rivals["comparisons"][0]["judging"]["ties"] == 4, "its own answers of before"
    assert len(server.requests) == asked, "the rival is the base: every question was asked before"


def test_a_file_that_lacks_an_answer_is_refused(
    server: ChatServer, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps([{"instruction": "Else?", "output": "yes", "generator": "x"}]))
    prompts = f"evaluate.prompts.id={QUICKSTART / 'prompts.jsonl'}"
    arguments = [str(moved), "--set", prompts, *FEW, *asks(server), "--base", "none", "--against", str(saved)]
    found = evaluated(capsys, *arguments, exit_code=2)
    assert "4 of 4 prompts have no answer, prompts.jsonl/0 among them" in found["what"]
    saved.write_text("{}")
    assert "no file of answers" in evaluated(capsys, *arguments, exit_code=2)["what"]


@pytest.mark.parametrize(
    ("overrides", "path", "what"),
    [
        ([], "evaluate.prompts", "is missing"),
        (["evaluate.prompts.id=a/b"], "evaluate.judge", "is missing"),
        (["evaluate.prompts.id=a/b", "evaluate.judge={}"], "evaluate.judge", "names no judge"),
        (
            ["evaluate.prompts.id=a/b", "evaluate.judge.python=m:f", "train.lr=1"],
            "train.lr",
            "is not of the evaluation",
        ),
        (["evaluate.prompts.id=a/b", "evaluate.judge.pyton=m:f"], "evaluate.judge.pyton", "unknown key"),
    ],
)
def test_what_is_missing_or_wrong_is_told_with_its_key(overrides: list[str], path: str, what: str) -> None:
    with pytest.raises(RecipeProblems) as caught:
        evaluation_section(None, overrides)
    assert any(problem.path == path and what in problem.what for problem in caught.value.problems)


def test_another_kind_of_judge_takes_the_place_of_the_recipes() -> None:
    known = {"prompts": {"id": "a/b"}, "judge": {"python": "m:f", "max_failed": 0.5}}
    changed = evaluation_section(known, ["evaluate.judge.model.id=x/y"])
    assert changed.judge.python is None
    assert changed.judge.max_failed == 0.02
    kept = evaluation_section(known, ["evaluate.judge.max_failed=0.1", "evaluate.limit=3"])
    assert (kept.judge.python, kept.judge.max_failed, kept.limit) == ("m:f", 0.1, 3)
