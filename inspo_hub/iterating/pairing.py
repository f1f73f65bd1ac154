"""Judged answers -> preference rows: the best against the worst of each prompt. Plain Python; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of the policy and what the judge gave it."""

    text: str
    finished: bool
    score: float | None
    """None where the judge failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A prompt, as messages (or one text, for models without a chat template), with all of its answers."""

    prompt: Sequence[Mapping[str, str]] | str
    answers: Sequence[Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """The rows of a round, and what became of its prompts: rows + ties + unusable = prompts."""

    rows: Sequence[Mapping[str, Any]]
    prompts: int
    ties: int
    """Prompts whose answers all got one score: nothing to prefer."""
    unusable: int
    """Prompts with fewer than two answers that came to an end and have a verdict."""
    mean_score: float
    """Of all answers: how good the policy is that this round starts from. 0.5 by construction with a judge of pairs."""

    def counts(self) -> dict[str, Any]:
        """Everything but the rows, as plain values."""
        return {"pairs": len(self.rows), **{key: value for key, value in asdict(self).items() if key != "rows"}}


def make_pairs(answered: Iterable[Answered]) -> Pairing:
    """Best against worst finished answer of each prompt, the earlier one where scores are equal."""
    rows: list[Mapping[str, Any]] = []
    prompts = ties = unusable = 0
    scores: list[float] = []
    for each in answered:
        prompts += 1
        scores += [answer.score for answer in each.answers if answer.score is not None]
        # An answer that was cut off would be trained with an end that its writer never wrote.
        whole = [(answer.score, answer.text) for answer in each.answers if answer.finished and answer.score is not None]
        if len(whole) < 2:
            unusable += 1
            continue
        best, worst = max(whole, key=itemgetter(0)), min(whole, key=itemgetter(0))
        if best[0] == worst[0]:
            ties += 1
        else:
            rows.append(_row(each.prompt, best, worst))
    mean = sum(scores) / len(scores) if scores else 0.0
    return Pairing(rows=rows, prompts=prompts, ties=ties, unusable=unusable, mean_score=mean)


def _row(
    prompt: Sequence[Mapping[str, str]] | str, best: tuple[float, str], worst: tuple[float, str]
) -> dict[str, Any]:
    """A preference row of the form that its prompt has."""
    chosen: Any = best[1]
    rejected: Any = worst[1]
    if not isinstance(prompt, str):
        prompt = [dict(message) for message in prompt]
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    scores = {"chosen_score": best[0], "rejected_score": worst[0]}
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **scores}


def turn(items: Sequence[Any], limit: int | None, number: int) -> list[Any]:
    """The items of round `number`, counted from 1: the next `limit` of them, and the first again after the last."""
    if limit is None or limit >= len(items):
        return list(items)
    start = (number - 1) * limit
    return [items[(start + offset) % len(items)] for offset in range(limit)]
