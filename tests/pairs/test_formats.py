"""Rows in every known format -> prompt and responses, split on messages and never inside a word."""

from __future__ import annotations

import pytest

from inspo_hub.pairs.formats import RowProblem, prompt_text, read_example
from inspo_hub.pairs.tokenise import prompt_hashes


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be short."}
ASKED = [user("The sky?")]
TURNS = [user("Hi."), assistant("Hello."), user("The sky?")]
HH = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: The sky?\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "The sky?", "chosen": "Blue.", "rejected": "Green."}, ASKED),
        ({"prompt": ASKED, "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]}, ASKED),
        ({"prompt": TURNS, "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]}, TURNS),
        ({"prompt": "The sky?", "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]}, ASKED),
        ({"prompt": ASKED, "chosen": "Blue.", "rejected": "Green."}, ASKED),
        ({"chosen": [*ASKED, assistant("Blue.")], "rejected": [*ASKED, assistant("Green.")]}, ASKED),
        ({"chosen": [*TURNS, assistant("Blue.")], "rejected": [*TURNS, assistant("Green.")]}, TURNS),
        # the prompt stands in its own column and again in the responses
        (
            {
                "prompt": "The sky?",
                "chosen": [*ASKED, assistant("Blue.")],
                "rejected": [*ASKED, assistant("Green.")],
            },
            ASKED,
        ),
        (
            {"prompt": "Hi.", "chosen": [*TURNS, assistant("Blue.")], "rejected": [*TURNS, assistant("Green.")]},
            TURNS,
        ),
        (
            {"prompt": TURNS, "chosen": [*TURNS, assistant("Blue.")], "rejected": [*TURNS, assistant("Green.")]},
            TURNS,
        ),
        ({"system": "Be short.", "prompt": "The sky?", "chosen": "Blue.", "rejected": "Green."}, [SYSTEM, *ASKED]),
        (
            {
                "system": "Be short.",
                "prompt": "The sky?",
                "chosen": [*ASKED, assistant("Blue.")],
                "rejected": [*ASKED, assistant("Green.")],
            },
            [SYSTEM, *ASKED],
        ),
        ({"system": None, "prompt": "The sky?", "chosen": "Blue.", "rejected": "Green."}, ASKED),
        ({"chosen": f"{HH} Blue.", "rejected": f"{HH} Green."}, TURNS),
        # Arrow's one schema fills fields that a message does not have; contents may come in parts
        (
            {
                "prompt": [{"role": "user", "content": [{"type": "text", "text": "The sky?"}], "tool_calls": None}],
                "chosen": [{"role": "assistant", "content": "Blue.", "tool_calls": None}],
                "rejected": [{"role": "assistant", "content": "Green.", "name": None}],
            },
            ASKED,
        ),
    ],
)
def test_the_formats_of_a_chat_row(row: dict, prompt: list) -> None:
    example = read_example(row, chat=True)
    assert example.prompt == prompt
    assert (example.chosen, example.rejected) == (assistant("Blue."), assistant("Green."))


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "The sky?", "chosen": "", "rejected": "Green."}, "empty_chosen"),
        ({"prompt": "The sky?", "chosen": "Blue.", "rejected": " \n"}, "empty_rejected"),
        ({"prompt": "The sky?", "chosen": "Blue.", "rejected": None}, "empty_rejected"),
        ({"prompt": "The sky?", "chosen": [], "rejected": []}, "empty_chosen"),
        ({"prompt": "  ", "chosen": "Blue.", "rejected": "Green."}, "empty_prompt"),
        ({"prompt": [], "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]}, "empty_prompt"),
        ({"prompt": [SYSTEM], "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]}, "empty_prompt"),
        ({"chosen": ASKED, "rejected": ASKED}, "no_assistant_turn"),
        ({"chosen": [*TURNS, assistant("B.")], "rejected": [*ASKED, assistant("G.")]}, "diverging_turns"),
        (
            {"prompt": ASKED, "chosen": [assistant("a"), user("b"), assistant("c")], "rejected": [assistant("d")]},
            "diverging_turns",
        ),
        (
            {"prompt": "The sea?", "chosen": [*ASKED, assistant("B.")], "rejected": [*ASKED, assistant("G.")]},
            "prompt_mismatch",
        ),
        ({"chosen": "The sky is blue", "rejected": "The sky is green"}, "no_boundary"),
        ({"chosen": f"{HH} Blue.", "rejected": "\n\nHuman: No?\n\nAssistant: G."}, "diverging_turns"),
        ({"chosen": f"{HH} Blue.\n\nHuman: Thanks.", "rejected": f"{HH} Green."}, "no_boundary"),
        ({"prompt": "The sky?", "chosen": [{"content": "Blue."}], "rejected": [assistant("G.")]}, "bad_message"),
        ({"prompt": "The sky?", "chosen": [{"role": "assistant", "content": 1}], "rejected": "G."}, "bad_message"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": "Blue.", "rejected": "Green."},
            "not_text",
        ),
    ],
)
def test_what_cannot_be_a_pair(row: dict, kind: str) -> None:
    with pytest.raises(RowProblem) as problem:
        read_example(row, chat=True)
    assert problem.value.kind == kind


def test_raw_rows_stay_strings() -> None:
    row = {"prompt": "The sky is", "chosen": " blue", "rejected": " green"}
    example = read_example(row, chat=False)
    assert (example.prompt, example.chosen, example.rejected) == ("The sky is", " blue", " green")


def test_raw_transcripts_are_cut_behind_the_last_assistant_and_nowhere_else() -> None:
    example = read_example({"chosen": f"{HH} It is blue.", "rejected": f"{HH} It is green."}, chat=False)
    assert (example.prompt, example.chosen, example.rejected) == (HH, " It is blue.", " It is green.")
    for chosen, rejected, kind in (
        ("Paris London", "Paris is", "no_boundary"),
        (f"{HH} Blue.", "\n\nHuman: No?\n\nAssistant: Green.", "diverging_turns"),
    ):
        with pytest.raises(RowProblem, match=kind):
            read_example({"chosen": chosen, "rejected": rejected}, chat=False)


def test_messages_need_a_template() -> None:
    with pytest.raises(RowProblem, match="needs_chat_template"):
        read_example({"prompt": ASKED, "chosen": [assistant("a")], "rejected": [assistant("b")]}, chat=False)


def test_equal_prompts_hash_alike_in_every_format() -> None:
    row = {"prompt": "The sky?", "chosen": "Blue.", "rejected": "Green."}
    conversational = {"chosen": [*ASKED, assistant("Blue.")], "rejected": [*ASKED, assistant("Green.")]}
    first, second = read_example(row, chat=True), read_example(conversational, chat=True)
    assert prompt_text(first) == prompt_text(second)
    exact, near = prompt_hashes(first)
    exact_2, near_2 = prompt_hashes(read_example({**row, "prompt": "the sky ??"}, chat=True))
    assert exact != exact_2
    assert near == near_2
