"""Token ids of a pair: the prompt is what inference feeds, a response is what follows it, with one end token."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from inspo_hub.errors import DataError
from inspo_hub.pairs.formats import RowProblem, read_example
from inspo_hub.pairs.tokenise import PairTokeniser, Tokens
from tests.pairs.tokenizers import CHAT_FAMILIES, OPEN_THOUGHT, RAW_FAMILIES, tokenizer_of

PROMPTS = {
    "one turn": [{"role": "user", "content": "Which city is the capital of France?"}],
    "more turns": [
        {"role": "user", "content": "What is two and three?"},
        {"role": "assistant", "content": "Five."},
        {"role": "user", "content": "  And the capital of England?\n"},
    ],
    "system": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "The sky?"}],
    "code and signs": [{"role": "user", "content": "é — 😀 {x} [1]\n```python\nprint('x')\n```"}],
}
ANSWERS = {
    "words": ("Paris is the capital.", "London, they say."),
    "same opening": ("It is blue.", "It is green."),
    "blanks around": (" Paris \n", "\n\nLondon"),
    "signs": ("```python\nprint('é 😀')\n```", "- one\n- two\n\n3. {three}"),
    "one letter": ("a", "b"),
}


def tokens_of(tokenizer: PreTrainedTokenizerFast, row: dict, **options: object) -> Tokens:
    tokeniser = PairTokeniser(tokenizer, chat=tokenizer.chat_template is not None, **options)
    result = tokeniser.tokenise([tokeniser.texts(read_example(row, chat=tokeniser.chat))])[0]
    if isinstance(result, RowProblem):
        raise result
    return result


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("answers", ANSWERS)
@pytest.mark.parametrize(
    ("family", "asked"),
    [
        (family, asked)
        for family in CHAT_FAMILIES
        for asked in PROMPTS
        if not (family.startswith("gemma") and asked == "system")
    ],
)
def test_prompt_is_what_inference_feeds_and_responses_continue_it(family: str, asked: str, answers: str) -> None:
    tokenizer, prompt = tokenizer_of(family), PROMPTS[asked]
    chosen, rejected = ANSWERS[answers]
    tokens = tokens_of(tokenizer, {"prompt": prompt, "chosen": chosen, "rejected": rejected})

    assert tokens.prompt == tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    end = PairTokeniser(tokenizer, chat=True).end_id
    for answer, ids in ((chosen, tokens.chosen), (rejected, tokens.rejected)):
        assert ids[-1] == end
        assert ids.count(end) == 1
        whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}], tokenize=False)
        end_text = tokenizer.convert_ids_to_tokens(end)
        if end_text in whole[whole.rindex(answer.strip()) :]:
            expected = whole[: whole.rindex(end_text) + len(end_text)]
            if family == "phi-3":  # the template writes EOS behind everything, after the turn's own end
                expected = whole[: whole.rindex("<|end|>") + len("<|end|>")]
        else:
            expected = whole.removesuffix("\n") + end_text
        assert decode(tokenizer, tokens.prompt + ids) == decode(
            tokenizer, tokenizer(expected, add_special_tokens=False)["input_ids"]
        )
        assert answer.strip() in decode(tokenizer, ids)


@pytest.mark.parametrize("family", [family for family in CHAT_FAMILIES if not family.endswith("-wild")])
def test_where_no_token_straddles_the_ids_are_those_of_the_whole_text(family: str) -> None:
    tokenizer = tokenizer_of(family)
    row = {"prompt": PROMPTS["one turn"], "chosen": "Paris is the capital.", "rejected": "London."}
    tokens = tokens_of(tokenizer, row)
    whole = tokenizer.apply_chat_template(
        [*row["prompt"], {"role": "assistant", "content": row["chosen"]}], tokenize=True
    )["input_ids"]
    ours = tokens.prompt + tokens.chosen
    assert tokens.merged == 0
    shared = len(ours) - (family == "no-end")  # whose end token is ours, not the template's
    assert ours[:shared] == whole[:shared]


@pytest.mark.parametrize("family", CHAT_FAMILIES)
def test_one_bos_at_most(family: str) -> None:
    tokenizer = tokenizer_of(family)
    tokens = tokens_of(tokenizer, {"prompt": "The sky?", "chosen": "It is blue.", "rejected": "It is green."})
    template_writes_bos = family.startswith(("llama", "gemma"))
    assert tokens.prompt.count(tokenizer.bos_token_id) == template_writes_bos
    assert not template_writes_bos or tokens.prompt[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in tokens.chosen + tokens.rejected
    assert None not in tokens.prompt + tokens.chosen + tokens.rejected


@pytest.mark.parametrize("family", CHAT_FAMILIES)
def test_an_end_token_that_the_data_already_wrote_is_not_doubled(family: str) -> None:
    tokenizer = tokenizer_of(family)
    end_id = PairTokeniser(tokenizer, chat=True).end_id
    end = tokenizer.convert_ids_to_tokens(end_id)
    written = tokens_of(
        tokenizer, {"prompt": "The sky?", "chosen": f"It is blue.{end}\n", "rejected": f"No.{end}{end}"}
    )
    plain = tokens_of(tokenizer, {"prompt": "The sky?", "chosen": "It is blue.", "rejected": "No."})
    assert (written.chosen, written.rejected) == (plain.chosen, plain.rejected)


def test_an_end_token_within_an_answer_is_refused() -> None:
    tokenizer = tokenizer_of("llama-2")
    with pytest.raises(RowProblem, match="end_token_inside"):
        tokens_of(tokenizer, {"prompt": "HTML?", "chosen": "Write <s>old</s> text.", "rejected": "No."})


@pytest.mark.parametrize("family", RAW_FAMILIES)
@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("Question: what is two and three? Answer:", " five", " six"),
        ("Paris ", "London is that of England.", "Rome"),  # a word's token begins with the prompt's last blank
        ("The sk", "y is blue.", "ull"),  # inside a word, as the data set says
        ("Write a poem.\n", "\nRivers run", "- one\n- two"),
        ("é — ", "😀", "ü"),
    ],
)
def test_raw_strings_are_joined_as_they_stand(family: str, prompt: str, chosen: str, rejected: str) -> None:
    tokenizer = tokenizer_of(family)
    tokens = tokens_of(tokenizer, {"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert tokens.prompt == tokenizer(prompt)["input_ids"]
    assert tokens.prompt.count(tokenizer.bos_token_id) == ("pieces" in family)
    for text, ids in ((chosen, tokens.chosen), (rejected, tokens.rejected)):
        assert ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.eos_token_id) == 1
        assert decode(tokenizer, tokens.prompt + ids) == decode(
            tokenizer, tokenizer(prompt + text)["input_ids"] + [tokenizer.eos_token_id]
        )


def test_a_blank_before_the_boundary_stays_in_the_prompt() -> None:
    tokenizer = tokenizer_of("raw-bytes")
    tokens = tokens_of(tokenizer, {"prompt": "Paris ", "chosen": "London", "rejected": "England"})
    assert decode(tokenizer, tokens.prompt) == "Paris "
    assert decode(tokenizer, tokens.chosen) == "London<|endoftext|>"
    assert tokens.merged == 2


def test_raw_text_that_brings_its_own_bos_gets_no_second() -> None:
    tokenizer = tokenizer_of("raw-pieces")
    tokens = tokens_of(tokenizer, {"prompt": "<s>[INST] The sky? [/INST]", "chosen": " blue", "rejected": " green"})
    assert tokens.prompt.count(tokenizer.bos_token_id) == 1


def test_the_tail_is_only_a_speed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equivalent to tokenising the whole prompt with each response."""
    rows = [{"prompt": PROMPTS[name], "chosen": a, "rejected": b} for name in PROMPTS for a, b in ANSWERS.values()]
    for family in ("qwen", "llama-3", "llama-2-legacy", "phi-3"):
        tokenizer = tokenizer_of(family)
        fast = [tokens_of(tokenizer, row) for row in rows]
        with monkeypatch.context() as patch:
            patch.setattr(PairTokeniser, "_tails", lambda self, prompts, ids: (list(prompts), list(ids)))
            assert [tokens_of(tokenizer, row) for row in rows] == fast


def test_template_arguments_reach_the_template() -> None:
    tokenizer = tokenizer_of("qwen", chat_template=OPEN_THOUGHT)
    row = {"prompt": "The sky?", "chosen": "It is blue.", "rejected": "It is green."}
    with pytest.raises(DataError, match="enable_thinking"):
        tokens_of(tokenizer, row)
    tokens = tokens_of(tokenizer, row, template_kwargs={"enable_thinking": False})
    assert decode(tokenizer, tokens.prompt).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "system", "content": "Be short."}, {"role": "user", "content": "The sky?"}],
        [{"role": "user", "content": "The sky?"}, {"role": "user", "content": "And?"}],
    ],
)
def test_a_template_that_refuses_a_row(prompt: list) -> None:
    with pytest.raises(RowProblem, match=r"template_refused: (System role|Conversation roles)"):
        tokens_of(tokenizer_of("gemma"), {"prompt": prompt, "chosen": "a", "rejected": "b"})


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    tokenizer = tokenizer_of("raw-bytes")
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no end-of-sequence token"):
        PairTokeniser(tokenizer, chat=False)
