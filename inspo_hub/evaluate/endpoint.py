"""A judge behind an OpenAI-compatible address: asked concurrently, its answers kept, its cost counted and bounded."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol

from inspo_hub import hub
from inspo_hub.errors import JudgeError
from inspo_hub.evaluate.arena import parse_verdict
from inspo_hub.evaluate.calls import CallCache, call_key
from inspo_hub.evaluate.verdicts import Ask, Verdict, too_many_failures
from inspo_hub.evaluate.wording import LEAST_MASS, Template, label_of, weigh

log = logging.getLogger(__name__)

WHERE = "evaluate.judge.endpoint"
FATAL = frozenset({"denied", "gated", "missing", "quota", "local", "bug"})
"""Faults that the next call would meet too."""
CHARACTERS_PER_TOKEN = 3.0
"""Where a server tells no usage: on the dear side of the usual 4, so that a limit holds."""
SAID_EVERY = 200


class Chat(Protocol):
    """What is asked of an address; `hub.ChatEndpoint` is one."""

    model: str
    place: str

    def ask(self, messages: Sequence[dict[str, str]], **parameters: Any) -> hub.ChatAnswer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Dollars for a million tokens, and the most that an evaluation may cost; None: no limit."""

    usd_per_million_input: float = 0.0
    usd_per_million_output: float = 0.0
    max_usd: float | None = None

    def of(self, answer: dict[str, Any]) -> float:
        """What one kept answer cost."""
        given, made = answer["prompt_tokens"], answer["completion_tokens"]
        return (given * self.usd_per_million_input + made * self.usd_per_million_output) / 1e6


