"""Recipes by their numbers: data here and on the Hub, exact and sampled, with a tokenizer and without."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from inspo_hub.errors import DataError, ResolutionError
from inspo_hub.pairs import PairSource, prepare_pairs, separator_ids
from inspo_hub.plan.facts import DataFacts
from inspo_hub.recipe import load_recipe, shipped
from inspo_hub.survey import survey, tokenizers
from inspo_hub.survey.characters import CHARACTERS_PER_TOKEN
from inspo_hub.survey.tokenizers import tokenizer_of
from tests.hub.conftest import alice
from tests.hub_server.server import HubServer
from tests.survey.test_files import jsonl, make_rows, parquet
from tests.training.conftest import Project, make_project, write_rows

__all__ = ["alice"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("surveyed"))


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "ours"))


def facts(project: Project, *overrides: str, sample_rows: int = 2048) -> DataFacts:
    (variant,) = survey(load_recipe(project.recipe, overrides), sample_rows=sample_rows)
    return variant.data


def on_hub(server: HubServer, files: Mapping[str, bytes]) -> str:
    repo = server.unique("pairs", "bob")
    server.create_repo(repo, files, type="dataset")
    return f"data.train=[{{id: {repo}}}]"


# --- tokenizers


def test_the_quickstart_s_tokenizer_gives_the_ids_of_autotokenizer() -> None:
    recipe = load_recipe(shipped.shipped_folder() / "quickstart.yaml")
    plan = SimpleNamespace(tokenizer=local(Path(recipe.model.id)), recipe=recipe)
    ours, theirs = tokenizer_of(plan), AutoTokenizer.from_pretrained(recipe.model.id)
    rows = (shipped.shipped_folder() / "quickstart" / "train.jsonl").read_text().splitlines()[:50]
    for row in map(json.loads, rows):
        conversation = [{"role": "user", "content": "hi"}, *row["chosen"]]
        whole, alone = (tokenizer.apply_chat_template(conversation, tokenize=False) for tokenizer in (ours, theirs))
        assert whole == alone
        assert ours(whole)["input_ids"] == theirs(whole)["input_ids"]
    assert ours.special_tokens_map == theirs.special_tokens_map


def local(path: Path) -> Any:
    from inspo_hub import hub

    return hub.resolve("model", str(path))


def test_a_recipe_s_own_template_is_used(project: Project, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    longer = facts(project)
    shorter = facts(project, f"model.chat_template={template}")
    assert sum(row.prompt for row in shorter.rows) < sum(row.prompt for row in longer.rows)


# --- here


def test_all_rows_are_what_the_run_prepares(project: Project) -> None:
    found = facts(project)
    tokenizer = AutoTokenizer.from_pretrained(project.folder / "base")
    prepared = prepare_pairs(
        [PairSource(id="train.jsonl", local_path=str(project.folder / "train.jsonl"))],
        tokenizer,
        seed=0,
        max_length=256,
        conditioned=True,
        separator=separator_ids(tokenizer, "turn", "again"),
        heldout=[PairSource(id="heldout.jsonl", local_path=str(project.folder / "heldout.jsonl"))],
    )
    assert found.exact
    assert [list(row[:3]) for row in found.rows] == prepared.train.lengths.tolist(), "in the order of the run"
    assert [list(row[:3]) for row in found.heldout_rows] == prepared.heldout.lengths.tolist()
    assert (found.train_pairs, found.heldout_pairs) == (45, 5)


def test_shares_of_a_mixture_hold_for_samples(project: Project, tmp_path: Path) -> None:
    write_rows(tmp_path / "short.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 300)
    write_rows(tmp_path / "long.jsonl", make_rows(900, words=8))
    sources = "data.train=[{{id: {0}/short.jsonl, weight: {1}}}, {{id: {0}/long.jsonl, weight: 1}}]"
    for weight, pairs in ((1, 600), (3, 400)):
        found = facts(project, sources.format(tmp_path, weight), sample_rows=100)
        assert not found.exact
        assert found.train_pairs == pairs
        short = sum(row.chosen < 5 for row in found.rows) / len(found.rows)
        assert short == pytest.approx(weight / (weight + 1), abs=0.02)


def test_invalid_rows_are_an_estimated_share(project: Project, tmp_path: Path) -> None:
    same = {"prompt": "a", "chosen": "b", "rejected": "b"}
    write_rows(tmp_path / "half.jsonl", [row for pair in make_rows(400, words=3) for row in (pair, same)])
    found = facts(project, f"data.train=[{{id: {tmp_path}/half.jsonl}}]", sample_rows=200)
    assert found.train_pairs == pytest.approx(400, rel=0.2)
    assert set(found.sources[0].invalid) == {"identical"}
    assert found.dropped == found.sources[0].invalid["identical"]
    told = facts(project, f"data.train=[{{id: {tmp_path}/half.jsonl}}]", "data.on_invalid=error", sample_rows=200)
    assert "will stop the run" in told.notes[0]


def test_nothing_usable_is_told(project: Project, tmp_path: Path) -> None:
    write_rows(tmp_path / "same.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "b"}] * 300)
    for rows in (100, 1000):
        with pytest.raises(DataError, match=r"identical (100|300)"):
            facts(project, f"data.train=[{{id: {tmp_path}/same.jsonl}}]", sample_rows=rows)


# --- on the Hub


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set is small enough to be downloaded."""
    monkeypatch.setattr("inspo_hub.survey.data.SMALL_BYTES", 0)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("write", [parquet, jsonl])
