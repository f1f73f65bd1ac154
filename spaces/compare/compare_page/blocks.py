"""The page: its parts, and what happens when somebody uses them. Everything is done by the Service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from compare_page import panels
from compare_page.endpoints import endpoints, in_words, visitor_of
from compare_page.report import report_html
from inspo_hub.errors import InspoError
from inspo_hub.space import Round, Service
from inspo_hub.space.config import SamplingSection
from inspo_hub.space.rounds import Choice

VOTES: dict[str, tuple[Choice, str]] = {
    "vote-a": ("a", "A is better"),
    "vote-tie": ("tie", "Tie"),
    "vote-bad": ("both_bad", "Both bad"),
    "vote-b": ("b", "B is better"),
}
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


class Page:
    """One Space's Blocks. Components are attributes; handlers return only what changes."""

    def __init__(self, service: Service, report: Path | None, *, where: str) -> None:
        self.service, self.config, self.report = service, service.config, report
        self.where = where
        self.blocks = gr.Blocks(title=self.config.title, analytics_enabled=False, fill_width=True)
        with self.blocks:
            self.session = gr.State(Session())
            gr.HTML(self._heading(), elem_id="heading")
            with gr.Tabs():
                with gr.Tab("Compare", id="compare"):
                    self._compare_tab()
                with gr.Tab("Tally", id="tally") as tally_tab:
                    self._tally_tab()
                with gr.Tab("Report", id="report", visible=report is not None) as report_tab:
                    self.report_html = gr.HTML(elem_id="report")
                with gr.Tab("About", id="about"):
                    gr.HTML(self._about(), elem_id="about")
            self._events(tally_tab, report_tab)
            self._for_programs()

    # --- parts

    def _heading(self) -> str:
        live = self.service.is_live
        mode = f"Live · {self.where}" if live else "Precomputed answers · no model runs here"
        said = self.config.description or "Two models, one prompt, no names."
        return (
            f'<header class="sp-heading"><div><h1>{escape(self.config.title)}</h1><p>{escape(said)}</p></div>'
            f'<span class="sp-mode{" sp-live" if live else ""}">{escape(mode)}</span></header>'
        )

    def _compare_tab(self) -> None:
        self.prompt: gr.Textbox | gr.Dropdown
        self.answers = gr.HTML(panels.empty(self.config), elem_id="answers")
        self.status = gr.HTML('<div class="sp-status"></div>', elem_id="status")
        with gr.Row(elem_id="votes", visible=not self.service.is_live) as self.vote_row:
            self.votes = {name: gr.Button(words, elem_id=name, interactive=False) for name, (_, words) in VOTES.items()}
        self.reveal = gr.HTML(elem_id="reveal", visible=False)
        if self.service.is_live:
            self._ask_row()
        else:
            self._choose_row()
        with gr.Row(elem_id="actions"):
            live = self.service.is_live
            self.regenerate = gr.Button("Regenerate", elem_id="regenerate", visible=live, interactive=False, size="sm")
            self.edit = gr.Button("Edit prompt", elem_id="edit", visible=live, interactive=False, size="sm")
            self.new = gr.Button("New conversation", elem_id="new", visible=live, size="sm")
            self.copy_link = gr.Button("Copy link", elem_id="copy-link", size="sm")
        if live:
            self._samplers()
            self._examples()

    def _ask_row(self) -> None:
        limit = self.config.limits.prompt_characters
        with gr.Row(elem_id="ask"):
            self.prompt = gr.Textbox(
                label="Prompt",
                show_label=False,
                placeholder="Ask both models… (Enter sends, Shift+Enter starts a line)",
                lines=1,
                max_lines=8,
                max_length=limit,
                elem_id="prompt",
                autofocus=True,
                scale=1,
            )
            self.send = gr.Button("Compare", variant="primary", elem_id="send")
            self.stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False)

    def _examples(self) -> None:
        kinds: dict[str, list[list[str]]] = {}
        for each in self.config.examples:
            kinds.setdefault(each.category, []).append([each.text])
        for kind, texts in kinds.items():
            gr.Examples(
                texts, inputs=[self.prompt], label=f"Examples: {kind}", api_visibility="private", examples_per_page=12
            )

    def _choose_row(self) -> None:
        assert self.service.precomputed is not None
        with gr.Row(elem_id="ask"):
            self.prompt = gr.Dropdown(
                choices=self.service.precomputed.prompts,
                value=None,
                label="Prompt of the evaluation",
                show_label=False,
                info="",
                filterable=True,
                elem_id="prompt",
                scale=1,
            )
            self.send = gr.Button("Next comparison", variant="primary", elem_id="next")
        self.stop = gr.Button("Stop", elem_id="stop", visible=False)

    def _samplers(self) -> None:
        drawn, limits = self.config.sampling, self.config.limits
        with gr.Accordion("Sampling", open=False, elem_id="sampling"), gr.Row():
            self.temperature = gr.Slider(0, 2, drawn.temperature, step=0.05, label="Temperature")
            self.top_p = gr.Slider(0.05, 1, drawn.top_p, step=0.05, label="Top-p")
            longest = max(limits.new_tokens, drawn.max_new_tokens)
            self.tokens = gr.Slider(1, longest, drawn.max_new_tokens, step=1, label="Longest answer, tokens")
            self.seed = gr.Number(drawn.seed, precision=0, minimum=0, label="Seed, the same for both")

    def _tally_tab(self) -> None:
        self.tally_html = gr.HTML(panels.LOCKED, elem_id="tally")
        self.show_anyway = gr.Button("Show without voting: later votes of this page will not count", size="sm")

    def _about(self) -> str:
        return _ABOUT.format(
            votes=f"the dataset <code>{escape(self.config.votes.repo)}</code>"
            if self.config.votes is not None
            else "a file on this machine"
        )

    # --- what happens

    def _events(self, tally_tab: gr.Tab, report_tab: gr.Tab) -> None:
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
        tally_tab.select(self.results, [self.session], results, **once)
        report_tab.select(self.results, [self.session], results, **once)

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
        prompt = str(query.get("prompt", ""))[: self.config.limits.prompt_characters]
        return [prompt, asked.temperature, asked.top_p, asked.max_new_tokens, asked.seed]

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


_ABOUT = """<section class="sp-report sp-prose">
<h2>How it works</h2>
<p>Two models that were trained on the same preferences answer the same prompt with the same sampling and the same
random numbers. Which of them is A and which is B is a coin toss for every prompt, and the page does not know it: names
stay on the server until you vote.</p>
<p>A vote is a preference pair. It is kept in {votes} with the prompt, both answers, the models' commits, the sampling
and the time, and nothing about you: no address, no account, no session. Do not write personal things into prompts.</p>
<h2>Keys</h2>
<p><code>A</code>, <code>B</code>, <code>T</code> (tie) and <code>X</code> (both bad) vote, <code>R</code> regenerates,
<code>E</code> edits, <code>N</code> shows the next comparison, <code>Esc</code> stops.</p>
<h2>For programs</h2>
<p>The page itself uses what programs can use: <code>/compare</code>, <code>/vote</code> and <code>/tally</code>.</p>
<pre><code>from gradio_client import Client
client = Client("&lt;this page&gt;")
found = client.predict("Describe the otter.", api_name="/compare")
print(client.predict(found["round"], "a", api_name="/vote"))</code></pre>
<p>Agents find the same functions as MCP tools at <code>/gradio_api/mcp/</code>.</p>
</section>"""
