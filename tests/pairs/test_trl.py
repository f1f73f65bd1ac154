"""Token ids beside TRL 1.16's own preparation: equal where it is right, and where it is wrong, shown to be."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from transformers import PreTrainedTokenizerFast

from inspo_hub.errors import DataError
from inspo_hub.pairs import PairSource, PreferencePair, PreparedData, prepare_pairs
from tests.pairs.tokenizers import tokenizer_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TRL's imports warn about their own experiments
    from trl.trainer.dpo_trainer import DPOTrainer

Write = Callable[..., str]
Ids = dict[str, list[int]]


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


CONVERSATIONS = [
    {"prompt": [user("The sky?")], "chosen": [assistant("It is blue.")], "rejected": [assistant("It is green.")]},
    {
        "prompt": [user("Hi."), assistant("Hello."), user("Write a poem.")],
        "chosen": [assistant("Rivers run\n\n- one\n- two")],
        "rejected": [assistant("```python\nprint('x')\n```")],
    },
]
IMPLICIT = [
    {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in CONVERSATIONS
]


def of_trl(rows: list[dict], tokenizer: PreTrainedTokenizerFast, max_length: int | None = None) -> list[Ids]:
    """What TRL's trainer makes of these rows: its own method, called without a model."""
    args = SimpleNamespace(dataset_num_proc=None, max_length=max_length, truncation_mode="keep_start")
    dataset = datasets.Dataset.from_list(rows)
    prepared = DPOTrainer._prepare_dataset(SimpleNamespace(_tokenizer=tokenizer), dataset, tokenizer, args, "train")
    return [{name: row[f"{name}_ids"] for name in ("prompt", "chosen", "rejected")} for row in prepared]


def of_ours(path: str, tokenizer: PreTrainedTokenizerFast, **options: Any) -> PreparedData:
    settings = {"seed": 0, "max_length": 2048, "conditioned": False, **options}
    return prepare_pairs([PairSource(id=path)], tokenizer, **settings)


def pairs_of(path: str, tokenizer: PreTrainedTokenizerFast, **options: Any) -> list[PreferencePair]:
    """Our pairs in file order."""
    return sorted(of_ours(path, tokenizer, **options).train, key=lambda pair: int(pair.row_id.rsplit("/", 1)[1]))


def as_ids(pair: PreferencePair) -> Ids:
    return {"prompt": list(pair.prompt), "chosen": list(pair.chosen), "rejected": list(pair.rejected)}


@pytest.mark.parametrize("rows", [CONVERSATIONS, IMPLICIT], ids=["explicit", "implicit"])
@pytest.mark.parametrize("family", ["llama-3", "llama-2", "llama-2-legacy"])
def test_equal_where_nothing_follows_the_end_token(family: str, rows: list[dict], write_rows: Write) -> None:
    tokenizer = tokenizer_of(family)
    ours = pairs_of(write_rows(rows), tokenizer)
    assert [as_ids(pair) for pair in ours] == of_trl(rows, tokenizer)


@pytest.mark.parametrize("family", ["raw-bytes", "raw-pieces"])
def test_equal_on_strings_whose_boundary_is_between_words(family: str, write_rows: Write) -> None:
    rows = [{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}]
    tokenizer = tokenizer_of(family)
    assert [as_ids(pair) for pair in pairs_of(write_rows(rows), tokenizer)] == of_trl(rows, tokenizer)


@pytest.mark.parametrize(("family", "after"), [("qwen", "\n"), ("gemma", "\n"), ("phi-3", "\n<|endoftext|>")])
def test_trl_scores_what_the_template_writes_after_the_end_token(family: str, after: str, write_rows: Write) -> None:
    """ChatML's newline is never generated: behind the end token, generation has stopped."""
    tokenizer = tokenizer_of(family)
    ours, theirs = pairs_of(write_rows(CONVERSATIONS), tokenizer), of_trl(CONVERSATIONS, tokenizer)
    behind = tokenizer(tokenizer.convert_ids_to_tokens(ours[0].chosen[-1]) + after, add_special_tokens=False)
    for pair, row in zip(ours, theirs, strict=True):
        assert row["prompt"] == pair.prompt
        assert row["chosen"] == [*pair.chosen, *behind["input_ids"][1:]]
        assert row["rejected"] == [*pair.rejected, *behind["input_ids"][1:]]


def test_trl_cuts_implicit_prompts_inside_words(write_rows: Write) -> None:
    """E5 and row 24: an answer's opening moves into the prompt, and words are cut; here such rows are refused."""
    from trl.data_utils import extract_prompt

    assert extract_prompt({"chosen": "The sky", "rejected": "The skull"})["prompt"] not in ("", "The", "The ")
    moved = extract_prompt({"chosen": "Q? It is blue.", "rejected": "Q? It is green."})
    assert moved["prompt"] == "Q? It is"  # the answers' own opening has become a part of the question
    with pytest.raises(DataError, match="no prompt can be told from the answer") as error:
        of_ours(write_rows([{"chosen": "The sky", "rejected": "The skull"}]), tokenizer_of("raw-bytes"))
    assert "columns: {prompt:" in error.value.fix


