"""Rounds of sample, judge, pair, train: the pairs, the rounds' recipes, a cut course, its data set on the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspo_hub.cli import main
from inspo_hub.errors import DataError, RecipeError
from inspo_hub.iterating.pairing import Answer, Answered, make_pairs, turn
from inspo_hub.iterating.rounds import PairsSource, Policy, round_recipe
from inspo_hub.recipe import Recipe, parse_recipe
from tests.hub_server import HubServer

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart"
QUESTION = "What is the owl like? Answer for a child. Be brief."

RECIPE = f"""\
version: 1
name: online
model: {{id: {QUICKSTART / "base"}, compute_dtype: float32}}
data: {{train: [{{id: {QUICKSTART / "train.jsonl"}}}], max_length: 256}}
conditioning: symmetric
alternative: {{turn_text: Please answer the same question again.}}
train: {{lr: 1e-3, pairs_per_step: 4, log_every: 1}}
iterate:
  prompts: {{id: {QUICKSTART / "prompts.jsonl"}}}
  judge: {{python: "{QUICKSTART / "judge.py"}:score"}}
  rounds: 2
  limit: 5
  samples_per_prompt: 3
  max_new_tokens: 70
"""


def recipe(more: str = "", *overrides: str) -> Recipe:
    return parse_recipe(RECIPE + more, overrides, folder=QUICKSTART)


# --- pairs ------------------------------------------------------------------------------------------------------------


def answered(*answers: tuple[str, float, bool]) -> Answered:
    shown = [{"role": "user", "content": "q"}]
    return Answered(
        prompt=shown, answers=[Answer(text=text, score=score, finished=end) for text, score, end in answers]
    )


def test_the_best_finished_answer_is_preferred_to_the_worst() -> None:
    pairing = make_pairs(
        [
            answered(("b", 2.0, True), ("a", 5.0, True), ("c", -1.0, True), ("cut", 9.0, False)),
            answered(("a", 1.0, True), ("b", 1.0, True)),
            answered(("a", 1.0, True), ("b", 2.0, False)),
            answered(("first", 3.0, True), ("second", 3.0, True), ("low", 0.0, True), ("also low", 0.0, True)),
        ]
    )
    chosen = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in pairing.rows]
    assert chosen == [("a", "c"), ("first", "low")]
    assert pairing.rows[0]["chosen"] == [{"role": "assistant", "content": "a"}]
    assert (pairing.rows[0]["chosen_score"], pairing.rows[0]["rejected_score"]) == (5.0, -1.0)
    assert pairing.counts() == {
        "pairs": 2, "prompts": 4, "ties": 1, "unusable": 1, "mean_score": pytest.approx((15 + 2 + 3 + 6) / 12),
    }  # fmt: skip


def test_a_judge_of_pairs_gives_each_answer_its_mean_preference_over_the_others() -> None:
    """Three answers to two prompts; one verdict of the second prompt failed."""
    from inspo_hub.evaluate.comparing import Judged
    from inspo_hub.evaluate.verdicts import Verdicts
    from inspo_hub.iterating.sampling import scores_of

    def verdicts(*preferences: float) -> Verdicts:
        nothing = np.full(2, np.nan)
        return Verdicts(
            preferences=np.array(preferences), weights=np.ones(2), first_shown=nothing, second_shown=nothing
        )

    compared = {
        ("1", "0"): verdicts(0.9, np.nan),
        ("2", "0"): verdicts(0.2, np.nan),
        ("1", "2"): verdicts(1.0, 0.25),
    }
    judged = Judged(name="pairs", facts={}, scores=None, well_formed=None, preferences=compared)
    expected = [[(0.1 + 0.8) / 2, np.nan], [(0.9 + 1.0) / 2, 0.25], [(0.2 + 0.0) / 2, 0.75]]
    np.testing.assert_allclose(scores_of(judged, 3), expected)
    scored = Judged(name="one", facts={}, scores={"0": [1.0, 2.0], "1": [3.0, 4.0]}, well_formed=None, preferences=None)
    np.testing.assert_array_equal(scores_of(scored, 2), [[1.0, 2.0], [3.0, 4.0]])


def test_an_answer_without_a_verdict_makes_no_pair() -> None:
    some = [Answer(text=text, finished=True, score=score) for text, score in (("a", None), ("b", 1.0), ("c", 0.0))]
    pairing = make_pairs([Answered(prompt="q", answers=some), Answered(prompt="q", answers=some[:2])])
    assert [(row["chosen"], row["rejected"]) for row in pairing.rows] == [("b", "c")]
    assert (pairing.unusable, pairing.mean_score) == (1, pytest.approx(2 / 3))


def test_a_prompt_without_a_template_makes_rows_of_texts() -> None:
    both = [Answer(text="a", finished=True, score=1.0), Answer(text="b", finished=True, score=0.0)]
    (row,) = make_pairs([Answered(prompt="Once", answers=both)]).rows
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Once", "a", "b")


def test_rounds_take_the_next_prompts_and_begin_again() -> None:
    assert [turn(list("abcde"), 2, number) for number in (1, 2, 3)] == [["a", "b"], ["c", "d"], ["e", "a"]]
    assert turn(list("abc"), None, 2) == turn(list("abc"), 9, 2) == ["a", "b", "c"]


# --- recipes of rounds ------------------------------------------------------------------------------------------------

PAIRS = PairsSource(id="/pairs/train.jsonl")


def test_a_round_starts_from_the_last_one_and_is_named() -> None:
    whole = recipe("publish: {repo: me/online}\n")
    first = round_recipe(whole, 1, Policy.initial(whole), PAIRS, variant=None)
    second = round_recipe(whole, 2, Policy.initial(whole).after(whole, Path("/out/round-1")), PAIRS, variant="ins")
    assert (first.name, second.name) == ("online-round-1", "online-round-2")
    assert second.description is not None
    assert "Round 2" in second.description
    assert (first.model.id, second.model.id) == (whole.model.id, "/out/round-1")
    assert [each.data.train[0].id for each in (first, second)] == ["/pairs/train.jsonl"] * 2
    assert (first.reference.source, second.reference.source) == ("initial", "initial")
    assert first.publish is not None
    assert second.publish is not None
    assert (first.publish.repo, second.publish.repo) == ("me/online-round-1", "me/online-ins-round-2")
    assert first.iterate is second.iterate is None


def test_the_initial_reference_stays_the_model_before_the_first_round() -> None:
    whole = recipe("", "iterate.reference=initial")
    second = round_recipe(whole, 2, Policy.initial(whole).after(whole, Path("/out/round-1")), PAIRS, variant=None)
    assert (second.reference.source, second.reference.id) == ("model", whole.model.id)


def test_an_adapter_goes_on_with_the_last_rounds() -> None:
    whole = recipe("adapter: {r: 4, quantize: nf4}\n")
    policy = Policy.initial(whole)
    assert policy.adapter is None
    second = round_recipe(whole, 2, policy.after(whole, Path("/out/round-1")), PAIRS, variant=None)
    assert second.model.id == whole.model.id
    assert second.adapter is not None
    assert (second.adapter.base_adapter, second.adapter.r, second.adapter.quantize) == ("/out/round-1", None, "nf4")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["iterate.judge=null"], "nobody judges the answers"),
        (["reference={source: model, id: me/other}"], "'previous' would leave out the reference model"),
        (["iterate.reference=initial", "adapter={base_adapter: me/lora}"], "needs? the base adapter as it was"),
        (["iterate.prompts.revision=v1"], "a local path has no revisions"),
        (["iterate.samples_per_prompt=1"], "greater than or equal to 2"),
        (["iterate.dataset=nobody"], "owner/name"),
        (["iterate.judge.python=null"], "names no judge"),
        (["iterate.prompts.id=alpaca_eval"], "is for evaluation"),
        (["iterate.judge.python=judge"], "file.py:function"),
    ],
)
def test_rounds_that_cannot_be_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        recipe("", *overrides)


def test_a_recipe_without_rounds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["iterate", str(QUICKSTART.parent / "quickstart.yaml"), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["where"], told["what"]) == ("iterate", "the recipe has no rounds")


# --- whole courses ----------------------------------------------------------------------------------------------------


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "cache"))


def run(folder: Path, text: str, *arguments: str) -> int:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return main(["iterate", str(folder / "recipe.yaml"), "--output", str(folder / "out"), *arguments])


def pairs(folder: Path, number: int) -> list[dict[str, Any]]:
    text = (folder / "out" / "pairs" / f"round-{number}" / "train.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_a_course_that_is_cut_while_it_samples_ends_at_the_same_bits(
    tmp_path: Path, caches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds at once; and one cut in the middle of round 2's answers, then gone on with to the same weights."""
    from inspo_hub.evaluate import generation
    from inspo_hub.iterating import sampling

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(whole, RECIPE) == 0
    rounds = json.loads((whole / "out" / "rounds.json").read_text(encoding="utf-8"))
    assert [each["round"] for each in rounds] == [1, 2]
    assert rounds[0]["policy"] != rounds[1]["policy"], "round 2 samples what round 1 trained"
    asked = [{row["prompt"][0]["content"] for row in pairs(whole, number)} for number in (1, 2)]
    assert not asked[0] & asked[1], "each round takes the next prompts"
    lock = json.loads((whole / "out" / "round-2" / "lock.json").read_text(encoding="utf-8"))
    assert lock["recipe"] == "online-round-2"
    assert lock["pins"]["model"]["id"] == "round-1"
    assert lock["pins"]["data.train.0"]["content"]
    assert "# online-round-2" in (whole / "out" / "round-2" / "README.md").read_text(encoding="utf-8")

    class Cut(Exception):
        pass

    monkeypatch.setattr(sampling, "BATCH_SIZE", 5)  # 15 answers of a round: 3 batches
    batches: list[int] = []
    original = generation._generate_batch

    def generate_batch(model: Any, tokenizer: Any, rows: Any, *rest: Any, **options: Any) -> Any:
        if len(batches) == 4:  # 3 of round 1, and one of round 2
            batches.clear()
            raise Cut
        batches.append(len(rows))
        return original(model, tokenizer, rows, *rest, **options)

    monkeypatch.setattr(generation, "_generate_batch", generate_batch)
    with pytest.raises(Cut):
        run(cut, RECIPE)
    assert run(cut, RECIPE) == 0
    assert batches == [5, 5], "what was answered before the cut is not answered again"
    for number in (1, 2):
        assert pairs(cut, number) == pairs(whole, number)
        weights = [(each / "out" / f"round-{number}" / "model.safetensors").read_bytes() for each in (whole, cut)]
        assert weights[0] == weights[1]

    with pytest.raises(RecipeError, match="rounds of another recipe"):
        _iterate(cut, "train.lr=1e-4")
    changed = cut / "out" / "pairs" / "round-2" / "train.jsonl"
    changed.write_text(changed.read_text(encoding="utf-8").replace("owl", "fox") + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="the pairs have changed since they were made"):
        _iterate(cut)


