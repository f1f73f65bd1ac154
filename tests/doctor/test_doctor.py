"""The command on whole recipes: bases that read and do not, data with every flaw, what it needs and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.cli import main
from inspo_hub.doctor import SEVERITIES, Diagnosis, Finding
from inspo_hub.recipe.shipped import shipped_folder
from tests.hub_server import HubServer
from tests.test_quickstart import make, pretrain
from tests.training.conftest import RECIPE, Project, make_project, make_rows, write_rows

QUICKSTART = shipped_folder() / "quickstart.yaml"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))


def examine(capsys: pytest.CaptureFixture[str], recipe: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """The findings of a recipe by what was checked."""
    assert main(["doctor", str(recipe), "--json", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    order = [list(SEVERITIES).index(finding["severity"]) for finding in told["findings"]]
    assert order == sorted(order)
    return {finding["check"]: finding for finding in told["findings"]}


def settings(*lines: str) -> list[str]:
    return [word for line in lines for word in ("--set", line)]


def test_the_quickstart_reads_its_alternatives(capsys: pytest.CaptureFixture[str]) -> None:
    found = examine(capsys, QUICKSTART, "--pairs", "48")
    assert found["distillation gate"]["severity"] == "ok"
    assert found["packing"]["numbers"]["max_abs_difference"] < 1e-3
    offsets = found["offsets"]["numbers"]
    assert (
        offsets["turn"]["itself"]["mean"] > 0 > offsets["turn"]["partner"]["mean"] > offsets["turn"]["foreign"]["mean"]
    )
    assert offsets["concat"]["partner"]["mean"] < 3 * offsets["turn"]["partner"]["mean"]
    margin = found["start margin"]
    assert (margin["severity"], margin["variants"]) == ("warning", ["inspo"])
    assert 0.3 < margin["numbers"]["plain"]["std"] < 1
    fine = {"length bias", "double BOS", "leaked prompts", "context window", "packages", "preflight", "identical"}
    assert {found[check]["severity"] for check in fine} == {"ok"}


@pytest.mark.slow
def test_a_base_that_never_read_two_answers_is_told_from_one_that_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base of `make.py --plain`, with fewer steps."""
    make.make_base(tmp_path / "base", pretrain.BaseSettings(two_answers=False, steps=60, documents_per_step=16))
    capsys.readouterr()
    found = examine(capsys, QUICKSTART, "--set", f"model.id={tmp_path / 'base'}", "--pairs", "48")
    gate = found["distillation gate"]
    assert (gate["severity"], gate["variants"]) == ("warning", ["inspo"])
    assert gate["numbers"]["effect"] < 0.7
    assert gate["numbers"]["partner_cost"] > 1
    assert found["start margin"]["numbers"]["plain"]["std"] > 1
    assert "averaged" in gate["do"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("examined"), recipe=RECIPE)


