"""The Space for programs: `/compare`, `/vote` and `/tally`, plainly typed, over gradio_client and as MCP tools."""

# No `from __future__ import annotations`: Gradio reads the return types as objects, and shows `Any` for their names.

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypedDict

import gradio as gr

from inspo_hub.errors import InspoError
from inspo_hub.space import Round, Service
from inspo_hub.space.config import SamplingSection
from inspo_hub.space.limiting import visitor_key
from inspo_hub.space.rounds import SIDES


class BlindAnswer(TypedDict):
    """One answer without its model's name."""

    text: str
    state: Literal["waiting", "writing", "finished", "cut", "stopped", "failed"]


class BlindRound(TypedDict):
    """What may be known of a round before its vote."""

    round: str
    prompt: str
    a: BlindAnswer
    b: BlindAnswer
    ended: bool


class Revealed(TypedDict):
    """A round after its vote: which models wrote the answers, and what won."""

    round: str
    vote: Literal["a", "b", "tie", "both_bad"]
    a: str
    b: str
    winner: str


def visitor_of(request: gr.Request) -> str:
    """Who asks, as a name that says nothing."""
    client = getattr(request, "client", None)
    return visitor_key(dict(request.headers), getattr(client, "host", None))


def blind(current: Round) -> BlindRound:
    """A round as programs see it."""
    first, second = (current.piece(side) for side in SIDES)
    return {
        "round": current.id,
        "prompt": current.prompt,
        "a": {"text": first.text, "state": first.state},
        "b": {"text": second.text, "state": second.state},
        "ended": current.ended,
    }


def in_words(error: InspoError) -> str:
    """What a visitor is told."""
    said = " ".join(part for part in (f"{error.what}.", error.fix) if part)
    return said[0].upper() + said[1:]


def endpoints(service: Service) -> dict[str, Callable[..., Any]]:
    """The functions by name. Their signatures and docstrings are what programs and agents read."""
    return {"compare": _compare_with(service), "vote": _vote_with(service), "tally": _tally_with(service)}


def _compare_with(service: Service) -> Callable[..., Iterator[BlindRound]]:
    drawn = service.config.sampling

    def compare(
        prompt: str,
        request: gr.Request,
        continues: str = "",
        temperature: float = drawn.temperature,
        top_p: float = drawn.top_p,
        max_new_tokens: int = drawn.max_new_tokens,
        seed: int = drawn.seed,
    ) -> Iterator[BlindRound]:
        """Two models answer one prompt, without their names, streamed as they write. Vote with the round's name.

        Args:
            prompt: What both are asked. Where answers are precomputed: one of the known prompts, or empty for any.
            continues: The name of a round that was voted on, to go on from its preferred answer; empty for a new one.
            temperature: Sampling temperature, 0 to 2; 0 takes the most probable token.
            top_p: Probability mass that is kept, above 0 and at most 1.
            max_new_tokens: Longest answer in tokens.
            seed: Both models draw with the same random numbers, which belong to prompt and seed.

        Returns:
            The round's name, the prompt, both answers with their state, and whether both have ended.
        """
        try:
            sampling = SamplingSection(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
        except ValueError as error:
            raise gr.Error("The sampling is out of range: see the parameters.", print_exception=False) from error
        visitor = visitor_of(request)
        try:
            for current in service.compare(prompt, visitor=visitor, sampling=sampling, continues=continues):
                yield blind(current)
        except InspoError as error:
            raise gr.Error(in_words(error), print_exception=False) from error

    # Gradio describes one item of the stream by this.
    compare.__annotations__["return"] = BlindRound
    return compare


def _vote_with(service: Service) -> Callable[..., Revealed]:
    def vote(round: str, choice: Literal["a", "b", "tie", "both_bad"]) -> Revealed:
        """Votes on a round, once: later votes change nothing. Tells which model wrote which answer.

        Args:
            round: The round's name, as compare gave it.
            choice: Which answer is better: a, b, tie or both_bad.

        Returns:
            The vote that counts, the names of the models behind a and b, and what won.
        """
        try:
            found = service.vote(round, choice)
        except InspoError as error:
            raise gr.Error(in_words(error), print_exception=False) from error
        assert found.vote is not None, "it has one now"
        sides = found.sides
        return {"round": found.id, "vote": found.vote, "a": sides["a"], "b": sides["b"], "winner": found.winner}

    return vote


def _tally_with(service: Service) -> Callable[[], dict[str, Any]]:
    def tally() -> dict[str, Any]:
        """The votes so far: win rate of the first model against the second with its interval, and by category.

        Returns:
            Counts, win rate and length-adjusted win rate with 95 % intervals, overall and by category of prompt.
        """
        return service.tally().to_dict()

    return tally
