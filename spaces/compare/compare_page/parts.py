"""The parts of the page, as components on one object; what happens with them is in `blocks`."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from compare_page import panels
from inspo_hub.space import Service
from inspo_hub.space.config import CURATED, HELDOUT
from inspo_hub.space.rounds import Choice

VOTES: dict[str, tuple[Choice, str]] = {
    "vote-a": ("a", "A is better"),
    "vote-tie": ("tie", "Tie"),
    "vote-bad": ("both_bad", "Both bad"),
    "vote-b": ("b", "B is better"),
}


class Parts:
    """The components of one Space's page, laid out; to be made within its Blocks."""

    def __init__(self, service: Service, report: Path | None, *, where: str) -> None:
        self.service, self.config, self.report, self.where = service, service.config, report, where
        gr.HTML(self._heading(), elem_id="heading")
        with gr.Tabs():
            with gr.Tab("Compare", id="compare"):
                self._compare_tab()
            with gr.Tab("Tally", id="tally") as self.tally_tab:
                self._tally_tab()
            with gr.Tab("Report", id="report", visible=report is not None) as self.report_tab:
                self.report_html = gr.HTML(elem_id="report")
            with gr.Tab("About", id="about"):
                gr.HTML(self._about(), elem_id="about")

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
            kind = HELDOUT if each.category == HELDOUT else CURATED
            kinds.setdefault(kind, []).append([each.text])
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
