"""YAML text -> tree: types of YAML 1.2, lines, and what is refused; and back, for any recipe."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from inspo_hub.errors import RecipeError
from inspo_hub.recipe.problems import RecipeProblems
from inspo_hub.recipe.reading import MAX_NODES, Node, read_tree, read_value, scalar
from inspo_hub.recipe.writing import write_yaml

# The core schema's own examples (YAML 1.2.2, 10.3.2), then the traps of YAML 1.1.
CORE = [
    ("", None), ("~", None), ("null", None), ("Null", None), ("NULL", None),
    ("true", True), ("True", True), ("FALSE", False),
    ("0", 0), ("0o7", 7), ("0x3A", 58), ("-19", -19), ("+12", 12),
    ("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("+12e03", 12000.0), ("-2E+05", -200000.0),
    (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf),
    ("5e-7", 5e-7), ("1e5", 1e5), ("08", 8), ("010", 10),
    ("no", "no"), ("No", "No"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"),
    ("1_000", "1_000"), ("12:30:45", "12:30:45"), ("2026-01-01", "2026-01-01"), ("0b101", "0b101"),
    ("tRuE", "tRuE"), ("nUll", "nUll"), ("1e", "1e"), (".", "."), ("-", "-"), ("0o8", "0o8"), ("1.2.3", "1.2.3"),
    ("<<", "<<"), ("=", "="), ("inf", "inf"), ("nan", "nan"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), CORE)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)
    if text not in ("-", "="):  # no plain scalars in a document
        read = read_tree(f"key: {text}", "f").plain()["key"]
        assert read == value
        assert type(read) is type(value)


def test_not_a_number_is_read_as_one() -> None:
    assert math.isnan(read_value(".nan", "--set x=.nan").plain())


def test_pyyaml_alone_would_read_these_otherwise() -> None:
    """The reason for a loader of our own: fails the day PyYAML reads YAML 1.2."""
    assert yaml.safe_load("[5e-7, 1e5, no, 12:30:45, 010]") == ["5e-7", "1e5", False, 45045, 8]


def test_quotes_and_tags_say_what_a_scalar_is() -> None:
    tree = read_tree("a: '5'\nb: \"true\"\nc: !!str 5\nd: !!float 1\ne: |\n  5\n", "f")
    assert tree.plain() == {"a": "5", "b": "true", "c": "5", "d": 1.0, "e": "5\n"}


def test_every_node_knows_its_line() -> None:
    text = "# note\na:\n  b: 1\n  c:\n    - x\n    -\n      d: 2\ne: &anchor {f: 3}\ng: *anchor\n"
    tree = read_tree(text, "r.yaml")
    assert _lines(tree) == {
        "a": 2, "a.b": 3, "a.c": 4, "a.c.0": 5, "a.c.1": 7, "a.c.1.d": 7, "e": 8, "e.f": 8, "g": 9, "g.f": 8,
    }  # fmt: skip


def _lines(node: Node, path: str = "") -> dict[str, int | None]:
    children: dict[str, Node] = {}
    if isinstance(node.value, dict):
        children = node.value
    elif isinstance(node.value, list):
        children = {str(index): child for index, child in enumerate(node.value)}
    lines: dict[str, int | None] = {}
    for key, child in children.items():
        here = f"{path}.{key}" if path else key
        lines |= {here: child.origin.line, **_lines(child, here)}
    return lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            "f:3: a: written twice, first at f:1\n  expected: every key once\n  fix: delete one of the two",
        ),
        ("a: {b: 1, b: 2}", "f:1: a.b: written twice, first at f:1"),
        ("a: 1\nb: [1\nc: 2\n", "f:3: not valid YAML: while parsing a flow sequence expected ',' or ']', but got ':'"),
        ("a: 1\n\tb: 2\n", "f:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "f:2: not valid YAML: expected a single document"),
        ("a: \x07", "f: not valid YAML: the character 7 is not allowed"),
        ("a: !!python/name:os.system x", "f:1: a: the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("a: !mine {b: 1}", "f:1: a: the tag '!mine'"),
        ("a: !!int twelve", "f:1: a: 'twelve' does not read as int"),
        ("a: &x [*x]", "f:1: a.0: an alias that contains itself"),
        ("? [a, b]\n: 1\n", "f:1: a key that is a list or a mapping"),
        ("[" * 5000, "f: nested too deeply for a recipe"),
        ("a: *nowhere", "f:1: not valid YAML: found undefined alias 'nowhere'"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_tree(text, "f")
    assert str(caught.value).startswith(message)


def test_all_that_is_wrong_with_the_text_is_told_at_once() -> None:
    with pytest.raises(RecipeProblems) as caught:
        read_tree("a: 1\na: 2\nb: !x 3\nc: {d: 1, d: 2}\n", "f")
    assert [(problem.origin, problem.path) for problem in caught.value.problems] == [
        ("f:2", "a"),
        ("f:3", "b"),
        ("f:4", "c.d"),
    ]


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(RecipeError, match=f"more than {MAX_NODES:,} values"):
        read_tree("\n".join(lines), "f")


def test_an_empty_text_is_an_empty_mapping() -> None:
    assert read_tree("", "f").plain() == {}
    assert read_tree("# only a comment\n", "f").plain() == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("dpo", "dpo"),
        ("[1, x]", [1, "x"]),
        ("{a: {b: no}}", {"a": {"b": "no"}}),
        ("", None),
        ("'1'", "1"),
    ],
)
def test_an_override_is_one_value(text: str, value: object) -> None:
    node = read_value(text, f"--set k={text}")
    assert node.plain() == value
    assert str(node.origin) == f"--set k={text}"


def test_an_override_that_reads_as_a_block_is_refused() -> None:
    with pytest.raises(RecipeError, match="'a: b' reads as a YAML block") as caught:
        read_value("a: b", "--set description=a: b")
    assert "'\"a: b\"'" in caught.value.fix


# Lone surrogates are no text; everything else must survive.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | TEXT
    | st.sampled_from([t for t, _ in CORE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXT, PLAIN, max_size=3))
def test_what_is_written_reads_back(value: dict[str, Any]) -> None:
    assert read_tree(write_yaml(value), "f").plain() == value


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(TEXT, TEXT | st.booleans() | st.none(), max_size=3))
def test_yaml_1_1_readers_agree_about_texts(value: dict[str, Any]) -> None:
    assert yaml.safe_load(write_yaml(value)) == value
