"""`inspo-hub plan` as people and workflows call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.cli import main
from inspo_hub.recipe.shipped import shipped_folder
from tests.hub.conftest import alice
from tests.hub_server import HubServer
from tests.hub_server.fixtures import HubProcess
from tests.training.conftest import Project, make_project, make_rows

__all__ = ["alice"]

TWINS = """\
version: 1
name: twins
model: {id: base}
data: {train: [{id: train.jsonl}], heldout: [{id: heldout.jsonl}], max_length: 256}
train: {lr: 3e-3, pairs_per_step: 6, tokens_per_microbatch: 800}
variants: {dpo: {conditioning: none}, inspo: {conditioning: symmetric}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"), recipe=TWINS)


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    exit_code = main(["plan", *map(str, arguments)])
    captured = capsys.readouterr()
    return exit_code, captured.out, captured.err


def only_json(text: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(text)
    assert len(text.splitlines()) == 1
    return facts


def test_a_plan_for_people(alice: HubServer, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, err = outcome(capsys, project.recipe)
    assert (exit_code, err) == (0, "")
    assert out.startswith("twins: ")
    for words in (
        "Model",
        "45 training pairs, 5 held out",
        "symmetric",
        "reference pass, once for all variants: 50 pairs",
        "total",
        "zero3",
        "the Hub's own list",
        "ASSUMED",
        "--set train.tokens_per_microbatch=",
    ):
        assert words in out


def test_a_plan_for_programs(alice: HubServer, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, err = outcome(capsys, project.recipe, "--json", "--flavor", "h200", "--set", "train.max_steps=3")
    facts = only_json(out)
    assert (exit_code, err, facts["ok"], facts["name"]) == (0, "", True, "twins")
    assert facts["chosen"]["flavor"] == "h200"
    assert facts["chosen"]["usd"] == pytest.approx(facts["chosen"]["hours"] * facts["chosen"]["usd_per_hour"])
    assert set(facts["variants"]) == {"dpo", "inspo"}
    assert facts["variants"]["dpo"]["steps"] == 3
    assert facts["data"]["exact"]
    assert facts["timeout_minutes"] > 15
    assert facts["prices"] == "the Hub's own list, asked for now"
    assert "matrices" not in facts["model"]


def test_without_the_hub_the_dated_table_stands(
    alice: HubServer, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    alice.stop()
    exit_code, out, _ = outcome(capsys, project.recipe)
    assert exit_code == 0
    assert "the table of 2026-11-23 from https://huggingface.co/docs/hub/jobs-pricing" in out


def test_too_expensive_is_exit_2_with_numbers(
    alice: HubServer, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (project.recipe, "--flavor", "h200x8", "--max-usd")
    exit_code, out, err = outcome(capsys, *asked, 100)
    assert (exit_code, err) == (0, "")
    exit_code, out, err = outcome(capsys, *asked, 0.01)
    assert exit_code == 2
    assert "Chosen: h200x8" in out
    assert err.startswith("error: --max-usd: the run is expected to cost $")
    assert "expected: at most $0.01" in err
    exit_code, out, err = outcome(capsys, *asked, 0.01, "--json")
    facts = only_json(out)
    assert (exit_code, err, facts["ok"], facts["error"]) == (2, "", False, "OverBudget")
    assert facts["usd"] > facts["max_usd"] == 0.01
    assert facts["flavor"] == "h200x8"


def test_a_summary_is_appended_where_the_workflow_says(
    alice: HubServer,
    project: Project,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, other = tmp_path / "summary.md", tmp_path / "other.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert outcome(capsys, project.recipe, "--summary", "--max-usd", 0)[0] == 2
    text = page.read_text()
    assert text.startswith("before\n## Plan of `twins`\n")
    assert "| conditioning |" in text
    assert outcome(capsys, project.recipe, "--summary-file", other)[0] == 0
    assert other.read_text().startswith("## Plan of `twins`")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    exit_code, _, err = outcome(capsys, project.recipe, "--summary")
    assert (exit_code, "this is no step of a workflow" in err) == (2, True)
    exit_code, _, err = outcome(capsys, project.recipe, "--summary-file", tmp_path / "no" / "folder.md")
    assert (exit_code, "cannot be written" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("--flavor", "h900"), 2, "no flavour 'h900'"),
        (("--flavor", "h200", "--gpus", "8"), 2, "h200 has 1 GPUs, not 8"),
        (("--max-usd", "-1"), 2, "--max-usd"),
        (("--set", "model.id=owner/none"), 3, "owner/none"),
        (("--set", "train.lrr=1"), 2, "lrr"),
    ],
)
def test_what_is_wrong_is_told(
    alice: HubServer,
    project: Project,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    exit_code: int,
    message: str,
) -> None:
    found, _, err = outcome(capsys, project.recipe, *arguments)
    assert (found, message in err) == (exit_code, True), err


def test_everything_on_the_hub_is_planned_from_parts(
    hub: HubServer, hub_process: HubProcess, project: Project, tmp_path: Path
) -> None:
    """In a process of its own with a fresh home: neither torch nor the weights come, and no other host is asked."""
    model, data = hub.unique("base", "bob"), hub.unique("pairs", "bob")
    hub.create_repo(model, {path.name: path.read_bytes() for path in (project.folder / "base").iterdir()})
    rows = "".join(json.dumps(row) + "\n" for row in make_rows(300)).encode()
    hub.create_repo(data, {"train.jsonl": rows}, type="dataset")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"version: 1\nname: far\nmodel: {{id: {model}}}\ndata: {{train: [{{id: {data}}}], max_length: 256}}\n"
        "train: {lr: 1e-6, pairs_per_step: 30}\n"
    )
    code = (
        "import sys\nfrom inspo_hub.cli import main\n"
        f"code = main(['plan', {str(recipe)!r}, '--json'])\n"
        "assert 'torch' not in sys.modules\nsys.exit(code)"
    )
    done = hub_process.run(code)
    facts = only_json(done.stdout)
    assert (facts["variants"]["far"]["steps"], facts["variants"]["far"]["pairs"]) == (10, 300)
    assert facts["model"]["name"] == f"{model}@{hub.head(model)}"
    weights = [entry for entry in hub.log if entry.url.endswith("model.safetensors") and "range" not in entry.headers]
    assert [entry for entry in weights if entry.method == "GET"] == []


BARE = """
import sys

ABSENT = {"torch", "numpy", "pyarrow", "datasets", "transformers", "tokenizers", "jinja2", "safetensors"}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def test_the_core_alone_can_plan_and_says_what_it_lacks(project: Project) -> None:
    """Without a single library that a wheel's core does not bring: neither tokenizers nor numpy."""
    code = BARE + f"from inspo_hub.cli import main\nsys.exit(main(['plan', {str(project.recipe)!r}, '--json']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=project.environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr
    facts = only_json(done.stdout)
    assert "ESTIMATED FROM CHARACTERS" in facts["data"]["method"]
    assert facts["variants"]["dpo"]["steps"] == 8


def test_the_shipped_recipes_can_be_planned(alice: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, _ = outcome(capsys, shipped_folder() / "quickstart.yaml", "--json")
    facts = only_json(out)
    assert exit_code == 0
    assert facts["variants"]["inspo"]["steps"] == 120
    assert facts["data"]["prompts"] == 320
    assert "evaluation" in facts["chosen"]["seconds"]


@pytest.mark.slow
def test_this_machine_is_measured(project: Project) -> None:
    command = "from inspo_hub.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", command, "plan", str(project.recipe), "--calibrate", "--json"],
        capture_output=True,
        text=True,
        env=project.environment(),
        timeout=280,
    )
    here = only_json(done.stdout)["here"]
    assert here["measured"]
    assert 0 < here["seconds"]["training"] < 600
    assert here["usd"] == 0
