"""The workflows of .github: what every one of them keeps to, and what their steps run, run here too."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from email.parser import Parser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml

import inspo_hub
from tests.hub.conftest import alice
from tests.hub_server import HubServer
from tests.hub_server.fixtures import HubProcess
from tests.publishing.conftest import World, world
from tests.submitting.conftest import ends, plays

__all__ = ["alice", "world"]

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / ".github" / "scripts"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the runners' bash is tested on Linux and macOS")


def loaded(file: Path) -> dict[str, Any]:
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["on"] = values.pop(True)  # YAML 1.1
    return dict(values)


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in WORKFLOWS:
        for name, job in loaded(file)["jobs"].items():
            yield f"{file.name}: {name}", job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in jobs():
        for step in job["steps"]:
            yield name, step


COMMANDS = sorted({step["run"] for _, step in steps() if "run" in step})


def bash(
    command: str, *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, check: bool = True, first_on_path: str = ""
) -> subprocess.CompletedProcess[str]:
    """A command as a runner's step runs it."""
    path = os.pathsep.join(filter(None, [first_on_path, str(BIN), os.environ["PATH"]]))
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
        cwd=cwd,
        env={**os.environ, **(env or {}), "PATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert not check or done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


# --- rules


def test_there_are_the_workflows_that_are_promised() -> None:
    assert {file.stem for file in WORKFLOWS} == {"ci", "train", "gpu-tests", "space", "retrain", "release"}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_starts_without_rights_and_never_from_a_foreign_target(file: Path) -> None:
    workflow = loaded(file)
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in workflow["on"]
    assert "workflow_run" not in workflow["on"]


def test_every_job_has_a_time_limit_and_only_the_rights_it_needs() -> None:
    for name, job in jobs():
        assert isinstance(job["timeout-minutes"], int), name
        assert set(job["permissions"]) <= {"contents", "id-token"}, name
        assert job["permissions"].get("contents", "read") == "read", name


def test_secrets_are_read_only_in_protected_environments() -> None:
    for name, job in jobs():
        if "secrets." in yaml.safe_dump(job) or "id-token" in job["permissions"]:
            assert "environment" in job, name


def test_actions_are_pinned_to_commits_and_named_by_their_version() -> None:
    used = [line for file in WORKFLOWS for line in file.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.search(r"uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    pins: dict[str, set[str]] = {}
    for line in used:
        action, _, commit = line.partition("uses: ")[2].partition("@")
        pins.setdefault(action, set()).add(commit)
    assert all(len(commits) == 1 for commits in pins.values()), pins


def test_no_expression_reaches_a_shell() -> None:
    assert [step["run"] for _, step in steps() if "${{" in step.get("run", "")] == []


def test_every_step_runs_one_script_or_command_that_is_tested_here() -> None:
    scripts = {f".github/scripts/{file.name}" for file in SCRIPTS.glob("*.sh")}
    tested = {
        "make check",  # its parts: ruff, mypy, and the two scripts below
        'python -m pip install "$PACKAGE"',
        'python -m pip install "$PACKAGE" "inspo-hub[train]"',
        *(command for command in COMMANDS if command.startswith("inspo-hub ")),
        'accelerate launch -m inspo_hub.run "$RECIPE" --output output --resume auto',
    }
    assert set(COMMANDS) <= scripts | tested
    by_make = (ROOT / "Makefile").read_text()
    assert [name for name in sorted(scripts) if name not in COMMANDS and name not in by_make] == [], "unused scripts"


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda file: file.stem)
def test_a_script_is_bash_that_stops_at_its_first_fault(script: Path) -> None:
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "\nset -euo pipefail\n" in text
    bash(f'bash -n "{script}"')


# --- what the steps run


def test_the_workflows_pass_their_linters_and_a_bad_one_does_not(tmp_path: Path) -> None:
    assert "No findings to report" in bash(".github/scripts/check_workflows.sh").stdout
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    bad = tmp_path / ".github" / "workflows" / "ci.yml"
    bad.write_text(bad.read_text().replace("run: make check", 'run: echo "${{ github.head_ref }}"'))
    done = bash(".github/scripts/check_workflows.sh", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "template-injection" in done.stdout + done.stderr


def test_the_recipes_are_validated_by_the_package_and_by_the_schema(tmp_path: Path) -> None:
    assert "quickstart.yaml is valid" in bash(".github/scripts/validate_recipes.sh").stdout
    (tmp_path / "recipes").mkdir()
    shutil.copy(ROOT / "recipes" / "recipe.schema.json", tmp_path / "recipes")
    (tmp_path / "recipes" / "bad.yaml").write_text("version: 1\nname: x\nmodle: {}\n")
    done = bash(f"{SCRIPTS}/validate_recipes.sh", cwd=tmp_path, check=False)
    assert (done.returncode, "did you mean model?" in done.stderr) == (2, True)


def recorded(folder: Path, *names: str) -> str:
    """A folder of programs that write down how they were called, and do nothing else."""
    folder.mkdir()
    for name in names:
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\n')
        program.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(("extras", "asked"), [("dev", ".[dev]"), ("", ".")])
def test_install_takes_the_extras_that_are_named(tmp_path: Path, extras: str, asked: str) -> None:
    stub = recorded(tmp_path / "bin", "python")
    bash(".github/scripts/install.sh", env={"EXTRAS": extras}, first_on_path=stub)
    called = (tmp_path / "bin" / "calls").read_text()
    assert called.endswith(f"--constraint constraints.txt --editable {asked}\n")


@pytest.mark.parametrize("package", [".[plan]", "inspo-hub[plan]; rm -rf /"])
def test_a_package_is_one_argument_whatever_it_holds(tmp_path: Path, package: str) -> None:
    stub = recorded(tmp_path / "bin", "python")
    bash('python -m pip install "$PACKAGE"', env={"PACKAGE": package}, first_on_path=stub)
    assert (tmp_path / "bin" / "calls").read_text() == f"python -m pip install {package}\n"


def test_the_tests_are_run_and_some_of_them_if_asked(tmp_path: Path) -> None:
    stub = recorded(tmp_path / "bin", "python")
    bash(".github/scripts/tests.sh", env={"ONLY": "space"}, first_on_path=stub)
    bash(".github/scripts/tests.sh", env={"ONLY": ""}, first_on_path=stub)
    bash(".github/scripts/gpu_tests.sh", first_on_path=stub)
    assert (tmp_path / "bin" / "calls").read_text().splitlines() == [
        "python -m pytest -n 2 --dist loadfile -m not gpu and not hub -k space",
        "python -m pytest -n 2 --dist loadfile -m not gpu and not hub",
        "python -m pytest -m gpu",
    ]


def test_a_pull_request_gets_the_plans_of_what_it_changes(tmp_path: Path) -> None:
    git = "git -c user.name=x -c user.email=x@x -c init.defaultBranch=main"
    stub = recorded(tmp_path / "bin", "inspo-hub")
    place = tmp_path / "repo"
    (place / "recipes" / "accelerate").mkdir(parents=True)
    for name in ("a.yaml", "b.yaml", "gone.yaml", "accelerate/ddp.yaml"):
        (place / "recipes" / name).write_text("1\n")
    bash(f"{git} init -q && git add . && {git} commit -qm base", cwd=place)
    base = bash("git rev-parse HEAD", cwd=place).stdout.strip()
    script = f"{SCRIPTS}/plan_changed.sh"
    assert "no recipe differs" in bash(script, cwd=place, env={"BASE": base}).stdout
    for name in ("a.yaml", "new $(touch pwned).yaml", "accelerate/ddp.yaml", "_part.yaml"):
        (place / "recipes" / name).write_text("2\n")
    (place / "recipes" / "gone.yaml").unlink()
    bash(f"git add -A && {git} commit -qm change", cwd=place)
    bash(script, cwd=place, env={"BASE": base}, first_on_path=stub)
    assert (tmp_path / "bin" / "calls").read_text().splitlines() == [
        "inspo-hub validate recipes/a.yaml",
        "inspo-hub plan recipes/a.yaml --summary",
        "inspo-hub validate recipes/new $(touch pwned).yaml",
        "inspo-hub plan recipes/new $(touch pwned).yaml --summary",
    ]
    assert not (place / "pwned").exists()
    (tmp_path / "bin" / "calls").unlink()
    bash(script, cwd=place, env={"BASE": base, "LABEL": "plan"}, first_on_path=stub)
    planned = [line for line in (tmp_path / "bin" / "calls").read_text().splitlines() if line.endswith("--summary")]
    assert len(planned) == 3, "all that are there, without launch profiles and parts"


@pytest.mark.parametrize(("tag", "exit_code"), [("v1.2.3", 0), ("1.2.3", 0), ("v1.2.4", 1)])
def test_a_release_has_the_version_of_its_wheel(tmp_path: Path, tag: str, exit_code: int) -> None:
    (tmp_path / "inspo_hub-1.2.3-py3-none-any.whl").touch()
    env = {"TAG": tag, "DIST": str(tmp_path)}
    assert bash(".github/scripts/same_version.sh", env=env, check=False).returncode == exit_code


def new_votes() -> Any:
    specification = spec_from_file_location("new_votes", SCRIPTS / "new_votes.py")
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_new_votes_are_noticed(alice: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    votes, model = alice.unique("votes", "alice"), alice.unique("model", "alice")
    first = alice.create_repo(votes, {"votes.jsonl": "{}\n"}, type="dataset")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"version: 1\nname: r\nmodel: {{id: alice/base}}\ndata: {{train: [{{id: {votes}}}]}}\n"
        f"train: {{lr: 1e-6}}\npublish: {{repo: {model}}}\n"
    )
    changed = new_votes().main
    assert changed(str(recipe)) == 0, "nothing is published yet"
    lock = f'{{"pins": {{"data.train.0": {{"sha": "{first}"}}}}}}'
    alice.create_repo(model, {"lock.json": lock})
    assert changed(str(recipe)) == 10
    alice.commit(votes, {"votes.jsonl": "{}\n{}\n"}, type="dataset")
    assert changed(str(recipe)) == 0
    assert f"the published models saw {{'{first}'}}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_space_is_deployed_by_identity_without_a_stored_token(hub_process: HubProcess) -> None:
    """As `space.yml` sets it: the job's identity is exchanged for a token to this one Space."""
    hub = hub_process.server
    space = hub.unique("compare", "alice")
    answers = {"prompt": "x", "system": "a", "response": "y"}
    config = {
        "title": "Which is better?",
        "backend": "precomputed",
        "generations": {"path": "run/generations.jsonl"},
        "systems": [{"name": "a"}, {"name": "b"}],
    }
    files = {
        "space.json": json.dumps(config),
        "README.md": "---\ntitle: old\nsuggested_hardware: zero-a10g\n---\n",
        "run/generations.jsonl": json.dumps(answers) + "\n",
        "inspo_hub/gone.py": "1\n",
        "theirs.txt": "stays\n",
    }
    hub.create_repo(space, files, type="space", settings={"sdk": "gradio"})
    hub.trust(f"spaces/{space}", "signed by the runner")
    identity = {"HF_OIDC_RESOURCE": f"spaces/{space}", "HF_OIDC_ID_TOKEN": "signed by the runner"}
    env = hub_process.environment() | {"SPACE": space} | identity
    bash(f"{SCRIPTS}/deploy_space.sh", env=env)
    there, head = hub.files(space, type="space"), hub.head(space, type="space")
    assert {"app.py", "compare_page/blocks.py", "inspo_hub/cli/app.py", "theirs.txt"} <= set(there)
    assert "inspo_hub/gone.py" not in there
    assert there["run/generations.jsonl"].decode() == files["run/generations.jsonl"]
    assert json.loads(there["space.json"])["title"] == "Which is better?"
    assert "suggested_hardware: zero-a10g" in there["README.md"].decode()
    bash(f"{SCRIPTS}/deploy_space.sh", env=env)
    assert hub.head(space, type="space") == head, "nothing is committed twice"
    hub.commit(space, {"space.json": None}, type="space")
    done = bash(f"{SCRIPTS}/deploy_space.sh", env=env, check=False)
    assert (done.returncode, "it has no space.json" in done.stderr) == (2, True)


@pytest.mark.slow
def test_the_steps_of_training_plan_and_submit(hub_process: HubProcess, world: World, tmp_path: Path) -> None:
    """`train.yml` and `retrain.yml` from their own lines, with a recipe whose name is no friend of shells."""
    hub = hub_process.server
    recipe = tmp_path / "a recipe; exit 9.yaml"
    repo = hub.unique("by-action", "alice")
    recipe.write_text(world.recipe + f"publish: {{repo: {repo}, strategy: checkpoint}}\n")
    summary = tmp_path / "summary.md"
    env = hub_process.environment(token=hub.token("alice")) | {
        "RECIPE": str(recipe),
        "FLAVOR": "cpu-basic",
        "MAX_USD": "1",
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    hub.machine = plays(ends(0, "step 1"))
    commands = [command for command in COMMANDS if command.startswith("inspo-hub ")]
    assert len(commands) == 5
    for command in commands:
        bash(command, cwd=tmp_path, env=env)
    assert "$" in summary.read_text()
    assert len([job for job in hub.jobs.values() if "by-action" in repo and job.namespace == "alice"]) >= 3


@pytest.mark.slow
def test_a_recipe_end_to_end_in_two_processes(tmp_path: Path) -> None:
    bash(".github/scripts/tiny_run.sh", env={"OUTPUT": str(tmp_path / "out"), "HF_HUB_OFFLINE": "1"})
    assert (tmp_path / "out" / "inspo" / "metrics.jsonl").read_text().count('"split": "heldout"') == 2


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_without_the_repository(tmp_path: Path) -> None:
    """Built, below 6 MB, with recipes and types inside; installed alone, beside the dependencies that are here."""
    dist = tmp_path / "dist"
    bash(".github/scripts/build.sh", env={"DIST": str(dist)})
    [wheel] = dist.glob("*.whl")
    assert wheel.stat().st_size < 6_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata_file] = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(metadata_file).decode())
    inside = {"py.typed", "_recipes/quickstart.yaml", "_recipes/quickstart/train.jsonl", "_recipes/recipe.schema.json"}
    assert {f"inspo_hub/{name}" for name in inside} <= names
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]
    assert (metadata["Name"], metadata["Version"]) == ("inspo-hub", inspo_hub.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in metadata.get_all("Classifier")
    here = os.pathsep.join({str(Path(pytest.__file__).parents[1]), str(Path(yaml.__file__).parents[1])})
    done = bash(
        ".github/scripts/try_wheel.sh", env={"DIST": str(dist), "PIP_ARGUMENTS": "--no-deps", "PYTHONPATH": here}
    )
    assert f"inspo_hub {inspo_hub.__version__}" in done.stdout
    assert str(ROOT) not in done.stdout, "the recipes are those of the wheel"
    assert "quickstart.yaml is valid" in done.stdout
    assert "Chosen: cpu-upgrade" in done.stdout