@dataclass(kw_only=True)
class EndpointJudge:
    """A pairwise judge. `verdict` is how it answers: with a `label`, or with a text that ends as Arena-Hard's do."""

    chat: Chat
    template: Template
    cache: CallCache
    verdict: Literal["label", "arena_hard"] = "label"
    logprobs: bool = True
    max_tokens: int = 1
    temperature: float = 0.0
    concurrency: int = 8
    prices: Prices = field(default_factory=Prices)
    least_mass: float = LEAST_MASS

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._spent = sum(self.prices.of(answer) for answer in self.cache.values())
        self._said_hard = False

    @property
    def shown_name(self) -> str:
        return self.chat.model

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader must know of the judge beside its name, and what it used."""
        answers = self.cache.values()
        return {
            "model": self.chat.model,
            "server": self.chat.place,
            "template_sha256": self.template.sha256,
            "verdict": self.verdict,
            "temperature": self.temperature,
            "calls": len(answers),
            "prompt_tokens": sum(answer["prompt_tokens"] for answer in answers),
            "completion_tokens": sum(answer["completion_tokens"] for answer in answers),
            "usage_estimated": sum(answer["estimated"] for answer in answers),
            "usd": round(self._spent, 6),
        }

    def compare(self, asks: Sequence[Ask], *, may_fail: int) -> list[Verdict]:
        """One verdict per ask. Stops with a JudgeError at what the next call would meet too, at the cost limit, and
        when more than `may_fail` calls have failed; what was answered until then is kept."""
        found: dict[int, Verdict] = {}
        failed = 0
        with ThreadPoolExecutor(self.concurrency) as pool:
            for number, future in _few_at_a_time(pool, self._one, asks, self.concurrency):
                found[number] = future.result()
                failed += found[number].preference is None
                # Two failures may be of one row, so that twice as many calls may fail as rows.
                if failed > 2 * may_fail + 1:
                    raise too_many_failures(self.shown_name, failed, len(asks), found[number].failure)
                if len(found) % SAID_EVERY == 0:
                    log.info("judge %s: %d of %d, %.2f $", self.shown_name, len(found), len(asks), self._spent)
        return [found[number] for number in range(len(asks))]

    def _one(self, ask: Ask) -> Verdict:
        messages = [{"role": "user", "content": self.template.fill(ask.prompt, ask.first, ask.second)}]
        parameters = self._parameters()
        key = call_key(
            model=self.chat.model, server=self.chat.place, template=self.template.sha256, parameters=parameters,
            messages=messages,
        )  # fmt: skip
        kept = self.cache.get(key)
        if kept is not None:
            return self._read(kept)
        self._refuse_more_cost()
        try:
            answer = self.chat.ask(messages, **parameters)
        except hub.HubFailure as failure:
            # Offline, the client refuses every request, even to this machine: a wait without end.
            if failure.fault.kind in FATAL or failure.fault.wait_s == math.inf:
                raise self._unreachable(failure) from None
            return Verdict(preference=None, failure=failure.fault.message)
        made = self._kept(messages, answer)
        verdict = self._read(made)
        if verdict.preference is not None:
            self.cache.put(key, made)
        with self._lock:
            self._spent += self.prices.of(made)
        return verdict

    def _parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        if self.logprobs and self.verdict == "label":
            parameters |= {"logprobs": True, "top_logprobs": 5}
        return parameters

    def _kept(self, messages: Sequence[dict[str, str]], answer: hub.ChatAnswer) -> dict[str, Any]:
        estimated = answer.prompt_tokens is None or answer.completion_tokens is None
        guess = [int(len(text) / CHARACTERS_PER_TOKEN) + 1 for text in (messages[0]["content"], answer.text)]
        return {
            "text": answer.text,
            "first_token": [list(each) for each in answer.first_token],
            "prompt_tokens": guess[0] if estimated else answer.prompt_tokens,
            "completion_tokens": guess[1] if estimated else answer.completion_tokens,
            "estimated": estimated,
        }

    def _read(self, answer: dict[str, Any]) -> Verdict:
        """The verdict of a kept answer."""
        text = answer["text"]
        if self.verdict == "arena_hard":
            parsed = parse_verdict(text)
            if parsed is None:
                return Verdict(preference=None, failure=f"no verdict such as [[A>B]] in {_shortened(text)}")
            return Verdict(preference=parsed[0], weight=parsed[1])
        if answer["first_token"]:
            preference, mass = weigh([(token, logp) for token, logp in answer["first_token"]])
            if not mass >= self.least_mass:
                return Verdict(
                    preference=None, failure=f"A and B have {mass:.0%} of the probability: {_shortened(text)}"
                )
            return Verdict(preference=preference, weighted=True)
        if self.logprobs and not self._said_hard:
            self._said_hard = True
            log.warning("judge %s gives no log-probabilities: its verdicts are hard ones, 0 or 1", self.shown_name)
        hard = label_of(text)
        return Verdict(preference=hard, failure="" if hard is not None else f"neither A nor B: {_shortened(text)}")

    def _refuse_more_cost(self) -> None:
        limit = self.prices.max_usd
        if limit is not None and self._spent >= limit:
            raise JudgeError(
                f"the judge has cost {self._spent:.4f} $",
                where=f"{WHERE}.max_usd",
                expected=f"at most {limit} $",
                fix="raise evaluate.judge.endpoint.max_usd and repeat the command: no call is made twice",
            )

    def _unreachable(self, failure: hub.HubFailure) -> JudgeError:
        return JudgeError(
            f"{self.chat.model} at {self.chat.place} does not judge: {failure.fault.message}",
            where=WHERE,
            expected="an OpenAI-compatible chat model that this key may use",
            fix="check model, base_url or provider, and the key; what was judged is kept",
        )


def _shortened(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"


def _few_at_a_time(
    pool: ThreadPoolExecutor, action: Any, asks: Sequence[Ask], width: int
) -> Iterator[tuple[int, Future[Verdict]]]:
    """Futures as they are done, with no more of them begun than run: one that raises leaves none behind to be paid."""
    waiting = iter(enumerate(asks))
    running: dict[Future[Verdict], int] = {pool.submit(action, ask): number for number, ask in islice(waiting, width)}
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future
            for number, ask in islice(waiting, 1):
                running[pool.submit(action, ask)] = number
