"""The pages for people: links lead somewhere, code blocks work, and the errors they quote are those of the code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from inspo_hub import __version__
from inspo_hub.cli.app import COMMAND_MODULES, app
from inspo_hub.recipe import parse_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```([\w-]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """Headings as GitHub and the site link to them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        of_the_site = page.parent != ROOT / "docs" or file.is_relative_to(ROOT / "docs")
        assert of_the_site, f"{page.name} links to {target}, which the site does not have: write `{path}`"
        if heading and file.suffix == ".md":
            assert heading in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_yaml_blocks_are_yaml_and_whole_recipes_validate(page: Path) -> None:
    for block in blocks(page, "yaml", "yml"):
        values = yaml.safe_load(block)
        if isinstance(values, dict) and "version" in values:
            parse_recipe(block, source=page.name, folder=ROOT / "recipes")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_and_json_blocks_can_be_read(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")
    for block in blocks(page, "json"):
        json.loads(block)


def command_lines(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "bash", "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):
                words = words[1:]
            if words:
                yield words


@cache
def commands() -> dict[str, Any]:
    for module in COMMAND_MODULES:
        import_module(f"inspo_hub.cli.{module}")
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist_with_their_options(page: Path) -> None:
    for words in command_lines(page):
        text = " ".join(words)
        if words[0] in ("inspo-hub", "hf-inspo"):
            assert words[1] in commands(), text
            parsed(words[1], words[2:])
        elif "inspo_hub.run" in words:
            parsed("run", words[words.index("inspo_hub.run") + 1 :])
        elif words[0] == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(words[1:]) <= set(targets), text


def parsed(name: str, arguments: list[str]) -> None:
    """Parses and runs nothing; a wrong option or a missing argument raises."""
    command = commands()[name]
    context = command.make_context(name, list(arguments), resilient_parsing=False)
    assert context.command is command


def test_every_command_has_a_row_in_the_readme() -> None:
    rows = re.findall(r"^\| `inspo-hub ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(commands())


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_in_the_text_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it may speak of what is no more
    for name in re.findall(r"`(?:inspo-hub|hf inspo) ([a-z]+)", prose(page)):
        assert name in commands(), f"{page.name}: inspo-hub {name}"


# --- errors that are quoted


def texts() -> Iterator[str]:
    """Every text of the package's code, with … for what is filled in."""
    for file in (ROOT / "inspo_hub").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(_part(value) for value in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _part(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def test_quoted_errors_are_those_of_the_code() -> None:
    quoted = re.findall(r"^> (.+)$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quoted) > 15
    known = {" ".join(text.split()) for text in texts()}
    whole = "\n".join(known)
    for message in quoted:
        parts = [part for part in message.split("…") if part.strip(" ():,;$")]
        assert parts, message
        assert message in known or message.removesuffix("…").rstrip() in whole, f"no error says: {message}"


# --- beside the pages


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """As `make docs` does, from a copy: the generator follows links too."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", "mkdocs.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "build" / "docs" / "troubleshooting" / "index.html").is_file()


def test_every_page_is_linked_from_where_people_start() -> None:
    start = prose(ROOT / "README.md") + prose(ROOT / "docs" / "index.md")
    for page in (ROOT / "docs").glob("*.md"):
        assert re.search(rf"\((docs/)?{re.escape(page.name)}\)", start), f"nobody finds docs/{page.name}"


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "authors", "message"} <= set(citation)


@pytest.mark.parametrize("file", ["Dockerfile", "Dockerfile.cpu"])
def test_a_dockerfile_copies_what_is_there_and_runs_as_nobody_special(file: str) -> None:
    """What a linter would say that can be said without one: these images cannot be built in the tests."""
    lines = (ROOT / file).read_text().replace("\\\n", " ").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name.removeprefix('./')}" in ignored, name
    [base] = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert ":" in base
    assert not base.endswith(":latest")
    instructions = [line.split()[0] for line in lines if re.match(r"[A-Z]+ ", line)]
    assert instructions.index("USER") < instructions.index("ENTRYPOINT")
    assert all("--no-cache-dir" in line for line in lines if "pip install" in line)
    assert all("rm -rf /var/lib/apt/lists/*" in line for line in lines if "apt-get update" in line)


def test_the_agents_page_and_the_skill_name_every_exit_code() -> None:
    skill = (ROOT / "SKILL.md").read_text(encoding="utf-8")
    front = yaml.safe_load(skill.split("---")[1])
    assert front["name"] == "inspo-hub"
    assert len(front["description"]) < 1024
    for text in (skill, (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")):
        for code in ("2 ", "3 ", "4 ", "5 ", "130"):
            assert code in text
