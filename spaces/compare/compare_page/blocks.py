"""What happens when somebody uses the page. Everything is done by the Service; the components are those of `parts`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from compare_page import panels
from compare_page.endpoints import endpoints, in_words, visitor_of
from compare_page.parts import VOTES, Parts
from compare_page.report import report_html
from inspo_hub.errors import InspoError
from inspo_hub.space import Round, Service
from inspo_hub.space.config import SamplingSection

READY = "Which is better? Names are shown after your vote."
QUEUE = "answers"
Changes = dict[Any, Any]


@dataclass
class Session:
    """What one page knows: the rounds of its conversation that were voted on, the open one, and what was seen."""

    turns: list[str] = field(default_factory=list)
    current: str = ""
    voted: bool = False
    results_seen: bool = False

    @property
    def may_see_results(self) -> bool:
        return self.voted or self.results_seen


class Page(Parts):
    """One Space's Blocks. Handlers return only what changes."""

    def __init__(self, service: Service, report: Path | None, *, where: str) -> None:
        self.blocks = gr.Blocks(title=service.config.title, analytics_enabled=False, fill_width=True)
        with self.blocks:
            self.session = gr.State(Session())
            super().__init__(service, report, where=where)
            self._events()
            self._for_programs()

    def _events(self) -> None:
        results = [self.session, self.tally_html, self.report_html, self.show_anyway]
        shown = [self.answers, self.status, self.reveal, self.session, self.prompt, self.stop, self.send]
        shown += [self.regenerate, self.edit, self.vote_row, *self.votes.values()]
        once: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        answering = once | {"concurrency_limit": self.config.limits.at_once, "concurrency_id": QUEUE}
        if self.service.is_live:
            samplers = [self.temperature, self.top_p, self.tokens, self.seed]
            inputs = [self.prompt, *samplers, self.session]
            assert isinstance(self.prompt, gr.Textbox), "a live page has a box to write in"
            gr.on([self.send.click, self.prompt.submit], self.ask, inputs, shown, **answering)
            self.regenerate.click(self.again, [*samplers, self.session], [*shown, self.seed], **answering)
            self.edit.click(self.rewrite, [self.session], shown, **once)
            self.new.click(self.forget, [self.session], shown, **once)
            self.stop.click(self.halt, [self.session], [self.status], queue=False, **once)
            self.blocks.load(self.arrive_live, None, [self.prompt, *samplers], **once)
        else:
            self.send.click(self.next, [self.session], shown, **answering)
            self.prompt.input(self.choose, [self.prompt, self.session], shown, **answering)
            self.blocks.load(self.arrive, [self.session], shown, **answering)
        for name, button in self.votes.items():
            vote = button.click(
                self.voter(name), [self.session], shown, concurrency_limit=None, trigger_mode="multiple", **once
            )
            vote.then(self.explain, [self.session], [self.reveal], concurrency_id=QUEUE, **once)
            vote.then(self.results, [self.session], results, concurrency_limit=None, **once)
        self.show_anyway.click(self.results_anyway, [self.session], results, **once)
        self.tally_tab.select(self.results, [self.session], results, **once)
        self.report_tab.select(self.results, [self.session], results, **once)

    def ask(
        self,
        prompt: str,
        temperature: float,
        top_p: float,
        tokens: float,
        seed: float,
        session: Session,
        request: gr.Request,
    ) -> Iterator[Changes]:
        """A prompt was sent: a first turn, a next one, or the last one written anew where it has no vote."""
        sampling = SamplingSection(
            temperature=temperature, top_p=top_p, max_new_tokens=int(tokens), seed=int(seed or 0)
        )
        yield from self._answer(session, request, prompt, sampling)

    def again(
        self, temperature: float, top_p: float, tokens: float, seed: float, session: Session, request: gr.Request
    ) -> Iterator[Changes]:
        """The same prompt with the next seed."""
        prompt = self.service.round(session.current).prompt
        self._reopen(session)
        number = int(seed or 0) + 1
        sampling = SamplingSection(temperature=temperature, top_p=top_p, max_new_tokens=int(tokens), seed=number)
        for changes in self._answer(session, request, prompt, sampling):
            yield {**changes, self.seed: number}

    def next(self, session: Session, request: gr.Request) -> Iterator[Changes]:
        """Another comparison of the evaluation."""
        yield from self._answer(session, request)

    def choose(self, prompt: str | None, session: Session, request: gr.Request) -> Iterator[Changes]:
        """The comparison of a prompt from the list."""
        yield from self._answer(session, request, prompt or "")

    def arrive(self, session: Session, request: gr.Request) -> Iterator[Changes]:
        """A page with precomputed answers opens with one: that of its link, or any."""
        query = dict(request.query_params)
        yield from self._answer(session, request, str(query.get("prompt", "")), row=str(query.get("row", "")))

    def arrive_live(self, request: gr.Request) -> list[Any]:
        """A live page opens with the prompt and the sampling of its link: one press makes the same answers again."""
        query, drawn = dict(request.query_params), self.config.sampling
        try:
            asked = SamplingSection(
                temperature=float(query.get("temperature", drawn.temperature)),
                top_p=float(query.get("top_p", drawn.top_p)),
                max_new_tokens=int(query.get("tokens", drawn.max_new_tokens)),
                seed=int(query.get("seed", drawn.seed)),
            )
        except ValueError:
            asked = drawn  # a link that somebody has written by hand
        # What the link does not say stays as it is: somebody may have written before this arrived.
        prompt = str(query["prompt"])[: self.config.limits.prompt_characters] if "prompt" in query else gr.skip()
        values = {
            "temperature": asked.temperature, "top_p": asked.top_p, "tokens": asked.max_new_tokens, "seed": asked.seed
        }  # fmt: skip
        return [prompt, *(value if name in query else gr.skip() for name, value in values.items())]

    def _answer(
        self,
        session: Session,
        request: gr.Request,
        prompt: str = "",
        sampling: SamplingSection | None = None,
        *,
        row: str = "",
    ) -> Iterator[Changes]:
        if not self.service.is_live:
            session.turns.clear()
        frames = self.service.compare(
            prompt,
            visitor=visitor_of(request),
            sampling=sampling,
            continues=session.turns[-1] if session.turns else "",
            row=row,
            informed=session.results_seen,
        )
        opened = False
        try:
            for current in frames:
                session.current = current.id
                if not opened:
                    opened = True
                    yield {**self._opened(session), **self._drawn(session, current)}
                elif not current.ended:
                    yield {self.answers: self._thread(session, current)}
            yield {**self._drawn(session, current), **self._ended(session, current)}
        except InspoError as error:
            yield {self.status: self._problem(error), **({} if not opened else self._buttons(votes=False, busy=False))}

    def _opened(self, session: Session) -> Changes:
        live = {self.prompt: ""} if self.service.is_live else {}
        return {
            **live,
            self.session: session,
            self.reveal: gr.update(value="", visible=False),
            **self._buttons(votes=False, busy=True),
        }

    def _drawn(self, session: Session, current: Round) -> Changes:
        writing = '<div class="sp-status">Both models are writing…</div>'
        return {self.answers: self._thread(session, current), self.status: writing}

    def _ended(self, session: Session, current: Round) -> Changes:
        usable = any(piece.usable for piece in current.answers.values())
        said = READY if usable else "There is no answer to vote on."
        changes: Changes = {self.status: f'<div class="sp-status">{said}</div>'}
        if not self.service.is_live:
            changes[self.prompt] = current.prompt
        return {**changes, **self._buttons(votes=usable, busy=False)}

    def _thread(self, session: Session, current: Round) -> str:
        turns = [self.service.round(name) for name in session.turns if name != current.id]
        return panels.rounds(turns, current)

    def _buttons(self, *, votes: bool, busy: bool) -> Changes:
        live = self.service.is_live
        return {
            self.vote_row: gr.update(visible=True),
            **{button: gr.update(interactive=votes) for button in self.votes.values()},
            self.stop: gr.update(visible=busy and live),
            self.send: gr.update(visible=not (busy and live)),
            self.regenerate: gr.update(interactive=not busy),
            self.edit: gr.update(interactive=not busy),
        }

    def _problem(self, error: InspoError) -> str:
        return f'<div class="sp-status sp-error" role="alert">{escape(in_words(error))}</div>'

    def halt(self, session: Session) -> str:
        """Ends both answers."""
        if session.current:
            self.service.stop(session.current)
        return '<div class="sp-status">Stopping…</div>'

    def _reopen(self, session: Session) -> None:
        """The last turn is no longer part of what the conversation goes on from."""
        if session.turns and session.turns[-1] == session.current:
            session.turns.pop()

    def rewrite(self, session: Session) -> Changes:
        """The last prompt goes back into the box; sent again, it takes the place of that turn."""
        current = self.service.round(session.current)
        self._reopen(session)
        return {self.prompt: current.prompt, self.session: session}

    def forget(self, session: Session) -> Changes:
        """A new conversation."""
        session.turns.clear()
        session.current = ""
        return {
            self.session: session,
            self.answers: panels.empty(self.config),
            self.status: '<div class="sp-status"></div>',
            self.reveal: gr.update(value="", visible=False),
            self.prompt: "",
            **self._buttons(votes=False, busy=False),
            self.vote_row: gr.update(visible=False),
            self.regenerate: gr.update(interactive=False),
            self.edit: gr.update(interactive=False),
        }

    # --- votes and results

    def voter(self, name: str) -> Any:
        """The handler of one of the four buttons."""
        choice = VOTES[name][0]

        def cast(session: Session) -> Changes:
            try:
                current = self.service.vote(session.current, choice)
            except InspoError as error:
                return {self.status: self._problem(error)}
            session.voted = True
            if current.id not in session.turns:
                session.turns.append(current.id)
            waits = "Asking both models what they think of both answers…" if self.service.is_live else ""
            return {
                self.vote_row: gr.update(visible=False),
                self.session: session,
                self.answers: self._thread(session, current),
                self.reveal: gr.update(value=panels.reveal(current, self.config, None, waits), visible=True),
                self.status: f'<div class="sp-status">{self._thanks(current)}</div>',
            }

        return cast

    def _thanks(self, current: Round) -> str:
        won = current.winner
        said = {"tie": "You called it a tie.", "both_bad": "You found both bad."}
        more = " Write on to continue from the answer you preferred." if self.service.is_live else ""
        return escape(said.get(won, f"You preferred {won}.") + more)

    def explain(self, session: Session) -> Any:
        """What each model thinks of both answers, as soon as that is computed."""
        current = self.service.round(session.current)
        try:
            rewards = self.service.rewards(current.id)
        except InspoError:
            return gr.skip()
        note = "What each model thinks of both answers needs the models and their base: none runs here."
        return gr.update(value=panels.reveal(current, self.config, rewards, note))

    def results(self, session: Session) -> Changes:
        """Tally and report, once a vote cannot be biased by them any more."""
        if not session.may_see_results:
            return {self.tally_html: panels.LOCKED, self.report_html: panels.LOCKED}
        shown = panels.LOCKED if self.report is None else report_html(self.report)
        return {
            self.tally_html: panels.standings(self.service.tally()),
            self.report_html: shown,
            self.show_anyway: gr.update(visible=False),
        }

    def results_anyway(self, session: Session) -> Changes:
        """The same without a vote; votes that this page gives from now on are marked, and not counted."""
        session.results_seen = True
        return {self.session: session, **self.results(session)}

    def _for_programs(self) -> None:
        for name, function in endpoints(self.service).items():
            limit = {"concurrency_limit": self.config.limits.at_once, "concurrency_id": QUEUE}
            gr.api(function, api_name=name, **(limit if name == "compare" else {"concurrency_limit": None}))