def test_trl_moves_the_end_of_a_prompt_out_of_training(write_rows: Write) -> None:
    """Row 23: a token that straddles the boundary takes the prompt's last blank away; ours keeps what is fed."""
    tokenizer = tokenizer_of("raw-bytes")
    rows = [{"prompt": "Paris ", "chosen": "London", "rejected": "England"}]
    (theirs,), (ours,) = of_trl(rows, tokenizer), pairs_of(write_rows(rows), tokenizer)
    fed = tokenizer("Paris ")["input_ids"]
    assert ours.prompt == fed
    assert theirs["prompt"] == fed[:-1]
    assert tokenizer.decode(ours.prompt + ours.chosen) == tokenizer.decode(theirs["prompt"] + theirs["chosen"])


def test_trl_doubles_a_bos_that_the_text_brings(write_rows: Write) -> None:
    """Row 19."""
    tokenizer = tokenizer_of("raw-pieces")
    rows = [{"prompt": "<s>The sky is", "chosen": " blue", "rejected": " green"}]
    (theirs,), (ours,) = of_trl(rows, tokenizer), pairs_of(write_rows(rows), tokenizer)
    assert theirs["prompt"][:2] == [tokenizer.bos_token_id] * 2
    assert ours.prompt == theirs["prompt"][1:]


def test_trl_doubles_an_end_token_that_the_data_brings(write_rows: Write) -> None:
    """Row 20: answers that were stored with the end token that the template writes again."""
    tokenizer = tokenizer_of("llama-3")
    rows = [
        {
            "prompt": [user("The sky?")],
            "chosen": [assistant("It is blue.<|eot_id|>")],
            "rejected": [assistant("It is green.<|eot_id|>")],
        }
    ]
    (theirs,), (ours,) = of_trl(rows, tokenizer), pairs_of(write_rows(rows), tokenizer)
    assert theirs["chosen"].count(tokenizer.eos_token_id) == 2
    assert theirs["chosen"] == [*ours.chosen, tokenizer.eos_token_id]


def test_trl_drops_long_prompts_without_a_word(write_rows: Write) -> None:
    """Rows 26 and 28: ours are cut or dropped as the recipe says, and named in the report."""
    tokenizer = tokenizer_of("qwen")
    long = {**CONVERSATIONS[0], "prompt": [user("The sky? " * 100)]}
    rows = [*CONVERSATIONS, long]
    path = write_rows(rows)
    assert len(of_trl(rows, tokenizer, max_length=128)) == 2
    cut = of_ours(path, tokenizer, max_length=128)
    assert len(cut.train) == 3
    assert cut.report.truncated.row_ids == [f"{path}/train/2"]
    assert cut.report.truncated_tokens["prompt"] > 100
    assert of_ours(path, tokenizer, max_length=128, on_overlong="drop").report.overlong.row_ids == [f"{path}/train/2"]


def test_trl_keeps_empty_and_identical_rows(write_rows: Write) -> None:
    """D: pairs without a preference in them."""
    tokenizer = tokenizer_of("llama-3")
    ask = [user("The sky?")]
    rows = [
        CONVERSATIONS[0],
        {"prompt": ask, "chosen": [assistant("")], "rejected": [assistant("No.")]},
        {"prompt": ask, "chosen": [assistant("Same.")], "rejected": [assistant("Same.")]},
    ]
    assert len(of_trl(rows, tokenizer)) == 3
    report = of_ours(write_rows(rows), tokenizer).report
    assert {kind: found.count for kind, found in report.invalid.items()} == {"empty_chosen": 1, "identical": 1}


def test_a_template_that_trl_applies_to_no_string_row(write_rows: Write) -> None:
    """Row 22: string rows are rendered by the template here, as inference will, and the report says so."""
    tokenizer = tokenizer_of("qwen")
    rows = [{"prompt": "The sky?", "chosen": "It is blue.", "rejected": "It is green."}]
    path = write_rows(rows)
    assert tokenizer.decode(of_trl(rows, tokenizer)[0]["prompt"]) == "The sky?"
    data = of_ours(path, tokenizer)
    assert tokenizer.decode(data.train[0].prompt) == "<|im_start|>user\nThe sky?<|im_end|>\n<|im_start|>assistant\n"
    assert "a string prompt becomes one user message" in data.report.notes[0]
    assert as_ids(of_ours(path, tokenizer, text_format="raw").train[0]) == of_trl(rows, tokenizer)[0]


def test_tools_are_read_as_trl_reads_them(write_rows: Write) -> None:
    template = "{% if tools %}{{ 'TOOLS ' + tools[0]['name'] }}{% endif %}" + str(tokenizer_of("llama-3").chat_template)
    tokenizer = tokenizer_of("llama-3", chat_template=template)
    rows = [{**row, "tools": json.dumps([{"name": "search"}])} for row in CONVERSATIONS]
    assert [as_ids(pair) for pair in pairs_of(write_rows(rows), tokenizer)] == of_trl(rows, tokenizer)
