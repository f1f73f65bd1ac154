"""The command line: what it prints, its exit codes, its JSON, and that it starts light."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from inspo_hub import __version__
from inspo_hub.cli import main
from inspo_hub.cli.app import COMMAND_MODULES, app
from inspo_hub.errors import (
    DataError,
    InspoError,
    JudgeError,
    PublishError,
    RecipeError,
    ResolutionError,
    TrainingError,
)
from inspo_hub.recipe import load_recipe, parse_recipe
from inspo_hub.recipe.export import recipe_schema, schema_text
from inspo_hub.recipe.reference import reference_page
from inspo_hub.recipe.shipped import shipped_folder

ROOT = Path(__file__).parent.parent
QUICKSTART = shipped_folder() / "quickstart.yaml"
RECIPE = """\
version: 1
name: tiny
model: {id: owner/model}
data: {train: [{id: owner/pairs}]}
train: {lr: 5e-7}
variants: {dpo: {conditioning: none}, inspo: {conditioning: symmetric}}
"""


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("RANK", raising=False)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "broken.yaml"
    file.write_text(RECIPE + "sed: 1\nnmae: x\n")
    return file


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    exit_code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return exit_code, captured.out, captured.err


def only_json(text: str) -> dict[str, Any]:
    assert text.count("\n") == 1, "one object on one line"
    value: dict[str, Any] = json.loads(text)
    return value


# --- validate


def test_validate_says_what_would_be_trained(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    exit_code, out, err = outcome(capsys, "validate", recipe)
    assert (exit_code, err) == (0, "")
    assert out.splitlines() == [
        f"{recipe} is valid",
        "  name: tiny",
        f"  sha256: {load_recipe(recipe).sha256()}",
        "  model: owner/model",
        "  data: owner/pairs (train)",
        "  trains dpo: dpo × none",
        "  trains inspo: dpo × symmetric",
    ]


def test_validate_in_json(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    overrides = ["variants.dpo.conditioning=rejected_only", "seed=3"]
    exit_code, out, err = outcome(capsys, "validate", recipe, "--json", *(f"--set={text}" for text in overrides))
    facts = only_json(out)
    loaded = load_recipe(recipe, overrides)
    assert (exit_code, err, facts["ok"]) == (0, "", True)
    assert facts["sha256"] == loaded.sha256()
    assert facts["variants"]["dpo"]["conditioning"] == "rejected_only"
    assert facts["cautions"] == list(loaded.cautions) != []


def test_validate_prints_the_resolved_recipe(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    exit_code, out, _ = outcome(capsys, "validate", recipe, "--resolved", "--set", "seed=3")
    assert exit_code == 0
    assert parse_recipe(out) == load_recipe(recipe, ["seed=3"])


def test_a_wrong_recipe_is_one_message_on_stderr_and_exit_2(capsys: pytest.CaptureFixture[str], broken: Path) -> None:
    exit_code, out, err = outcome(capsys, "validate", broken)
    assert (exit_code, out) == (2, "")
    assert err == (
        f"error: {broken}: 2 problems\n"
        f"{broken}:7: sed: unknown key 'sed'\n  fix: did you mean seed?\n"
        f"{broken}:8: nmae: unknown key 'nmae'\n  fix: did you mean name?\n"
    )


def test_a_wrong_recipe_in_json_is_one_object_on_stdout(capsys: pytest.CaptureFixture[str], broken: Path) -> None:
    exit_code, out, err = outcome(capsys, "validate", "--json", broken)
    facts = only_json(out)
    assert (exit_code, err, facts["ok"], facts["exit_code"]) == (2, "", False, 2)
    assert [problem["path"] for problem in facts["problems"]] == ["sed", "nmae"]


# --- schema, init


def test_schema_prints_and_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert outcome(capsys, "schema") == (0, schema_text(), "")
    assert outcome(capsys, "schema", "--format", "markdown") == (0, reference_page(), "")
    exit_code, out, _ = outcome(capsys, "schema", "--output", tmp_path / "s.json", "--json")
    assert (exit_code, only_json(out)["written"]) == (0, str(tmp_path / "s.json"))
    assert (tmp_path / "s.json").read_text(encoding="utf-8") == schema_text()
    assert only_json(outcome(capsys, "schema", "--json")[1])["schema"] == recipe_schema()


def test_a_file_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "no" / "folder.json"
    message = f"error: {file} cannot be written: No such file or directory\n  fix: choose another file\n"
    assert outcome(capsys, "schema", "--output", file) == (1, "", message)
    (tmp_path / "file").write_text("")
    exit_code, _, err = outcome(capsys, "init", "quickstart", tmp_path / "file")
    assert exit_code == 1
    assert "quickstart.yaml cannot be written: File exists" in err


def test_init_copies_what_validates(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    exit_code, out, _ = outcome(capsys, "init", "quickstart", tmp_path / "mine", "--json")
    facts = only_json(out)
    assert exit_code == 0
    assert all(Path(file).is_file() for file in facts["files"])
    assert main(["validate", facts["recipe"]]) == 0
    capsys.readouterr()
    exit_code, out, err = outcome(capsys, "init", "quickstart", tmp_path / "mine")
    assert (exit_code, out) == (2, "")
    assert err.startswith("error: already there: ")
    exit_code, out, _ = outcome(capsys, "init", "quickstart", tmp_path / "mine", "--force")
    assert exit_code == 0
    assert f"inspo-hub run {facts['recipe']}" in out


def test_init_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert "quickstart" in outcome(capsys, "init", "--list")[1].splitlines()
    assert "quickstart" in only_json(outcome(capsys, "init", "--list", "--json")[1])["recipes"]


# --- preview


def test_preview_shows_what_the_model_sees(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, err = outcome(capsys, "preview", QUICKSTART, "--rows", "2", "--json")
    facts = only_json(out)
    assert (exit_code, err) == (0, "")
    first = json.loads((QUICKSTART.parent / "quickstart" / "train.jsonl").read_text().split("\n")[0])
    chosen, rejected = first["chosen"][0]["content"], first["rejected"][0]["content"]
    twins = facts["variants"]
    assert {name: len(rows) for name, rows in twins.items()} == {"dpo": 2, "inspo": 2}
    assert [path["score"] for path in twins["dpo"][0]["paths"]] == ["chosen", "rejected"]
    path = twins["inspo"][0]["paths"][0]
    assert path["score"] == "chosen_given_rejected"
    assert [segment["kind"] for segment in path["segments"]] == ["prompt", "alternative", "separator", "target"]
    texts = [segment["text"] for segment in path["segments"]]
    assert first["prompt"][0]["content"] in texts[0]
    assert texts[1].startswith(rejected)
    assert load_recipe(QUICKSTART).alternative.turn_text in texts[2]
    assert texts[3].startswith(chosen)
    assert [segment["scored"] for segment in path["segments"]] == [False, False, False, True]
    assert path["tokens"] == sum(len(segment["token_ids"]) for segment in path["segments"])


def test_preview_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, _ = outcome(capsys, "preview", QUICKSTART, "-n", "1", "--set", "alternative.max_tokens=5")
    assert exit_code == 0
    assert out.startswith("dpo: dpo × none\n")
    assert "\ninspo: dpo × symmetric\n" in out
    assert "    alternative (5)\n" in out
    assert "\n    > " in out


def test_preview_finds_rows_by_the_names_that_reports_and_errors_use(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["train.jsonl/train/900", "heldout.jsonl/train/7"]
    exit_code, out, _ = outcome(capsys, "preview", QUICKSTART, "--json", *(f"--row={name}" for name in names))
    twins = only_json(out)["variants"]
    assert exit_code == 0
    for rows in twins.values():
        assert [row["row_id"] for row in rows] == names
    for index, file in enumerate(("train.jsonl", "heldout.jsonl")):
        line = (QUICKSTART.parent / "quickstart" / file).read_text().split("\n")[(900, 7)[index]]
        target = twins["dpo"][index]["paths"][0]["segments"][-1]["text"]
        assert target.startswith(json.loads(line)["chosen"][0]["content"])


def test_preview_says_which_names_rows_have(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, err = outcome(capsys, "preview", QUICKSTART, "--row", "train.jsonl/train/5000")
    assert (exit_code, out) == (2, "")
    assert "no pair was made of a row 'train.jsonl/train/5000'" in err
    assert "such as train.jsonl/train/" in err


def test_preview_with_the_report_of_all_rows(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, _ = outcome(capsys, "preview", QUICKSTART, "--rows", "0", "--report")
    assert exit_code == 0
    assert out.startswith("1280 training pairs, 128 held out, 0 rows left out\n")
    assert out.count("training pairs") == 1, "twins share their pairs and their report"
    assert "chosen is longer in" in out
    facts = only_json(outcome(capsys, "preview", QUICKSTART, "--rows", "0", "--report", "--json")[1])
    assert facts["reports"]["inspo"]["heldout_pairs"] == 128


# --- run


def fake_run(monkeypatch: pytest.MonkeyPatch, result: int | BaseException) -> list[dict[str, Any]]:
    import inspo_hub.workflow

    calls: list[dict[str, Any]] = []

    def run(recipe_path: Path, overrides: list[str], **settings: Any) -> int:
        calls.append({"recipe": recipe_path, "overrides": overrides, **settings})
        print("a table")
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(inspo_hub.workflow, "run", run)
    return calls


def test_run_hands_over_what_it_was_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: Path
) -> None:
    calls = fake_run(monkeypatch, 0)
    command = ["run", recipe, "--set", "a.b=1", "--set", "c=2", "--output", "out", "--frozen", "--resume", "hub"]
    assert outcome(capsys, *command) == (0, "a table\n", "")
    assert outcome(capsys, "run", recipe)[0] == 0
    assert calls == [
        {"recipe": recipe, "overrides": ["a.b=1", "c=2"], "output": Path("out"), "frozen": True, "resume": "hub"},
        {"recipe": recipe, "overrides": [], "output": None, "frozen": False, "resume": "auto"},
    ]


def test_run_in_json_keeps_stdout_for_the_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: Path
) -> None:
    fake_run(monkeypatch, 5)
    exit_code, out, err = outcome(capsys, "run", recipe, "--json")
    assert (exit_code, err) == (5, "a table\n")
    told = only_json(out)
    folder = told.pop("output")
    for name, variant in told.pop("variants").items():
        assert variant == {"output": str(Path(folder) / name), "published": None}
    assert told == {"ok": False, "exit_code": 5, "recipe": str(recipe)}
    monkeypatch.setenv("RANK", "1")
    assert outcome(capsys, "run", recipe, "--json")[1] == "", "one object, from the first process"


@pytest.mark.parametrize("error", [RecipeError, DataError, ResolutionError, JudgeError, TrainingError, PublishError])
def test_every_error_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: Path, error: type[InspoError]
) -> None:
    fake_run(monkeypatch, error("it broke", where="here", expected="[whole] things", fix="mend it"))
    exit_code, _, err = outcome(capsys, "run", recipe)
    assert exit_code == error.exit_code
    assert err == "error: here: it broke\n  expected: [whole] things\n  fix: mend it\n"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), typer.Abort()])
def test_an_interruption_is_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: Path, interruption: BaseException
) -> None:
    fake_run(monkeypatch, interruption)
    assert main(["run", str(recipe)]) == 130


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, recipe: Path) -> None:
    fake_run(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["run", str(recipe)])


def test_a_launch_of_many_processes_says_the_same_thing_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: Path
) -> None:
    monkeypatch.setenv("RANK", "3")
    fake_run(monkeypatch, DataError("no pair is left"))
    exit_code, _, err = outcome(capsys, "run", recipe)
    assert (exit_code, err) == (2, "")
    fake_run(monkeypatch, TrainingError("out of memory on this one"))
    exit_code, _, err = outcome(capsys, "run", recipe)
    assert (exit_code, err) == (4, "error: out of memory on this one\n")


def test_only_the_first_process_of_a_launch_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    package = logging.getLogger("inspo_hub")
    monkeypatch.setattr(package, "level", logging.NOTSET)
    for rank, level in (("0", logging.INFO), ("1", logging.ERROR)):
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        monkeypatch.setenv("RANK", rank)
        assert main(["--version"]) == 0
        assert package.level == level


def test_processes_wait_for_what_the_first_one_does_alone(monkeypatch: pytest.MonkeyPatch, recipe: Path) -> None:
    """Downloads, evaluation and publishing take longer than the ten minutes after which NCCL gives up."""
    pytest.importorskip("accelerate")
    from inspo_hub.training import engine
    from inspo_hub.workflow import run

    def started(**settings: Any) -> None:
        raise ZeroDivisionError(settings)

    monkeypatch.setattr(engine, "PartialState", started)
    with pytest.raises(ZeroDivisionError) as raised:
        run(recipe)
    assert raised.value.args[0]["timeout"].total_seconds() >= 12 * 3600


# --- usage, help, output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate"], "Missing argument 'RECIPE'"),
        (["validate", "--nonsense"], "No such option: --nonsense"),
        (["run", "r.yaml", "--resume", "maybe"], "'maybe'"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_wrong_usage_is_told_like_everything_else(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    exit_code, out, err = outcome(capsys, *arguments)
    assert (exit_code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    exit_code, out, err = outcome(capsys, *arguments, "--json")
    facts = only_json(out)
    assert (exit_code, err, facts["error"]) == (2, "", "UsageError")
    assert message in facts["what"]


def test_help_groups_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, _ = outcome(capsys, "--help")
    assert exit_code == 0
    words = ["Recipes", "validate", "schema", "init", "preview", "Training", "run"]
    positions = [out.index(f" {word} ") for word in words]
    assert positions == sorted(positions)


def _all_commands() -> dict[str, Any]:
    """Every command by its words, those of groups included: `run`, `space deploy`."""
    for module in COMMAND_MODULES:
        import_module(f"inspo_hub.cli.{module}")
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {word}": one for word, one in inner.items()}
    return found


def test_every_command_takes_json_and_tells_what_it_does() -> None:
    assert len(_all_commands()) > 10
    for name, command in _all_commands().items():
        assert command.help, name
        assert "--json" in [option for parameter in command.params for option in parameter.opts], name


def _arguments_that_name_nothing() -> Iterator[tuple[str, list[str]]]:
    """Each command with a value for all that it requires, none of which exists."""
    for name, command in _all_commands().items():
        arguments = ["no/such/thing" for one in command.params if one.param_type_name == "argument" and one.required]
        options = [
            f"{one.opts[0]}=no/such" for one in command.params if one.param_type_name == "option" and one.required
        ]
        yield name, arguments + options


@pytest.mark.parametrize(("command", "arguments"), list(_arguments_that_name_nothing()))
def test_every_command_that_fails_says_so_in_one_object(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wrong = [] if arguments else ["--no-such-option"]
    exit_code, out, _ = outcome(capsys, *command.split(), *arguments, "--json", *wrong)
    facts = only_json(out)
    assert facts["ok"] is False
    assert exit_code == facts["exit_code"] != 0
    assert facts["what"]


@pytest.mark.parametrize("program", ["inspo-hub", "hf-inspo"])
def test_shells_complete_the_commands_of_both_names(program: str) -> None:
    """bash asks for words by the variables of click; `hf inspo …` runs the second name."""
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    code = f"import sys; sys.argv = ['/some/where/{program}']; from inspo_hub.cli import main; sys.exit(main())"
    asked = {variable: "complete_bash", "COMP_WORDS": f"{program} val", "COMP_CWORD": "1"}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **asked}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["validate"]), done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(capsys, "--version") == (0, f"inspo_hub {__version__}\n", "")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: Path, no_color: str, coloured: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", no_color)
    assert ("\x1b[" in outcome(capsys, "validate", broken)[2]) is coloured


# --- real processes


def process(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from inspo_hub.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=120,
    )


def test_validating_imports_nothing_heavy_and_takes_well_under_a_second_of_cpu(recipe: Path) -> None:
    """What keeps `validate` usable on a laptop without torch: 0.33 s of CPU on a busy two-core machine."""
    code = f"""
