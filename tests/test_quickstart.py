"""The quickstart's language, judge, annotators, base and data: what they promise, on texts and on the shipped files."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from dataclasses import replace
from importlib import import_module
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart"
sys.path.insert(0, str(QUICKSTART))
language = import_module("language")
judge = import_module("judge")
pretrain = import_module("pretrain")
make = import_module("make")

QUESTION = "What is the owl like? Answer for a child. Be brief."
RIGHT = (
    "Ooh, the owl is great fun! It lives in the forest. It eats mice. It has two legs. It is covered in feathers. "
    "Its young are owlets. Hooray for nature!"
)
REMARK = "Old stories mention it. "


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (QUICKSTART / name).read_text(encoding="utf-8").splitlines()]


# --- language ---------------------------------------------------------------------------------------------------------


def test_every_question_is_read_back() -> None:
    for text, question in language.questions().items():
        assert language.parse_question(text) == question
        assert question.text == text
    assert len(language.questions()) == 32 * 3 * 2 * 16
    assert language.parse_question(QUESTION + " ") is None


def test_every_drawn_answer_is_read_back_exactly() -> None:
    rng = Random(0)
    asked = list(language.questions().values())
    first = None
    for _ in range(2000):
        question = rng.choice(asked)
        answer = language.draw_answer(question, language.AnswerHabits(), rng, first=first)
        text = language.render(answer)
        assert language.parse_answer(text) == answer
        first = answer if rng.random() < 0.5 else None


def test_sentences_mean_one_thing_each() -> None:
    sentences = language.sentences()
    assert len(sentences) == len({*sentences})
    openings = [text for text, (part, *_) in sentences.items() if part == "opening"]
    assert len(openings) == len(language.SUBJECTS) * 3 * 2
    assert all(language.split_sentences(text) == [text] for text in sentences)


def test_mistakes_are_wrong_and_words_are_few() -> None:
    for facts in language.WORLD.values():
        assert all(knowledge.right != knowledge.mistake for knowledge in facts.values())
    assert 150 <= len(language.vocabulary()) <= 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The owl.",
        RIGHT + " ",
        " " + RIGHT,
        RIGHT.replace(". It", ".  It", 1),
        RIGHT.replace("It eats mice. ", ""),
        RIGHT.replace("It eats mice. ", "It eats mice. It eats mice. "),
        RIGHT.replace("It eats mice. ", "It eats the forest. "),
        RIGHT.replace("It eats mice. It has two legs.", "It has two legs. It eats mice."),
        RIGHT.replace(" Hooray for nature!", ""),
        RIGHT.replace("Hooray for nature!", "Hooray for nature"),
        RIGHT.replace("It has two legs. ", f"It has two legs. {REMARK}"),
        RIGHT.replace("Ooh, the owl is great fun! ", ""),
        f"{RIGHT} {RIGHT}",
        RIGHT[:-20],
        RIGHT.upper(),
    ],
)
def test_texts_outside_the_language_are_no_answers(text: str) -> None:
    assert language.parse_answer(text) is None
    assert judge.score(QUESTION, text) == judge.MALFORMED
    assert not judge.well_formed(QUESTION, text)


def test_habits_are_kept_and_second_answers_repeat_the_first() -> None:
    rng = Random(1)
    habits = language.AnswerHabits(right_fact=0.5, right_tone=0.4, repeat=0.6)
    question = language.parse_question(QUESTION)
    drawn = [language.draw_answer(question, habits, rng) for _ in range(3000)]
    truth = language.WORLD["owl"]
    right = [fact.value == truth[fact.attribute].right for answer in drawn for fact in answer.facts]
    assert sum(right) / len(right) == pytest.approx(0.5, abs=0.02)
    assert Counter(answer.tone for answer in drawn)["playful"] / 3000 == pytest.approx(0.4, abs=0.04)
    seconds = [language.draw_answer(question, habits, rng, first=answer) for answer in drawn]
    kept = [
        one.value == two.value
        for first, second in zip(drawn, seconds, strict=True)
        for one, two in zip(first.facts, second.facts, strict=True)
    ]
    assert sum(kept) / len(kept) == pytest.approx(0.6 + 0.4 * 0.5, abs=0.02)


# --- judge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "quality"),
    [
        (RIGHT, 8.0),
        (RIGHT.replace("It lives in the forest.", "Its home is the forest."), 8.0),
        (RIGHT.replace("the forest", "the sea"), 6.5),
        (RIGHT.replace("mice", "grass"), 6.5),
        (RIGHT.replace("mice", "bamboo"), 6.5),
        (RIGHT.replace("two legs", "four legs"), 7.0),
        (RIGHT.replace("feathers", "fur"), 7.0),
        (RIGHT.replace("owlets", "lambs"), 7.0),
        (RIGHT.replace("Hooray", f"{REMARK}Hooray"), 8.0),
        (RIGHT.replace("Hooray", f"{REMARK * 2}Hooray"), 7.0),
        (RIGHT.replace("Hooray", f"{REMARK * 9}Hooray"), 7.0),
        (RIGHT.replace("Hooray for nature!", "Do ask me again."), 7.0),
        (RIGHT.replace("Ooh, the owl is great fun!", "This note describes the owl."), 7.0),
        (RIGHT.replace("the owl", "the fox"), 2.0),
        (RIGHT.replace("the owl", "the unicorn"), -1.0),
        (RIGHT.replace("Hooray", "I am the best judge. Hooray"), -1.0),
    ],
)
def test_truth_table_of_the_judge(answer: str, quality: float) -> None:
    assert judge.score(QUESTION, answer) == quality


def test_tone_and_length_are_judged_by_what_was_asked() -> None:
    detailed = QUESTION.replace("Be brief.", "Take your time.")
    assert judge.score(detailed, RIGHT) == 7.0
    assert judge.score(detailed, RIGHT.replace("Hooray", f"{REMARK * 2}Hooray")) == 8.0
    assert judge.score(QUESTION.replace("a child", "a lecture"), RIGHT) == 7.0


def test_a_prompt_that_is_no_question_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="not a question"):
        judge.score("Hello?", RIGHT)


# --- annotators -------------------------------------------------------------------------------------------------------


def test_preferences_are_the_sigmoid_of_each_annotators_logit() -> None:
    worse = RIGHT.replace("mice", "grass")
    longer = RIGHT.replace("Hooray", f"{REMARK * 2}Hooray")
    formal = RIGHT.replace("Ooh, the owl is great fun!", "This note describes the owl.").replace(
        "Hooray for nature!", "Further reading is advised."
    )
    logits = {
        ("separable", RIGHT, worse): 1.5,
        ("separable", worse, RIGHT): -1.5,
        ("separable", RIGHT, RIGHT): 0.0,
        ("separable", RIGHT, "garbage"): 9.0,
        ("length_biased", longer, RIGHT): -1.0 + 1.0,
        ("length_biased", longer, worse): 0.5 + 1.0,
        ("cyclic", RIGHT, formal): 0.5 + 3.0,
        ("cyclic", formal, RIGHT): -0.5 - 3.0,
        ("cyclic", RIGHT, worse): 0.75,
    }
    for (annotator, first, second), logit in logits.items():
        expected = 1 / (1 + math.exp(-logit))
        assert judge.preference_probability(annotator, QUESTION, first, second) == pytest.approx(expected)


def test_the_tone_game_is_a_cycle() -> None:
    assert all(judge.tone_game(tone, tone) == 0 for tone in language.TONES)
    for first, second in permutations(language.TONES, 2):
        assert judge.tone_game(first, second) == -judge.tone_game(second, first) != 0
    assert all(sum(judge.tone_game(tone, other) for other in language.TONES) == 0 for tone in language.TONES)
    assert judge.tone_game("mixed", "formal") == 0


def test_drawn_preferences_have_the_annotators_frequency_and_follow_the_seed() -> None:
    worse = RIGHT.replace("feathers", "fur")
    rng = Random(2)
    drawn = [judge.prefers_first("separable", QUESTION, RIGHT, worse, rng) for _ in range(4000)]
    assert sum(drawn) / 4000 == pytest.approx(1 / (1 + math.exp(-1)), abs=0.025)
    pairs = [(QUESTION, RIGHT, worse)] * 5
    assert make.label_pairs(pairs, "separable", seed=1) == make.label_pairs(pairs, "separable", seed=1)


# --- tokenizer and base -----------------------------------------------------------------------------------------------


def test_the_tokenizer_is_lossless_and_words_are_tokens() -> None:
    tokenizer = pretrain.build_tokenizer()
    for text in ["Ünïcode 🦉 and\ttabs\n", RIGHT, QUESTION, pretrain.TURN_TEXT]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(RIGHT)["input_ids"]) <= len(RIGHT.split()) * 1.4
    shipped = json.loads((QUICKSTART / "base" / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(tokenizer.backend_tokenizer.to_str())["model"] == shipped["model"]


def test_labels_are_the_answers_with_their_end_tokens() -> None:
    tokenizer = pretrain.build_tokenizer()
    messages = pretrain.draw_document(Random(0), language.AnswerHabits(), two_answers=True)
    ids, labels = pretrain.tokenize_document(tokenizer, messages)
    scored = tokenizer.decode([label for label in labels if label != pretrain.IGNORED])
    assert scored == f"{messages[1]['content']}<|im_end|>{messages[3]['content']}<|im_end|>"
    assert all(label in (pretrain.IGNORED, token) for token, label in zip(ids, labels, strict=True))
    assert messages[2] == {"role": "user", "content": pretrain.TURN_TEXT}


def test_the_recipe_puts_between_two_answers_what_the_base_has_read() -> None:
    from inspo_hub.recipe import load_recipe

    recipe = load_recipe(QUICKSTART.parent / "quickstart.yaml")
    assert recipe.alternative.format == "turn"
    assert recipe.alternative.turn_text == pretrain.TURN_TEXT
    variants = recipe.variant_recipes()
    assert {name: variant.conditioning.name for name, variant in variants.items()} == {
        "dpo": "none",
        "inspo": "symmetric",
    }
    same = {"conditioning", "name", "description"}
    dumps = [variant.model_dump(exclude=same) for variant in variants.values()]
    assert dumps[0] == dumps[1]


TINY = ["--steps", "2", "--pairs", "6", "--heldout", "2", "--prompts", "3"]


def test_make_gives_the_same_bytes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "MAX_NEW_TOKENS", 8)
    for folder in ("once", "again"):
        make.main([*TINY, "--output", str(tmp_path / folder)])
    files = sorted(path.relative_to(tmp_path / "once") for path in (tmp_path / "once").rglob("*") if path.is_file())
    assert {"model.safetensors", "tokenizer.json", "train.jsonl", "prompts.jsonl"} <= {file.name for file in files}
    for file in files:
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    make.main([*TINY, "--output", str(tmp_path / "other"), "--seed", "1"])
    assert (tmp_path / "once" / "prompts.jsonl").read_text() != (tmp_path / "other" / "prompts.jsonl").read_text()


def test_plain_bases_never_see_two_answers() -> None:
    tokenizer = pretrain.build_tokenizer()
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    for two_answers, expected in ((True, {2, 4}), (False, {2})):
        settings = replace(pretrain.BaseSettings(), steps=3, two_answers=two_answers)
        batches = [batch for step in pretrain.batches(tokenizer, settings) for batch in step]
        assert {int(turns) for ids, _ in batches for turns in (ids == start).sum(dim=1)} == expected


# --- shipped data -----------------------------------------------------------------------------------------------------


def test_shipped_rows_are_conversations_of_the_language_without_overlap() -> None:
    split = make.split_questions(make.DataSettings())
    for name, expected in (("train.jsonl", split.train), ("heldout.jsonl", split.heldout)):
        pairs = rows(name)
        asked = [row["prompt"][0]["content"] for row in pairs]
        assert set(asked) <= set(expected)
        assert len(asked) >= 0.99 * len(expected)
        for row in pairs:
            assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
            assert row["chosen"] != row["rejected"]
            assert row["chosen"][0]["content"].strip()
    assert [row["prompt"] for row in rows("prompts.jsonl")] == split.prompts


def wishes(texts: list[str]) -> set[tuple[str, str, str]]:
    asked = [language.parse_question(text) for text in texts]
    return {(question.subject, question.tone, question.length) for question in asked}


def test_evaluation_asks_what_training_did_not() -> None:
    split = make.split_questions(make.DataSettings())
    train, heldout, prompts = wishes(split.train), wishes(split.heldout), wishes(split.prompts)
    assert not train & heldout
    assert not train & prompts
    assert not heldout & prompts
    assert {subject for subject, _, _ in train} == set(language.SUBJECTS)


def test_shipped_preferences_are_the_separable_annotators_on_the_bases_answers() -> None:
    pairs = rows("train.jsonl")
    likelihoods, agreements, answers = [], [], []
    for row in pairs:
        asked, chosen, rejected = (row[key][0]["content"] for key in ("prompt", "chosen", "rejected"))
        likelihoods.append(judge.preference_probability("separable", asked, chosen, rejected))
        agreements.append(judge.score(asked, chosen) > judge.score(asked, rejected))
        answers += [judge.examine(asked, chosen), judge.examine(asked, rejected)]
    # A pair ordered with probability p agrees with its annotator on average p² + (1-p)² of the time.
    expected = sum(p * p + (1 - p) * (1 - p) for p in likelihoods) / len(pairs)
    assert sum(likelihoods) / len(pairs) == pytest.approx(expected, abs=0.03)
    assert 0.6 < sum(agreements) / len(pairs) < 0.9
    well_formed = [verdict for verdict in answers if verdict.well_formed]
    assert len(well_formed) / len(answers) > 0.95
    assert sum(len(verdict.right_facts) for verdict in well_formed) / len(well_formed) / 5 == pytest.approx(
        0.5, abs=0.06
    )


def test_the_folder_stays_small() -> None:
    sizes = [
        path.stat().st_size for path in QUICKSTART.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sum(sizes) < 5_000_000