def test_every_flaw_of_the_data_is_found_with_what_to_do(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(40)
    for row in rows[:30]:
        row["chosen"], row["rejected"] = sorted((row["chosen"], row["rejected"]), key=len, reverse=True)
    first, second = rows[0], rows[1]
    long = " ".join(["the old songs fell over hills"] * 8)
    rows += [
        {"prompt": "p", "chosen": "same", "rejected": "same"},
        dict(first),
        {"prompt": second["prompt"], "chosen": second["rejected"], "rejected": second["chosen"]},
        {"prompt": first["prompt"].upper() + "!", "chosen": "a cat", "rejected": "on a mat"},
        {"prompt": "long", "chosen": f"{long} cat", "rejected": f"{long} mat"},
    ]
    write_rows(project.folder / "flawed.jsonl", rows)
    write_rows(project.folder / "seen.jsonl", [first, {**second, "prompt": second["prompt"].title() + "?"}])
    train, heldout = (f"[{{id: {project.folder / name}}}]" for name in ("flawed.jsonl", "seen.jsonl"))
    arguments = settings(f"data.train={train}", f"data.heldout={heldout}", "data.max_length=220")
    found = examine(capsys, project.recipe, *arguments, "--pairs", "8")
    counts = {
        "identical": 1,
        "duplicates": 1,
        "contradictions": 2,
        "near-duplicate prompts": 1,
        "near-identical responses": 1,
        "leaked prompts": 1,
        "nearly leaked prompts": 1,
        "cut alternatives": 1,
    }
    assert {check: found[check]["numbers"]["rows"] for check in counts} == counts
    for check in counts:
        assert found[check]["severity"] in ("advice", "warning"), check
        assert found[check]["do"], check
    assert found["leaked prompts"]["numbers"]["row_ids"] == ["seen.jsonl/train/0"]
    assert found["length bias"]["severity"] == "advice"
    assert "rdpo" in found["length bias"]["do"]


def test_a_template_that_writes_bos_twice_is_a_problem(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoTokenizer

    folder = project.folder / "bos"
    tokenizer = AutoTokenizer.from_pretrained(project.folder / "base")
    tokenizer.bos_token = "<|pad|>"
    tokenizer.chat_template = "<|pad|><|pad|>" + str(tokenizer.chat_template)
    tokenizer.save_pretrained(folder)
    found = examine(capsys, project.recipe, "--set", f"model.tokenizer={folder}", "--pairs", "4")
    assert found["double BOS"]["severity"] == "problem"
    assert found["double BOS"]["numbers"]["rows"] == 45
    tokenizer.chat_template = str(tokenizer.chat_template).removeprefix("<|pad|>")
    tokenizer.save_pretrained(folder)
    found = examine(capsys, project.recipe, "--set", f"model.tokenizer={folder}", "--pairs", "4")
    assert found["double BOS"]["severity"] == "ok"
    assert "45 of 45 prompts begin with it" in found["double BOS"]["measured"]


def test_what_a_run_would_stop_at_is_a_problem_before_it(
    project: Project, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["data.max_length=2048", "train.report_to=wandb", "publish={repo: me/model}", "model.attention=flat"]
    found = examine(capsys, project.recipe, *settings(*wanted), "--pairs", "4")
    problems = {check for check, finding in found.items() if finding["severity"] == "problem"}
    assert problems == {"context window", "packages", "token", "preflight"}
    assert found["context window"]["do"] == "set data.max_length: 1024"
    assert "wandb (for train.report_to: wandb)" in found["packages"]["measured"]
    assert "hf auth login" in found["token"]["do"]
    assert "flat, as the recipe says" in found["packing"]["means"]


def test_a_plain_recipe_is_not_asked_about_alternatives(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    found = examine(capsys, project.recipe, "--set", "conditioning=none", "--set", "data.heldout=null")
    assert not {"offsets", "distillation gate", "start margin"} & set(found)
    assert found["held-out pairs"]["severity"] == "advice"


def test_it_writes_nothing_where_the_run_would(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examine(capsys, project.recipe, "--output", str(tmp_path / "out"), "--pairs", "4")
    assert not (tmp_path / "out").exists()


def test_only_an_unusable_recipe_or_data_ends_with_2(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(project.folder / "empty.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "a"}])
    assert main(["doctor", str(project.recipe), "--set", f"data.train=[{{id: {project.folder / 'empty.jsonl'}}}]"]) == 2
    assert "no row is left" in capsys.readouterr().err
    assert main(["doctor", str(project.recipe), "--set", "train.lr=-1"]) == 2
    assert main(["doctor", str(project.recipe), "--set", f"model.id={project.folder}"]) == 3


def test_a_diagnosis_tells_the_worst_first_and_what_to_do() -> None:
    fine = Finding(check="c", severity="ok", measured="1 of 1", means="good")
    bad = Finding(
        check="b", severity="problem", measured="2 nats", means="it stops", do="repair it", variants=("inspo",)
    )
    text = Diagnosis.of("r", [fine, bad]).text()
    assert text.startswith("r: 1 problem, 1 ok\n")
    assert "problem: b (inspo)\n  measured: 2 nats\n  means: it stops\n  do: repair it" in text
    assert text.index("2 nats") < text.index("1 of 1")
    with pytest.raises(AssertionError, match="does not say what to do"):
        Finding(check="d", severity="advice", measured="", means="")