def _iterate(folder: Path, *overrides: str) -> None:
    from inspo_hub.iterating import iterate

    iterate(folder / "recipe.yaml", overrides, output=folder / "out")


MULTI_TURN = """\
def score(prompt, response):
    assert prompt.startswith("user: "), prompt
    assert "\\n\\nassistant: " in prompt
    return float(len(response))
"""


@pytest.mark.slow
def test_rounds_go_to_the_hub_and_prompts_of_several_turns_work(
    hub: HubServer, tmp_path: Path, caches: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pairs stand on the Hub as a configuration per round, pinned by commit in the lock; more rounds go on later."""
    monkeypatch.setenv("HF_TOKEN", hub.add_token("alice"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = tmp_path / "turns"
    folder.mkdir()
    rows = [json.loads(line)["prompt"] for line in (QUICKSTART / "prompts.jsonl").read_text().splitlines()[:6]]
    turns = [
        [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "Hooray for nature!"},
            {"role": "user", "content": "Please answer the same question again."},
        ]
        for question in rows
    ]
    (folder / "turns.jsonl").write_text("".join(json.dumps({"prompt": each}) + "\n" for each in turns))
    (folder / "longest.py").write_text(MULTI_TURN)
    repo = hub.unique("pairs", "alice")
    text = RECIPE.replace(str(QUICKSTART / "prompts.jsonl"), "turns.jsonl").replace(
        f"{QUICKSTART / 'judge.py'}", "longest.py"
    )
    text = text.replace("  rounds: 2\n", f"  rounds: 1\n  dataset: {repo}\n")
    assert run(folder, text) == 0
    first = hub.head(repo, type="dataset")
    assert run(folder, text, "--rounds", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [each["round"] for each in told["variants"]["online"]] == [1, 2]
    second = hub.head(repo, type="dataset")
    assert first != second
    files = hub.files(repo, type="dataset")
    assert {"README.md", "round-1/train.jsonl", "round-2/train.jsonl", "round-2/manifest.json"} <= set(files)
    assert all(row["prompt"] in turns for row in pairs(folder, 2))
    for number, sha in ((1, first), (2, second)):
        lock = json.loads((folder / "out" / f"round-{number}" / "lock.json").read_text(encoding="utf-8"))
        assert (lock["pins"]["data.train.0"]["id"], lock["pins"]["data.train.0"]["sha"]) == (repo, sha)
        assert (
            files[f"round-{number}/train.jsonl"]
            == (folder / "out" / "pairs" / f"round-{number}" / "train.jsonl").read_bytes()
        )
        trained = (folder / "out" / f"round-{number}" / "recipe.yaml").read_text(encoding="utf-8")
        assert f"config: round-{number}" in trained
        assert sha in trained