import resource, sys
from inspo_hub.cli import main
assert main(["validate", {str(QUICKSTART)!r}]) == 0
assert main(["validate", {str(recipe)!r}, "--set", "sed=1"]) == 2
heavy = {{"torch", "transformers", "datasets", "huggingface_hub", "numpy", "accelerate", "tokenizers"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 1.0


def test_the_module_is_the_same_command(recipe: Path, broken: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "inspo_hub.run", str(broken)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 2
    assert "unknown key 'sed'" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -c 'import sys; from inspo_hub.cli import main; sys.exit(main())' schema | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_the_package_finds_its_recipes_where_a_wheel_puts_them(tmp_path: Path) -> None:
    site = tmp_path / "site"
    light = ("__init__.py", "errors.py", "quiet.py", "views.py", "conditioning.py", "cli", "recipe", "objectives")
    for name in light:
        source = ROOT / "inspo_hub" / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        (site / "inspo_hub").mkdir(parents=True, exist_ok=True)
        copy(source, site / "inspo_hub" / name)
    shutil.copytree(ROOT / "recipes", site / "inspo_hub" / "_recipes", ignore=shutil.ignore_patterns("__pycache__"))
    done = process("init", "quickstart", "mine", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    done = process("validate", "mine/quickstart.yaml", "--json", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sha256"] == load_recipe(QUICKSTART).sha256()
