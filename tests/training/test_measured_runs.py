"""A sweep with everything measured, as a user runs it: its report, again from the disk, and nothing done twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from inspo_hub.cli import main
from tests.training.conftest import RECIPE, Project, make_project, make_rows, write_rows

SWEPT = (
    RECIPE.replace("conditioning: symmetric\n", "")
    + """\
sweep: {conditioning: [none, symmetric], seed: [0, 1]}
evaluate:
  prompts: {id: ./prompts.jsonl}
  judge: {python: "./judge.py:score"}
  max_new_tokens: 8
  bootstrap: 50
  preferences: {max_new_tokens: 8}
  latency: {prompt_tokens: 8, new_tokens: 3, rounds: 6}
"""
)
NAMES = ["none_seed0", "none_seed1", "symmetric_seed0", "symmetric_seed1"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("swept"), heldout=12, recipe=SWEPT)
    write_rows(project.folder / "prompts.jsonl", [{"prompt": row["prompt"]} for row in make_rows(6, seed=3)])
    (project.folder / "judge.py").write_text("def score(prompt, response):\n    return float(len(set(response)))\n")
    project.run()
    return project


@pytest.mark.slow
def test_a_sweep_shares_data_and_reference_and_ends_in_one_report(swept: Project) -> None:
    output = swept.folder / "out"
    summaries = {name: json.loads((output / name / "trained.json").read_text()) for name in NAMES}
    assert {one["pairs"] for one in summaries.values()} == {45}
    assert summaries["none_seed0"]["training"]["seed"] == 0
    assert summaries["none_seed1"]["training"]["seed"] == 1
    assert len(list((swept.folder / "cache" / "reference").glob("*.sqlite"))) == 1
    preferences = json.loads((output / "report" / "preferences.json").read_text())
    assert list(preferences["systems"]) == ["base", *NAMES]
    assert (preferences["pairs"], len(preferences["contexts"])) == (12, 7)
    plain = {name: preferences["systems"][name]["plain"] for name in NAMES}
    for name, summary in summaries.items():
        # What training itself said of the same pairs, without β.
        assert plain[name]["margin"]["value"] == pytest.approx(summary["heldout"]["plain_margin"] / 0.5, abs=1e-4)
        assert plain[name]["accuracy"]["value"] == pytest.approx(summary["heldout"]["plain_accuracy"])
    latency = json.loads((output / "report" / "latency.json").read_text())["variants"]
    assert {name: found["differences"] for name, found in latency.items()} == {name: [] for name in NAMES}
    page = (output / "report" / "report.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert [name for name in ("Answers", "Over seeds", "Curves", "Cost", "Samples") if name not in headings] == []
    card = (output / "none_seed0" / "README.md").read_text(encoding="utf-8")
    assert "### Preferences in other contexts" in card
    assert "### Time of answering" in card


@pytest.mark.slow
def test_the_report_is_written_again_from_what_lies_there(
    swept: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = swept.folder / "out"
    files = [output / "README.md", output / "report" / "report.html", output / "none_seed0" / "README.md"]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert main(["report", str(output), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["page"], facts["variants"]) == (str(files[1]), NAMES)
    assert [file.read_bytes() for file in files] == before
    assert main(["report", str(output / "none_seed0"), "--no-html"]) == 0
    assert not (output / "none_seed0" / "report" / "report.html").exists()
    assert main(["report", str(output / "none_seed0")]) == 0
    assert (output / "none_seed0" / "report" / "report.html").is_file()
    assert main(["report", str(tmp_path)]) == 1
    assert "there is nothing to report" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_is_measured_twice(swept: Project) -> None:
    report = swept.folder / "out" / "report"
    names = ("preferences.json", "latency.json", "comparison.json", "generations.jsonl")
    before = {name: (report / name).stat().st_mtime_ns for name in names}
    swept.run("--set", "evaluate.latency.rounds=7")
    after = {name: (report / name).stat().st_mtime_ns for name in names}
    assert [name for name in names if after[name] != before[name]] == ["latency.json"]
    assert json.loads((report / "latency.json").read_text())["workload"]["rounds"] == 7