def test_many_rows_on_the_hub_are_sampled_in_parts(
    alice: HubServer, project: Project, write: Callable[[Sequence[Any]], bytes]
) -> None:
    rows = make_rows(900, words=60)
    content = write(rows)
    found = facts(project, on_hub(alice, {f"data/train-0.{write.__name__}": content}), sample_rows=100)
    assert found.train_pairs == pytest.approx(900, rel=0.03)
    assert found.sources[0].rows_known == (write is parquet)
    assert found.sources[0].looked_at == 100
    (project.folder / "same.jsonl").write_bytes(jsonl(rows))
    whole = facts(
        project, "data.train=[{id: same.jsonl}]".replace("same", str(project.folder / "same")), sample_rows=9999
    )
    means = [sum(row.chosen for row in one.rows) / len(one.rows) for one in (found, whole)]
    assert means[0] == pytest.approx(means[1], rel=0.02)


def test_few_rows_on_the_hub_are_downloaded_and_exact(alice: HubServer, project: Project) -> None:
    found = facts(project, on_hub(alice, {"train.jsonl": jsonl(make_rows(40, words=5))}))
    assert found.exact
    assert found.train_pairs == 40


@pytest.mark.usefixtures("far")
def test_files_that_only_tell_as_a_whole_are_downloaded(alice: HubServer, project: Project) -> None:
    lines = ["prompt,chosen,rejected", *(f"p{n},yes {n},no {n}" for n in range(30))]
    assert facts(project, on_hub(alice, {"train.csv": "\n".join(lines).encode()})).train_pairs == 30


def test_a_dataset_that_is_not_there_is_told(alice: HubServer, project: Project) -> None:
    with pytest.raises(ResolutionError, match="bob/none"):
        facts(project, "data.train=[{id: bob/none}]")


# --- without a tokenizer


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with the core alone."""
    monkeypatch.setattr(
        tokenizers, "find_spec", lambda name: None if name in ("transformers", "datasets") else object()
    )


@pytest.mark.usefixtures("bare")
def test_characters_stand_for_tokens_and_it_is_said(project: Project, tmp_path: Path) -> None:
    rows = [{"prompt": "x" * 42, "chosen": "y" * 84, "rejected": "z" * 21}] * 50
    write_rows(tmp_path / "train.jsonl", [*rows, {"prompt": "p", "chosen": "", "rejected": "b"}])
    found = facts(project, f"data.train=[{{id: {tmp_path}/train.jsonl}}]")
    assert found.rows[0][:3] == (10 + 5, 20 + 5, 5 + 5)
    assert CHARACTERS_PER_TOKEN == 4.2
    assert (found.train_pairs, found.dropped, found.exact) == (50, 1, False)
    assert "ESTIMATED FROM CHARACTERS" in found.method
    assert "pip install 'inspo-hub[plan]'" in found.method


@pytest.mark.usefixtures("bare")
def test_characters_know_the_overlong_policy(project: Project) -> None:
    long = facts(project, "data.max_length=256")
    short = facts(project, "data.max_length=24")
    assert long.by_conditioning["none"].rows == 0
    assert 0 < short.by_conditioning["none"].rows < short.by_conditioning["symmetric"].rows
    for row in short.by_conditioning["none"].lengths:
        assert row.prompt + max(row.chosen, row.rejected) <= 24


@pytest.mark.usefixtures("bare", "far")
def test_characters_of_rows_on_the_hub(alice: HubServer, project: Project) -> None:
    found = facts(project, on_hub(alice, {"train.jsonl": jsonl(make_rows(500))}), sample_rows=50)
    assert found.train_pairs == pytest.approx(500, rel=0.05)


@pytest.mark.usefixtures("bare")
def test_what_cannot_be_read_without_libraries_says_what_to_install(project: Project, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,chosen,rejected\na,b,c\n")
    with pytest.raises(ResolutionError, match=r"rows\.csv cannot be read[\s\S]*inspo-hub\[plan\]"):
        facts(project, f"data.train=[{{id: {tmp_path}/rows.csv}}]")


def test_a_tokenizer_of_another_kind_is_estimated(project: Project, tmp_path: Path) -> None:
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "tokenizer_config.json").write_text("{}")
    found = facts(project, f"model.tokenizer={tmp_path}/tok")
    assert "has no tokenizer.json" in found.method


def test_surveying_needs_no_torch(project: Project) -> None:
    import subprocess

    code = (
        "import sys\nfrom inspo_hub.recipe import load_recipe\nfrom inspo_hub.survey import survey\n"
        f"found = survey(load_recipe({str(project.recipe)!r}))\n"
        "assert found[0].data.exact\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=project.environment(), cwd=project.folder)
