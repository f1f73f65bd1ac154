"""Loading of Python judges, and what happens when they misbehave."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from inspo_hub.errors import JudgeError, RecipeError
from inspo_hub.evaluate.judge import Judge, load_judge


def write_judge(folder: Path, text: str, **siblings: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "judge.py").write_text(text)
    for name, content in siblings.items():
        (folder / f"{name}.py").write_text(content)
    return folder


def test_a_function_of_a_file(tmp_path: Path) -> None:
    write_judge(tmp_path, "def score(prompt, response):\n    return len(response) - len(prompt)\n")
    judge = load_judge("judge.py:score", folder=tmp_path)
    assert judge.score("ab", "abcd") == 2.0
    assert judge.well_formed is None


def test_a_function_of_a_module() -> None:
    assert load_judge("operator:eq").score("same", "same") == 1.0


def test_two_judges_with_neighbours_of_the_same_name(tmp_path: Path) -> None:
    text = "from rules import BONUS\n\ndef score(prompt, response):\n    return BONUS\n"
    first = load_judge("judge.py:score", folder=write_judge(tmp_path / "a", text, rules="BONUS = 1"))
    second = load_judge("judge.py:score", folder=write_judge(tmp_path / "b", text, rules="BONUS = 2"))
    assert (first.score("", ""), second.score("", "")) == (1.0, 2.0)
    assert "rules" not in sys.modules
    assert str(tmp_path / "a") not in sys.path


def test_well_formed_is_found_beside_the_score(tmp_path: Path) -> None:
    text = "def score(p, r):\n    return 0\n\ndef well_formed(p, r):\n    return r.endswith('.')\n"
    judge = load_judge("judge.py:score", folder=write_judge(tmp_path, text))
    assert judge.well_formed is not None
    assert [judge.well_formed("", text) for text in ("done.", "cut")] == [True, False]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("judge.py:missing", "there is no function 'missing'"),
        ("elsewhere.py:score", "there is no file"),
        ("no_such_package.module:score", "cannot be imported"),
        ("judge.py", "names no function"),
    ],
)
def test_what_cannot_be_loaded_says_where_and_what(tmp_path: Path, name: str, says: str) -> None:
    write_judge(tmp_path, "def score(prompt, response):\n    return 0.0\n")
    with pytest.raises(RecipeError, match=says) as caught:
        load_judge(name, folder=tmp_path)
    assert "evaluate.judge.python" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_fails_to_import_is_the_recipes_fault_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_judge(tmp_path, "import rules\nraise RuntimeError('broken')\n", rules="")
    before = set(sys.modules)
    with pytest.raises(RecipeError, match="RuntimeError: broken"):
        load_judge("judge.py:score", folder=tmp_path)
    assert set(sys.modules) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "9", 1j])
def test_a_score_is_a_finite_number(value: object) -> None:
    judge = Judge("test", lambda prompt, response: value)  # type: ignore[arg-type, return-value]
    with pytest.raises(JudgeError, match="the judge returned"):
        judge.score("question", "answer")


def test_an_exception_of_the_judge_names_it_and_the_texts() -> None:
    def explode(prompt: str, response: str) -> float:
        raise KeyError("legs")

    with pytest.raises(JudgeError, match="KeyError") as caught:
        Judge("rules.py:explode", explode).score("how many?", "six")
    assert "rules.py:explode" in str(caught.value)
    assert "'how many?'" in str(caught.value)
