"""The preview shows every path as the model will see it."""

from __future__ import annotations

import json

import pytest

from inspo_hub.packing import context_and_response
from inspo_hub.pairs import PreferencePair, preview_rows, render_preview, separator_ids
from inspo_hub.pairs.formats import read_example
from inspo_hub.pairs.tokenise import PairTokeniser, Tokens
from inspo_hub.views import SCORES, Score
from tests.pairs.tokenizers import CHAT_FAMILIES, tokenizer_of


def pair_of(family: str) -> tuple[PreferencePair, PairTokeniser]:
    tokeniser = PairTokeniser(tokenizer_of(family), chat=True)
    row = {"prompt": "The sky?", "chosen": "It is blue, they say.", "rejected": "It is green — 😀."}
    tokens = tokeniser.tokenise([tokeniser.texts(read_example(row, chat=True))])[0]
    assert isinstance(tokens, Tokens)
    return PreferencePair(tokens.prompt, tokens.chosen, tokens.rejected, row_id="owner/pairs/train/3"), tokeniser


@pytest.mark.parametrize("family", CHAT_FAMILIES)
def test_segments_are_the_path_and_its_text(family: str) -> None:
    pair, tokeniser = pair_of(family)
    separator = separator_ids(tokeniser.tokenizer)
    (row,) = preview_rows([pair], tokeniser.tokenizer, separator=separator)
    paths = {path.score: path for path in row.paths}
    conditioned = paths["chosen_given_rejected"]
    assert [segment.kind for segment in conditioned.segments] == ["prompt", "alternative", "separator", "target"]
    assert [segment.scored for segment in conditioned.segments] == [False, False, False, True]
    ids = [token for segment in conditioned.segments for token in segment.token_ids]
    assert ids == [*pair.prompt, *pair.rejected, *separator, *pair.chosen]
    assert conditioned.tokens == len(ids)
    whole = tokeniser.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert "".join(segment.text for segment in conditioned.segments) == whole
    assert [segment.kind for segment in paths["rejected"].segments] == ["prompt", "target"]
    assert paths["rejected"].segments[1].token_ids == tuple(pair.rejected)


def test_only_the_scores_that_are_asked_for() -> None:
    pair, tokeniser = pair_of("qwen")
    (row,) = preview_rows([pair], tokeniser.tokenizer, scores=("chosen", "rejected"))
    assert [path.score for path in row.paths] == ["chosen", "rejected"]


@pytest.mark.parametrize(("of_row", "of_recipe"), [(3, None), (None, 3), (3, 9), (9, 3)])
def test_a_shortened_alternative_keeps_its_end_token(of_row: int | None, of_recipe: int | None) -> None:
    pair, tokeniser = pair_of("qwen")
    cut = PreferencePair(pair.prompt, pair.chosen, pair.rejected, max_alternative_tokens=of_row)
    (row,) = preview_rows(
        [cut], tokeniser.tokenizer, scores=("rejected_given_chosen",), max_alternative_tokens=of_recipe
    )
    alternative = row.paths[0].segments[1]
    assert list(alternative.token_ids) == [*pair.chosen[:2], pair.chosen[-1]]
    assert alternative.text.endswith("<|im_end|>")


@pytest.mark.parametrize("limit", [None, 1, 2, 4, 100])
@pytest.mark.parametrize("score", SCORES)
def test_the_preview_shows_what_is_packed(score: Score, limit: int | None) -> None:
    pair, tokeniser = pair_of("llama-3")
    separator = separator_ids(tokeniser.tokenizer)
    options = {"separator": separator, "max_alternative_tokens": limit}
    (row,) = preview_rows([pair], tokeniser.tokenizer, scores=(score,), **options)
    context, scored = context_and_response(pair, score, **options)
    segments = row.paths[0].segments
    assert [token for segment in segments[:-1] for token in segment.token_ids] == context
    assert list(segments[-1].token_ids) == scored


def test_text_and_json() -> None:
    pair, tokeniser = pair_of("qwen")
    rows = preview_rows([pair], tokeniser.tokenizer, scores=("chosen_given_rejected",), separator=(1, 2))
    text = render_preview(rows)
    assert text.startswith("owner/pairs/train/3\n  chosen_given_rejected: ")
    assert f"\n    target ({len(pair.chosen)})\n    > It is blue, they say.<|im_end|>" in text
    assert "\n    | <|im_start|>user\n    | The sky?<|im_end|>" in text
    fields = json.loads(json.dumps(rows[0].to_dict()))
    assert fields["paths"][0]["tokens"] == rows[0].paths[0].tokens
    assert [segment["scored"] for segment in fields["paths"][0]["segments"]] == [False, False, False, True]
