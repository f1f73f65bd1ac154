"""Reading of prompts from jsonl and from rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inspo_hub.errors import DataError
from inspo_hub.evaluate.prompts import prompts_from_rows, read_prompts


def test_texts_and_conversations_give_messages(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"q": "Hello"}\n\n{"q": [{"role": "user", "content": "Hi"}]}\n{"q": "unread"}\n', encoding="utf-8")
    prompts = read_prompts(file, column="q", limit=2)
    assert [prompt.messages for prompt in prompts] == [
        ({"role": "user", "content": "Hello"},),
        ({"role": "user", "content": "Hi"},),
    ]
    assert [prompt.row_id for prompt in prompts] == ["prompts.jsonl/0", "prompts.jsonl/1"]


def test_a_line_separator_inside_a_text_ends_no_row(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "one\u2028line"}\n', encoding="utf-8")
    assert read_prompts(file)[0].text == "one\u2028line"


def test_a_judge_sees_every_turn_of_a_conversation() -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    assert prompts_from_rows([{"prompt": turns}])[0].text == "user: Hi\n\nassistant: Hello\n\nuser: Why?"


@pytest.mark.parametrize(
    "value",
    [3, "  ", [], [{"role": "assistant", "content": "Hi"}], [{"role": "user"}], ["user"], None],
)
def test_what_nobody_can_answer_is_refused_with_its_row(value: Any) -> None:
    with pytest.raises(DataError, match="prompts/1"):
        prompts_from_rows([{"prompt": "fine"}, {"prompt": value}])


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"prompt": "fine"}\n{"prompt": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"broken\.jsonl:2"):
        read_prompts(file)
    with pytest.raises(DataError, match=r"evaluate\.prompts\.id"):
        read_prompts(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="no column 'question'"):
        prompts_from_rows([{"prompt": "fine"}], column="question")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no prompt to answer"):
        read_prompts(tmp_path / "empty.jsonl")
