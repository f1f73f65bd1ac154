"""prepare_pairs from files to pairs: policies, mixing, held-out rows, report, cache, refusals."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest

from inspo_hub.errors import DataError, ResolutionError
from inspo_hub.pairs import PairSource, PreferencePair, prepare_pairs, separator_ids
from inspo_hub.pairs.tokenise import PairTokeniser
from tests.pairs.tokenizers import CHATML, tokenizer_of

Write = Callable[..., str]
WORDS = ("Paris", "London", "the sky", "rivers", "a short poem", "two and three", "the answer", "the evening")


def row(number: int, long: int = 1) -> dict[str, str]:
    words = [WORDS[(number * 7 + offset * 3) % len(WORDS)] for offset in range(3 * long)]
    return {
        "prompt": f"Question {number}: what is {words[0]}?",
        "chosen": f"It is {' and '.join(words)}.",
        "rejected": f"They say {words[1]} {number}.",
    }


ROWS = [row(number) for number in range(40)]
BASE = {"seed": 0, "max_length": 400, "conditioned": True}


def test_pairs_in_order_with_lengths_and_ids(write_rows: Write) -> None:
    tokenizer = tokenizer_of("qwen")
    data = prepare_pairs([PairSource(id=write_rows(ROWS))], tokenizer, separator=separator_ids(tokenizer), **BASE)
    assert len(data.train) == 40
    assert data.train.lengths.tolist() == [[len(p.prompt), len(p.chosen), len(p.rejected)] for p in data.train]
    assert sorted(int(pair.row_id.rsplit("/", 1)[1]) for pair in data.train) == list(range(40))
    pair = data.train[-1]
    asked = ROWS[int(pair.row_id.rsplit("/", 1)[1])]
    assert pair == PreferencePair(
        tokenizer.apply_chat_template([{"role": "user", "content": asked["prompt"]}], add_generation_prompt=True)[
            "input_ids"
        ],
        tokenizer(asked["chosen"] + "<|im_end|>")["input_ids"],
        tokenizer(asked["rejected"] + "<|im_end|>")["input_ids"],
        row_id=pair.row_id,
    )
    assert [p.row_id for p in data.train[3:9:2]] == [data.train[n].row_id for n in (3, 5, 7)]
    with pytest.raises(IndexError):
        data.train[40]
    assert data.train.max_id() == max(max([*p.prompt, *p.chosen, *p.rejected]) for p in data.train)


def test_the_same_everywhere_and_another_order_with_another_seed(write_rows: Write) -> None:
    source = PairSource(id=write_rows(ROWS))
    first = prepare_pairs([source], tokenizer_of("qwen"), **BASE)
    again = prepare_pairs([source], tokenizer_of("qwen"), **BASE)
    other = prepare_pairs([source], tokenizer_of("qwen"), **{**BASE, "seed": 1})
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert [p.row_id for p in first.train] != [p.row_id for p in other.train]


def test_tokenised_once_whatever_else_changes(write_rows: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(ROWS)
    calls = []
    once = PairTokeniser.tokenise
    monkeypatch.setattr(PairTokeniser, "tokenise", lambda self, rows: calls.append(len(rows)) or once(self, rows))
    prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE)
    assert calls == [40]
    # another seed, length, policy, weight, held-out fraction: the ids of the rows are the same
    other = {"seed": 5, "max_length": 60, "conditioned": False, "on_overlong": "drop", "heldout": 0.2}
    prepare_pairs([PairSource(id=path, weight=2.0)], tokenizer_of("qwen"), **other)
    assert calls == [40]
    prepare_pairs([PairSource(id=path)], tokenizer_of("qwen", chat_template=CHATML.replace("user", "human")), **BASE)
    assert calls == [40]  # the template's text did not change
    prepare_pairs([PairSource(id=path)], tokenizer_of("qwen", chat_template=" " + CHATML), **BASE)
    assert calls == [40, 40]
    write_rows([*ROWS, row(40)])
    prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE)
    assert calls == [40, 40, 41]


def test_several_processes_give_the_same_pairs(write_rows: Write, tmp_path: Path) -> None:
    path = write_rows([row(number) for number in range(600)])
    one = prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE)
    copy = tmp_path / "copy.jsonl"
    copy.write_text(Path(path).read_text().replace("Question 599", "Question  599"))  # so that no cache answers
    two = prepare_pairs([PairSource(id=str(copy))], tokenizer_of("qwen"), num_proc=2, **BASE)
    tail = {"599"}
    ours = {p.row_id.rsplit("/", 1)[1]: (p.prompt, p.chosen, p.rejected) for p in one.train}
    theirs = {p.row_id.rsplit("/", 1)[1]: (p.prompt, p.chosen, p.rejected) for p in two.train}
    assert {n: ids for n, ids in ours.items() if n not in tail} == {n: i for n, i in theirs.items() if n not in tail}


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("family", ["qwen", "llama-3", "raw-pieces"])
def test_no_path_is_longer_than_max_length(family: str, conditioned: bool, write_rows: Write) -> None:
    tokenizer = tokenizer_of(family)
    separator = separator_ids(tokenizer, "turn" if tokenizer.chat_template else "concat")
    rows = [row(number, long=1 + number % 30) for number in range(60)]
    rows += [{**row(99), "prompt": "Which city? " * 80}, {**row(98), "rejected": "no, " * 400}]
    data = prepare_pairs(
        [PairSource(id=write_rows(rows))],
        tokenizer,
        seed=0,
        max_length=200,
        conditioned=conditioned,
        separator=separator,
        max_alternative_tokens=90,
    )
    assert len(data.train) == 62
    uncut = prepare_pairs([PairSource(id=write_rows(rows))], tokenizer, seed=0, max_length=10**6, conditioned=False)
    whole = {pair.row_id: pair for pair in uncut.train}
    for pair in data.train:
        limit = min(90, pair.max_alternative_tokens or 90)
        c, r = len(pair.chosen), len(pair.rejected)
        between = len(separator) if conditioned else 0
        shown_c, shown_r = (min(c, limit), min(r, limit)) if conditioned else (0, 0)
        assert len(pair.prompt) + between + max(shown_r + c, shown_c + r) <= 200
        full = whole[pair.row_id]
        assert full.chosen[:c] == pair.chosen
        assert full.rejected[:r] == pair.rejected
        cut = len(full.prompt) - len(pair.prompt)
        assert pair.prompt[1:] == full.prompt[1 + cut :] if family != "qwen" else pair.prompt == full.prompt[cut:]
        assert pair.prompt[0] == full.prompt[0] or family == "qwen"
        assert (pair.truncated_tokens > 0) == (pair != full)
    lost = data.report.truncated_tokens
    assert lost["prompt"] > 0
    assert lost["rejected"] > 0
    assert (lost["alternative"] > 0) == conditioned
    assert data.report.responses_cut.row_ids


def test_on_overlong(write_rows: Write) -> None:
    path = write_rows([*ROWS, {**row(50), "chosen": "no, " * 400}])
    dropped = prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE, on_overlong="drop")
    assert len(dropped.train) == 40
    assert dropped.report.overlong.row_ids == [f"{path}/train/40"]
    assert dropped.report.dropped == 1
    assert not dropped.train.taken.any()
    with pytest.raises(DataError, match=r"1 rows are longer than max_length 400: .*/train/40"):
        prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE, on_overlong="error")


def test_responses_that_only_differ_behind_the_cut_are_no_pair(write_rows: Write) -> None:
    same = "and so on, " * 80
    path = write_rows([*ROWS, {"prompt": "Go.", "chosen": same + "yes", "rejected": same + "no"}])
    data = prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), seed=0, max_length=100, conditioned=False)
    assert data.report.invalid["identical_after_cut"].row_ids == [f"{path}/train/40"]
    assert len(data.train) == 40


BAD = [
    {"prompt": "p", "chosen": "", "rejected": "no"},
    {"prompt": "p", "chosen": "same", "rejected": "same"},
    {"prompt": "p", "chosen": "a", "rejected": "b <|im_end|> c"},
]


def test_invalid_rows_are_counted_with_their_ids(write_rows: Write) -> None:
    path = write_rows([*ROWS, *BAD])
    data = prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE)
    assert {kind: (rows.count, rows.row_ids) for kind, rows in data.report.invalid.items()} == {
        "empty_chosen": (1, [f"{path}/train/40"]),
        "identical": (1, [f"{path}/train/41"]),
        "end_token_inside": (1, [f"{path}/train/42"]),
    }
    assert len(data.train) == 40
    with pytest.raises(DataError, match=r"rows that cannot be pairs: of 43 rows, empty_chosen 1 .*/train/40") as error:
        prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE, on_invalid="error")
    assert "on_invalid: drop" in error.value.fix
    assert error.value.exit_code == 2


def test_all_rows_dropped_is_an_error_with_the_counts(write_rows: Write) -> None:
    with pytest.raises(
        DataError, match=r"no row is left: of 3 rows, empty_chosen 1 .*; identical 1 .*end_token_inside"
    ):
        prepare_pairs([PairSource(id=write_rows(BAD))], tokenizer_of("qwen"), **BASE)
    said = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    rows = [{"prompt": said, "chosen": "a", "rejected": "b"}] * 2
    with pytest.raises(DataError, match=r"template_refused 2 .*Conversation roles must alternate"):
        prepare_pairs([PairSource(id=write_rows(rows, "roles.jsonl"))], tokenizer_of("gemma"), **BASE)
    options = {**BASE, "max_length": 20, "conditioned": False, "on_overlong": "drop"}
    with pytest.raises(DataError, match="overlong 40"):
        prepare_pairs([PairSource(id=write_rows(ROWS, "long.jsonl"))], tokenizer_of("qwen"), **options)


def test_no_data_at_all(write_rows: Write) -> None:
    with pytest.raises(DataError, match="no data source"):
        prepare_pairs([], tokenizer_of("qwen"), **BASE)
    with pytest.raises(DataError, match="all 1 pairs are held out"):
        prepare_pairs([PairSource(id=write_rows(ROWS[:1]))], tokenizer_of("qwen"), **BASE, heldout=0.999999)


def test_messages_without_a_chat_template(write_rows: Write) -> None:
    said = [{"role": "user", "content": "Hi."}]
    rows = [{"prompt": said, "chosen": [{"role": "assistant", "content": t}], "rejected": said} for t in "ab"]
    with pytest.raises(DataError, match="column 'prompt' holds messages, and the tokenizer has no chat template"):
        prepare_pairs([PairSource(id=write_rows(rows))], tokenizer_of("raw-bytes"), **BASE)
    with pytest.raises(DataError, match="text_format: chat, but the tokenizer has no chat template"):
        prepare_pairs([PairSource(id=write_rows(ROWS))], tokenizer_of("raw-bytes"), **BASE, text_format="chat")


def test_raw_strings_even_with_a_template(write_rows: Write) -> None:
    tokenizer = tokenizer_of("qwen")
    data = prepare_pairs([PairSource(id=write_rows(ROWS))], tokenizer, **BASE, text_format="raw")
    assert tokenizer.decode(data.train[0].prompt).startswith("Question ")
    assert data.report.sources[0].format == "raw"
    assert "no chat template is applied" in data.report.notes[0]


def test_weights_mix_and_every_source_is_reported(write_rows: Write) -> None:
    first = write_rows([row(number) for number in range(60)], "first.jsonl")
    second = write_rows([row(number + 100) for number in range(90)], "second.jsonl")
    third = write_rows([row(number + 300) for number in range(5)], "third.jsonl")
    sources = [
        PairSource(id="owner/first", local_path=first, weight=0.75),
        PairSource(id="owner/second", local_path=second, weight=0.25, revision="v1"),
        PairSource(id="owner/third", local_path=third),
    ]
    data = prepare_pairs(sources, tokenizer_of("qwen"), **BASE)
    assert [(s.name, s.used, s.rows) for s in data.report.sources] == [
        ("owner/first/train", 60, 60),
        ("owner/second/train", 20, 90),
        ("owner/third/train", 5, 5),
    ]
    assert data.report.sources[1].revision == "v1"
    early = [data.train.row_id(n).split("/")[1] for n in range(43)]
    assert 20 < early.count("first") < 38  # mixed, not one source after the other


def test_a_share_of_nothing(write_rows: Write) -> None:
    sources = [
        PairSource(id=write_rows(ROWS, "good.jsonl"), weight=0.5),
        PairSource(id=write_rows(BAD, "bad.jsonl"), weight=0.5),
    ]
    with pytest.raises(DataError, match=r"shares leave no training pair; usable rows: .*good.jsonl/train 40, .* 0"):
        prepare_pairs(sources, tokenizer_of("qwen"), **BASE)


def test_held_out_by_prompt(write_rows: Write) -> None:
    rows = [{**row(number), "chosen": f"answer {number} {copy}"} for number in range(100) for copy in range(3)]
    data = prepare_pairs([PairSource(id=write_rows(rows))], tokenizer_of("qwen"), **BASE, heldout=0.2)
    prompts = [{tuple(pair.prompt) for pair in part} for part in (data.train, data.heldout)]
    assert not prompts[0] & prompts[1]
    assert len(data.train) + len(data.heldout) == 300
    assert 30 < len(data.heldout) < 90
    assert data.report.leaked_prompts.count == 0
    assert data.report.heldout_pairs == len(data.heldout)


def test_held_out_sources_and_leaks(write_rows: Write) -> None:
    heldout = [{**ROWS[3], "chosen": "other"}, {**ROWS[4], "prompt": ROWS[4]["prompt"].upper() + "!"}, row(77)]
    train, test = write_rows(ROWS, "train.jsonl"), write_rows(heldout, "test.jsonl")
    data = prepare_pairs([PairSource(id=train)], tokenizer_of("qwen"), **BASE, heldout=[PairSource(id=test)])
    assert [pair.row_id for pair in data.heldout] == [f"{test}/train/{n}" for n in range(3)]
    assert data.report.leaked_prompts.row_ids == [f"{test}/train/0"]
    assert data.report.near_leaked_prompts.row_ids == [f"{test}/train/1"]
    assert "1 held-out rows have a training prompt" in " ".join(data.report.notes)


def test_report_of_duplicates_contradictions_and_length_bias(write_rows: Write) -> None:
    swapped = {"prompt": ROWS[1]["prompt"], "chosen": ROWS[1]["rejected"], "rejected": ROWS[1]["chosen"]}
    path = write_rows([*ROWS, ROWS[0], swapped])
    report = prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE).report
    assert report.duplicate.count == 1
    assert report.duplicate.row_ids[0] in (f"{path}/train/0", f"{path}/train/40")
    assert sorted(report.contradicting.row_ids) == [f"{path}/train/1", f"{path}/train/41"]
    assert report.length_bias["chosen_longer"] == 37 / 42
    assert report.tokens["prompt"]["p5"] <= report.tokens["prompt"]["p50"] <= report.tokens["prompt"]["p100"]
    assert json.loads(json.dumps(report.to_dict()))["duplicate"]["count"] == 1
    text = report.text()
    assert text.startswith("42 training pairs, 0 held out, 0 rows left out")
    assert "duplicate: 1" in text
    assert "chosen is longer in" in text


def test_row_ids_in_the_report_are_capped_but_all_rows_counted(write_rows: Write) -> None:
    path = write_rows([*ROWS, *[{"prompt": "p", "chosen": "", "rejected": "no"}] * 50])
    rows = prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE).report.invalid["empty_chosen"]
    assert rows.count == 50
    assert len(rows.row_ids) == 20


def test_many_identical_after_cut_are_all_counted(write_rows: Write) -> None:
    same = "and so on, " * 80
    rows = [{"prompt": f"Go {n}.", "chosen": same + "yes", "rejected": same + "no"} for n in range(30)]
    path = write_rows([*ROWS, *rows])
    data = prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), seed=0, max_length=100, conditioned=False)
    assert data.report.invalid["identical_after_cut"].count == 30


def test_tools_and_template_arguments_of_a_row(write_rows: Write) -> None:
    template = "{% if tools %}{{ 'TOOLS ' + tools[0]['name'] }}{% endif %}{{ greeting | default('') }}" + CHATML
    tools = [{"name": "search"}]
    rows = [
        {**ROWS[0], "tools": json.dumps(tools), "chat_template_kwargs": {"greeting": "Hallo "}},
        {**ROWS[1], "tools": None, "chat_template_kwargs": {"greeting": None}},
        {**ROWS[2], "tools": "{broken", "chat_template_kwargs": None},
    ]
    tokenizer = tokenizer_of("qwen", chat_template=template)
    data = prepare_pairs([PairSource(id=write_rows(rows))], tokenizer, **BASE)
    texts = {pair.row_id[-1]: tokenizer.decode(pair.prompt) for pair in data.train}
    assert texts["0"].startswith("TOOLS searchHallo <|im_start|>user")
    assert texts["1"].startswith("<|im_start|>user")
    assert data.report.invalid["bad_tools"].count == 1


def test_notes_on_what_a_user_may_not_expect(write_rows: Write) -> None:
    source = [PairSource(id=write_rows(ROWS))]
    base = prepare_pairs(source, tokenizer_of("base-with-chatml"), **BASE).report
    assert base.end_token == "<|im_end|>"
    assert "not the tokenizer's eos_token <|endoftext|>" in " ".join(base.notes)
    assert "</s> is appended" in " ".join(prepare_pairs(source, tokenizer_of("no-end"), **BASE).report.notes)
    dated = tokenizer_of("qwen", chat_template="{% set day = strftime_now('%d') %}" + CHATML)
    assert "today's date" in " ".join(prepare_pairs(source, dated, **BASE).report.notes)


def test_a_full_disk_is_said_and_leaves_no_half_cache(write_rows: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PairSource(id=write_rows(ROWS))

    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PairTokeniser, "tokenise", fill)
        with pytest.raises(ResolutionError, match="no space is left") as error:
            prepare_pairs([source], tokenizer_of("qwen"), **BASE)
    assert "HF_DATASETS_CACHE" in error.value.fix
    assert not list((Path(datasets.config.HF_DATASETS_CACHE) / "inspo_hub").glob("tokens-*"))
    assert len(prepare_pairs([source], tokenizer_of("qwen"), **BASE).train) == 40


def test_a_folder_that_nobody_may_write_to_is_only_read(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    before = sorted(path.name for path in (tmp_path / "saved").iterdir())
    prepare_pairs([PairSource(id=str(tmp_path / "saved"))], tokenizer_of("qwen"), **BASE)
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == before


def test_rows_are_found_by_their_name(write_rows: Write) -> None:
    path = write_rows([*ROWS, BAD[0]])
    train = prepare_pairs([PairSource(id=path)], tokenizer_of("qwen"), **BASE).train
    assert train[train.index_of(f"{path}/train/7")].row_id == f"{path}/train/7"
    assert [train.index_of(name) for name in (f"{path}/train/40", f"{path}/test/7", "7", "", f"{path}/train/x")] == [
        -1
    ] * 5


@pytest.mark.slow
def test_two_processes_at_once_prepare_the_same(write_rows: Write, tmp_path: Path) -> None:
    path = write_rows([row(number) for number in range(600)])
    code = (
        "import sys; from inspo_hub.pairs import PairSource, prepare_pairs;"
        "from tests.pairs.tokenizers import tokenizer_of;"
        f"sources = [PairSource(id={path!r})];"
        "data = prepare_pairs(sources, tokenizer_of('qwen'), seed=3, max_length=99, conditioned=True);"
        "print(data.fingerprint)"
    )
    home = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "shared"), "PYTHONPATH": str(Path(__file__).parents[2])}
    both = [subprocess.Popen([sys.executable, "-c", code], env=home, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    prints = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert prints[0] == prints[1] != ""


def test_prepared_pairs_survive_pickling_and_subsets(write_rows: Write) -> None:
    import pickle

    data = prepare_pairs([PairSource(id=write_rows(ROWS))], tokenizer_of("qwen"), **BASE)
    again = pickle.loads(pickle.dumps(data.train))
    assert list(again) == list(data.train)
    some = data.train.subset(np.array([5, 2]))
    assert [p.row_id for p in some] == [data.train.row_id(5), data.train.row_id(2)]
