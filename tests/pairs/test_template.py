"""What a chat template does around an answer, and the separator between two answers."""

from __future__ import annotations

import pytest

from inspo_hub.errors import DataError
from inspo_hub.pairs import DEFAULT_TURN_TEXT, check_vocabulary, separator_ids
from inspo_hub.pairs.template import probe_chat
from tests.pairs.tokenizers import CHAT_FAMILIES, CHATML, tokenizer_of

T = DEFAULT_TURN_TEXT
SEPARATORS = {
    "qwen": f"\n<|im_start|>user\n{T}<|im_end|>\n<|im_start|>assistant\n",
    "qwen-default-system": f"\n<|im_start|>user\n{T}<|im_end|>\n<|im_start|>assistant\n",
    "qwen-empty-thought": f"\n<|im_start|>user\n{T}<|im_end|>\n<|im_start|>assistant\n",
    "base-with-chatml": f"\n<|im_start|>user\n{T}<|im_end|>\n<|im_start|>assistant\n",
    "llama-3": f"<|start_header_id|>user<|end_header_id|>\n\n{T}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": f"\n<start_of_turn>user\n{T}<end_of_turn>\n<start_of_turn>model\n",
    "llama-2": f"<s>[INST] {T} [/INST]",
    "llama-2-legacy": f"<s>[INST] {T} [/INST]",
    "zephyr": f"\n<|user|>\n{T}</s>\n<|assistant|>\n",
    "zephyr-wild": f"\n<|user|>\n{T}</s>\n<|assistant|>\n",
    "gemma-wild": f"\n<start_of_turn>user\n{T}<end_of_turn>\n<start_of_turn>model\n",
    "zephyr-unigram": f"\n<|user|>\n{T}</s>\n<|assistant|>\n",
    "phi-3": f"\n<|user|>\n{T}<|end|>\n<|assistant|>\n",
    "no-end": f"\nUSER: {T}\nASSISTANT:",
}


@pytest.mark.parametrize("family", CHAT_FAMILIES)
def test_separator_is_what_the_template_writes_between_two_answers(family: str) -> None:
    tokenizer = tokenizer_of(family)
    ids = separator_ids(tokenizer)
    end = tokenizer.convert_ids_to_tokens(probe_chat(tokenizer).end_id)
    assert list(ids) == tokenizer(end + SEPARATORS[family], add_special_tokens=False)["input_ids"][1:]


@pytest.mark.parametrize("family", sorted(set(CHAT_FAMILIES) - {"no-end", "qwen-empty-thought"}))
def test_prompt_alternative_separator_target_is_the_whole_conversation(family: str) -> None:
    """The conditioned path is the very conversation that the template renders, token by token."""
    tokenizer = tokenizer_of(family)
    asked = [{"role": "user", "content": "The sky?"}]
    middle = [{"role": "assistant", "content": "It is green."}, {"role": "user", "content": "Now in blue."}]
    last = [{"role": "assistant", "content": "It is blue."}]
    whole = tokenizer.apply_chat_template(asked + middle + last)["input_ids"]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    end = probe_chat(tokenizer).end_id
    path = whole[len(prompt) :]
    alternative = path[: path.index(end) + 1]
    separator = separator_ids(tokenizer, "turn", "Now in blue.")
    assert path[len(alternative) : len(alternative) + len(separator)] == list(separator)


def test_concat_is_nothing_and_needs_no_template() -> None:
    assert separator_ids(tokenizer_of("raw-bytes"), "concat") == ()


def test_turn_without_a_template_is_refused() -> None:
    with pytest.raises(DataError, match="no") as error:
        separator_ids(tokenizer_of("raw-bytes"), "turn")
    assert "concat" in error.value.fix


@pytest.mark.parametrize(
    ("template", "text", "what"),
    [
        # a user's turn is written with its number, so a longer conversation has another separator
        (
            CHATML.replace("m['role'] +", "m['role'] ~ (loop.index if m['role'] == 'user' else '') ~"),
            T,
            "depends on the conversation",
        ),
        (CHATML.replace("m['content']", "(m['content'] if loop.index < 3 else '')"), T, "leaves the user turn"),
        (CHATML, "  ", "leaves the user turn"),
        ("{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + CHATML, T, "second user turn"),
    ],
)
def test_a_separator_that_cannot_be_told(template: str, text: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        separator_ids(tokenizer_of("qwen", chat_template=template), "turn", text)


def test_end_token_and_what_follows() -> None:
    ends = {family: probe_chat(tokenizer_of(family)) for family in CHAT_FAMILIES}
    assert {family: (shape.end_text, shape.after) for family, shape in ends.items()} == {
        "qwen": ("<|im_end|>", "\n"),
        "qwen-default-system": ("<|im_end|>", "\n"),
        "qwen-empty-thought": ("<|im_end|>", "\n"),
        "base-with-chatml": ("<|im_end|>", "\n"),
        "llama-3": ("<|eot_id|>", ""),
        "gemma": ("<end_of_turn>", "\n"),
        "llama-2": ("</s>", ""),
        "llama-2-legacy": ("</s>", ""),
        "zephyr": ("</s>", "\n"),
        "zephyr-wild": ("</s>", "\n"),
        "gemma-wild": ("<end_of_turn>", "\n"),
        "zephyr-unigram": ("</s>", "\n"),
        "phi-3": ("<|end|>", "\n<|endoftext|>"),
        "no-end": ("", "\n"),
    }
    assert ends["llama-3"].generation_prompt == "<|start_header_id|>assistant<|end_header_id|>\n\n"


def test_a_tokenizer_of_another_model_is_refused() -> None:
    check_vocabulary(99, 100)
    with pytest.raises(DataError, match="token id 100 has no row in the model's embedding of 100 rows"):
        check_vocabulary(100, 100)
