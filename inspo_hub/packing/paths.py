"""One pair's paths: a trunk of prompt, response and other response, and what branches off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from inspo_hub.views import SCORES, Score

if TYPE_CHECKING:
    from inspo_hub.conditioning import Conditioning
    from inspo_hub.pairs import PreferencePair

Layout = Literal["tree", "flat"]
_CHAINS: tuple[tuple[Score, Score], ...] = (
    ("rejected", "chosen_given_rejected"),
    ("chosen", "rejected_given_chosen"),
)
"""What a path scores: a response, then the other one given it."""
PLAIN: tuple[Score, ...] = ("chosen", "rejected")
"""The scores without an alternative."""


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens that follow each other in a row, after the ranges of the pair's tokens that their path went through."""

    tokens: list[int]
    context: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """A response's tokens in a run; the token before `first` predicts the first of them."""

    run: int
    first: int
    targets: Sequence[int]


@dataclass(slots=True)
class PairLayout:
    runs: list[Run] = field(default_factory=list)
    scored: dict[Score, ScoredRun] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(len(run.tokens) for run in self.runs)

    def add(self, run: Run, **scored: tuple[int, Sequence[int]]) -> None:
        """Append a run, and where in it which scores' tokens stand."""
        for score, (first, targets) in scored.items():
            self.scored[score] = ScoredRun(len(self.runs), first, targets)  # type: ignore[index]
        self.runs.append(run)


def scores_of(conditioning: str | Conditioning | Sequence[Score]) -> tuple[Score, ...]:
    """The scores that a conditioning needs, in the order of `SCORES`."""
    if isinstance(conditioning, str):
        from inspo_hub.conditioning import CONDITIONINGS

        conditioning = CONDITIONINGS[conditioning]()  # type: ignore[call-arg]
    wanted = getattr(conditioning, "scores", conditioning)
    assert wanted, "a batch scores something"
    assert set(wanted) <= set(SCORES), f"not scores: {wanted}"
    return tuple(score for score in SCORES if score in wanted)


def lay_out_pair(
    pair: PreferencePair, scores: Sequence[Score], separator: list[int], limit: int | None, *, flat: bool
) -> PairLayout:
    """The runs of one pair: a trunk of prompt, response and other response, and what branches off it."""
    assert all(len(part) for part in (pair.prompt, pair.chosen, pair.rejected)), f"{pair.row_id}: an empty part"
    laid_out = PairLayout()
    for plain, conditioned in _CHAINS:
        if plain not in scores and conditioned not in scores:
            continue
        first, second = list(getattr(pair, plain)), list(getattr(pair, _other(plain)))
        kept = _cut(first, limit, pair.max_alternative_tokens)
        # The trunk carries the prompt; a branch sees it. Flat, every path carries it.
        head = Run(list(pair.prompt)) if flat or not laid_out.runs else Run([], ((0, len(pair.prompt)),))
        start, prefix = laid_out.tokens, len(head.tokens)
        after = prefix + len(kept) + len(separator)
        if conditioned in scores and (len(kept) == len(first) or plain not in scores):
            scored = {conditioned: (after, second)} | ({plain: (prefix, first)} if plain in scores else {})
            laid_out.add(Run(head.tokens + kept + separator + second, head.context), **scored)
            continue
        laid_out.add(Run(head.tokens + first, head.context), **{plain: (prefix, first)})
        if conditioned in scores and flat:
            laid_out.add(Run(head.tokens + kept + separator + second), **{conditioned: (after, second)})
        elif conditioned in scores:
            seen = prefix + max(len(kept) - 1, 0)
            context = (*head.context, (start, start + seen)) if seen else head.context
            tail = kept[-1:] + separator
            laid_out.add(Run(tail + second, context), **{conditioned: (len(tail), second)})
    return laid_out


def _other(response: Score) -> Score:
    return "chosen" if response == "rejected" else "rejected"


def _cut(response: list[int], *limits: int | None) -> list[int]:
    """An alternative as context: its first tokens and its last one, as many as the smallest limit allows."""
    limit = min((x for x in limits if x is not None), default=len(response))
    assert limit >= 0, f"an alternative cannot have {limit} tokens"
    if limit >= len(response):
        return response
    return response[: limit - 1] + response[-1:] if limit else []


def context_and_response(
    pair: PreferencePair,
    score: Score,
    separator: Sequence[int] = (),
    max_alternative_tokens: int | None = None,
) -> tuple[list[int], list[int]]:
    """The tokens that a score reads and the tokens that it scores: one plain sequence, whatever the layout."""
    laid_out = lay_out_pair(pair, (score,), list(separator), max_alternative_tokens, flat=True)
    (run,) = laid_out.runs
    scored = laid_out.scored[score]
    return run.tokens[: scored.first], list(scored.targets)
