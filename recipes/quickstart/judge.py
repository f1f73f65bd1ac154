"""The quickstart's exact judge, and annotators that make preferences out of it.

`score(prompt, response)` reads only the two texts. A well-formed answer gets

    quality = sum of FACT_WEIGHTS over the facts that are right + 1 if the tone is the one asked for
              + 1 if the number of remarks is the one asked for                                     (0 to MAX_QUALITY)

and a text that is no answer of the language gets MALFORMED. Facts about an animal that was not asked for are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from language import LENGTHS, TONES, WORLD, parse_answer, parse_question

FACT_WEIGHTS = {"home": 1.5, "food": 1.5, "legs": 1.0, "coat": 1.0, "young": 1.0}
TONE_WEIGHT = 1.0
LENGTH_WEIGHT = 1.0
MAX_QUALITY = sum(FACT_WEIGHTS.values()) + TONE_WEIGHT + LENGTH_WEIGHT
MALFORMED = -1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge found in one answer."""

    well_formed: bool
    right_facts: tuple[str, ...] = ()
    tone: str = ""
    tone_right: bool = False
    remarks: int = 0
    length_right: bool = False

    @property
    def quality(self) -> float:
        if not self.well_formed:
            return MALFORMED
        facts = sum(FACT_WEIGHTS[attribute] for attribute in self.right_facts)
        return facts + TONE_WEIGHT * self.tone_right + LENGTH_WEIGHT * self.length_right


def examine(prompt: str, response: str) -> Verdict:
    """Everything the judge knows of an answer. A prompt that is no question of the language is the caller's mistake."""
    question = parse_question(prompt)
    if question is None:
        raise ValueError(f"not a question of the quickstart's language: {prompt!r}")
    answer = parse_answer(response)
    if answer is None:
        return Verdict(well_formed=False)
    truth = WORLD[question.subject]
    right = tuple(fact.attribute for fact in answer.facts if fact.value == truth[fact.attribute].right)
    return Verdict(
        well_formed=True,
        right_facts=right if answer.subject == question.subject else (),
        tone=answer.tone,
        tone_right=answer.tone == question.tone,
        remarks=len(answer.remarks),
        length_right=len(answer.remarks) in LENGTHS[question.length],
    )


def score(prompt: str, response: str) -> float:
    """The exact quality of an answer, MALFORMED where it is none."""
    return examine(prompt, response).quality


def well_formed(prompt: str, response: str) -> bool:
    """Whether the text is an answer of the language at all."""
    return examine(prompt, response).well_formed


def _separable(first: Verdict, second: Verdict) -> float:
    """Bradley-Terry on quality: sigmoid of the difference explains every preference."""
    return first.quality - second.quality


def _cyclic(first: Verdict, second: Verdict) -> float:
    """Quality counts half, rock-paper-scissors over the tones 3: no score per answer explains the preferences."""
    return 0.5 * (first.quality - second.quality) + 3.0 * tone_game(first.tone, second.tone)


def _length_biased(first: Verdict, second: Verdict) -> float:
    """Bradley-Terry on quality plus half a point for each remark, wanted or not."""
    return _separable(first, second) + 0.5 * (first.remarks - second.remarks)


def tone_game(first: str, second: str) -> int:
    """1 where the first tone beats the second, -1 where it loses, else 0: each of TONES beats the one after it."""
    if first not in TONES or second not in TONES:
        return 0
    return (0, 1, -1)[(TONES.index(second) - TONES.index(first)) % len(TONES)]


ANNOTATORS: Mapping[str, Callable[[Verdict, Verdict], float]] = {
    "separable": _separable,
    "cyclic": _cyclic,
    "length_biased": _length_biased,
}


def preference_probability(annotator: str, prompt: str, first: str, second: str) -> float:
    """Probability that the annotator prefers the first answer: sigmoid of its logit, 0.5 for equal texts."""
    logit = ANNOTATORS[annotator](examine(prompt, first), examine(prompt, second))
    return 1.0 / (1.0 + math.exp(-logit))


def prefers_first(annotator: str, prompt: str, first: str, second: str, rng: Random) -> bool:
    """One draw of the annotator's preference."""
    return rng.random() < preference_probability(annotator, prompt, first, second)
