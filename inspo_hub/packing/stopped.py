"""A pair's paths in two parts: the context, read without gradient, and the responses that are scored given it.

    context    A = prompt, B = rejected, (sep)    D = chosen, (sep)
    targets    C = chosen, E = rejected, each after the token that predicts its first one

That token (the last of the separator) is laid out with the response and not with the context: its hidden state has a
gradient, its keys and values have none. Where it is the prompt's last token, which others see as well, it is in both.
"""

from __future__ import annotations

from dataclasses import dataclass

from inspo_hub.packing.paths import PLAIN, PairLayout, Run, ScoredRun

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class StoppedLayout:
    """One pair, its context first; contexts of `targets` are ranges of the tokens of `context`."""

    context: PairLayout
    targets: PairLayout

    @property
    def tokens(self) -> int:
        return self.context.tokens + self.targets.tokens


def split(pair: PairLayout, prompt: int) -> StoppedLayout:
    """The pair's runs, cut in front of each response that is scored given an alternative; plain scores stay context.

    Args:
        prompt: tokens of the prompt, which is context as a whole.
    """
    parts, moved = StoppedLayout(PairLayout(), PairLayout()), _Moved([])
    start = 0
    for index, run in enumerate(pair.runs):
        here = {score: scored for score, scored in pair.scored.items() if scored.run == index}
        plain = {score: (scored.first, scored.targets) for score, scored in here.items() if score in PLAIN}
        conditioned = {score: scored for score, scored in here.items() if score not in PLAIN}
        # At most one: a path ends with the response that is scored given another one.
        cut = next((scored.first - 1 for scored in conditioned.values()), len(run.tokens))
        kept = run.tokens[: max(cut, prompt if index == 0 else 0)]
        seen = moved.ranges(run.context)
        moved.spans.append((start, len(kept), parts.context.tokens))
        if kept:
            parts.context.add(Run(kept, seen), **plain)
        else:  # a response of one token is a target's first token, and what predicts it is the end of the prompt
            parts.context.scored |= {score: ScoredRun(0, prompt, targets) for score, (_, targets) in plain.items()}
        for score, scored in conditioned.items():
            own = moved.ranges(((start, start + cut),)) if cut > 0 else ()
            parts.targets.add(_target(pair, run, scored, (*seen, *own)), **{score: (1, scored.targets)})
        start += len(run.tokens)
    return parts


def _target(pair: PairLayout, run: Run, scored: ScoredRun, context: tuple[Range, ...]) -> Run:
    """A response after the token that predicts its first one."""
    if scored.first > 0:
        return Run(run.tokens[scored.first - 1 :], context)
    # The run starts with the response: the last token of its context predicts it, and is laid out once more.
    *others, (first, last) = context
    shorter = (*others, (first, last - 1)) if last - 1 > first else tuple(others)
    tokens = [token for each in pair.runs for token in each.tokens]
    return Run([tokens[run.context[-1][1] - 1], *run.tokens], shorter)


@dataclass(frozen=True, slots=True)
class _Moved:
    """Where the pair's tokens are among those of the context."""

    spans: list[tuple[int, int, int]]
    """Of each run: its first token in the pair, how many of its tokens are context, the first of them there."""

    def ranges(self, ranges: tuple[Range, ...]) -> tuple[Range, ...]:
        return tuple(self._range(*each) for each in ranges)

    def _range(self, first: int, last: int) -> Range:
        for start, kept, new in self.spans:
            if start <= first and last <= start + kept:
                return new + first - start, new + last - start
        raise AssertionError(f"tokens {first} to {last} of the pair are not context")
