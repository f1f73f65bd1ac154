"""Answers from two inference endpoints, asked at the same time. They say no log-probabilities of given answers."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from inspo_hub import hub
from inspo_hub.space.config import SamplingSection
from inspo_hub.space.rounds import Message, Piece

log = logging.getLogger(__name__)


class Endpoints:
    """Two endpoints by system; each part of a stream counts as one token, as inference servers send them."""

    def __init__(self, endpoints: Mapping[str, hub.ChatEndpoint]) -> None:
        self._endpoints = dict(endpoints)

    def stream(self, conversation: Sequence[Message], sampling: SamplingSection) -> Iterator[dict[str, Piece]]:
        """Both answers as their parts arrive. A side that fails ends, and the other goes on."""
        pieces = {name: Piece() for name in self._endpoints}
        arrived: queue.Queue[tuple[str, Piece]] = queue.Queue()
        gone = threading.Event()
        for name, endpoint in self._endpoints.items():
            arguments = (name, endpoint, conversation, sampling, arrived, gone)
            threading.Thread(target=_ask, args=arguments, name=f"endpoint-{name}", daemon=True).start()
        try:
            yield dict(pieces)
            while not all(piece.ended for piece in pieces.values()):
                name, piece = arrived.get()
                pieces[name] = piece
                yield dict(pieces)
        finally:
            gone.set()

    def rewards(self, conversation: Sequence[Message], answers: Mapping[str, Piece]) -> None:
        """None: an endpoint cannot be asked for the log-probability of a given answer."""
        return


def _ask(
    name: str,
    endpoint: hub.ChatEndpoint,
    conversation: Sequence[Message],
    sampling: SamplingSection,
    arrived: queue.Queue[tuple[str, Piece]],
    gone: threading.Event,
) -> None:
    piece, finish, started = Piece(), "", time.perf_counter()
    try:
        for part in endpoint.stream(
            conversation,
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            # Servers refuse the whole range's end as no restriction at all.
            top_p=sampling.top_p if sampling.top_p < 1 else None,
            seed=sampling.seed,
        ):
            if gone.is_set():
                return
            finish = part.finish or finish
            piece = Piece(
                piece.text + part.text,
                piece.tokens + bool(part.text),
                time.perf_counter() - started,
                "writing",
            )
            arrived.put((name, piece))
    except hub.HubFailure as failure:
        log.error("the endpoint of %s failed: %s", name, failure)
        arrived.put((name, replace(piece, state="failed", problem="The endpoint did not answer.")))
    else:
        arrived.put((name, replace(piece, state="cut" if finish == "length" else "finished")))
