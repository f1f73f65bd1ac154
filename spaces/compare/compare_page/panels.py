"""The page's HTML, without Gradio. Everything that a model or a visitor wrote is escaped here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from markdown_it import MarkdownIt

from inspo_hub.space import Round, SpaceConfig, word_diff
from inspo_hub.space.rewards import Rewards
from inspo_hub.space.rounds import SIDES, Message, Piece, Side
from inspo_hub.space.tally import Standing, Tally

if TYPE_CHECKING:
    from inspo_hub.evaluate import Estimate

# Raw HTML is shown as text; no picture of a model's choosing is fetched; markdown-it itself refuses javascript: links.
_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")

STATES = {
    "waiting": "Thinking…",
    "writing": "Writing…",
    "finished": "Complete",
    "cut": "Cut at the length limit",
    "stopped": "Stopped",
    "failed": "No answer",
}
LETTERS: Mapping[Side, str] = {"a": "A", "b": "B"}


def prose(text: str) -> str:
    """Markdown of a model as HTML that can do nothing: no scripts, no pictures, links that open elsewhere."""
    html = str(_MARKDOWN.render(text))
    return html.replace("<a href=", '<a rel="noopener noreferrer nofollow" target="_blank" href=')


def empty(config: SpaceConfig) -> str:
    """What stands where the answers will be."""
    return (
        '<div class="sp-empty"><div class="sp-empty-mark" aria-hidden="true"><span>A</span><span>B</span></div>'
        "<h2>One prompt, two answers</h2>"
        "<p>Write a prompt or take an example. Two models answer at the same time, without their names. "
        "Vote for the better answer, and see which model wrote it.</p></div>"
    )


def rounds(history: Sequence[Round], current: Round) -> str:
    """The conversation so far, each turn with the answer it went on from, and the two answers side by side."""
    past = "".join(_past(each) for each in history)
    before = current.conversation[:-1] if not history else ()
    context = "".join(_message(message) for message in before)
    cards = "".join(_card(current, side) for side in SIDES)
    return (
        f'<div class="sp-thread" data-link="{escape(link(current))}">{past}{context}'
        f'{_user(current.prompt)}<div class="sp-pair">{cards}</div></div>'
    )


def link(current: Round) -> str:
    """The query of a permalink: what it takes to see the same answers again, and nothing about their sides."""
    if current.row:
        return urlencode({"row": current.row})
    sampling = current.sampling
    facts = {"prompt": current.prompt, "seed": sampling.seed, "temperature": sampling.temperature}
    return urlencode({**facts, "top_p": sampling.top_p, "tokens": sampling.max_new_tokens})


def _user(text: str) -> str:
    return f'<div class="sp-user" aria-label="Prompt">{escape(text)}</div>'


def _message(message: Message) -> str:
    if message["role"] == "user":
        return _user(message["content"])
    return f'<div class="sp-kept"><div class="sp-prose">{prose(message["content"])}</div></div>'


def _past(turn: Round) -> str:
    kept = turn.continued()[-1]["content"]
    name = next((system for system, piece in turn.answers.items() if piece.text == kept), "")
    chip = f'<span class="sp-chip">{escape(name)}</span>'
    return f'{_user(turn.prompt)}<div class="sp-kept">{chip}<div class="sp-prose">{prose(kept)}</div></div>'


def _card(current: Round, side: Side) -> str:
    piece, letter, voted = current.piece(side), LETTERS[side], current.vote is not None
    won = voted and current.vote == side
    busy = "false" if piece.ended else "true"
    name = f'<span class="sp-name">{escape(current.sides[side])}</span>' if voted else ""
    badge = '<span class="sp-badge">Your vote</span>' if won else ""
    state = "" if voted else f'<span class="sp-state">{STATES[piece.state]}</span>'
    copy = (
        f'<button type="button" class="sp-copy" data-text="{escape(piece.text)}" aria-label="Copy answer {letter}">'
        "Copy</button>"
        if piece.text
        else ""
    )
    classes = f"sp-card{' sp-won' if won else ''}{'' if piece.ended else ' sp-busy'}"
    return (
        f'<article class="{classes}" aria-label="Answer {letter}" aria-busy="{busy}" data-side="{side}">'
        f'<header><span class="sp-letter" aria-hidden="true">{letter}</span>{name}{badge}{state}{copy}</header>'
        f'<div class="sp-prose sp-body">{_body(piece)}</div>'
        f"{_foot(current, side) if voted else ''}</article>"
    )


def _body(piece: Piece) -> str:
    problem = f'<p class="sp-problem" role="alert">{escape(piece.problem)}</p>' if piece.state == "failed" else ""
    if not piece.text and not piece.ended:
        return '<span class="sp-caret" aria-hidden="true"></span>'
    return prose(piece.text) + problem


def _foot(current: Round, side: Side) -> str:
    """Length, speed and the judge's score: shown after the vote only."""
    piece, system = current.piece(side), current.sides[side]
    words = len(piece.text.split())
    facts = [f"{words} words", f"{piece.tokens} tokens"]
    if piece.seconds > 0:
        facts.append(f"{piece.tokens / piece.seconds:,.0f} tokens/s")
    if system in current.scores:
        facts.append(f"judge: {current.scores[system]:g}")
    facts.append(STATES[piece.state].lower())
    return f'<footer class="sp-foot">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</footer>'


# --- after the vote


def reveal(current: Round, config: SpaceConfig, rewards: Rewards | None, note: str = "") -> str:
    """Who wrote what, the difference word by word, and what each model thinks of both answers."""
    return (
        f'<section class="sp-reveal" aria-label="After your vote">{_names(current, config)}'
        f"{_difference(current)}{_rewards(current, rewards, note)}</section>"
    )


def _names(current: Round, config: SpaceConfig) -> str:
    items = []
    for side in SIDES:
        system = config.system(current.sides[side])
        described = f" <small>{escape(system.description)}</small>" if system.description else ""
        name = f'<a href="{escape(system.card)}" target="_blank" rel="noopener">{escape(system.name)}</a>'
        shown = name if system.card.startswith("https://") else f"<b>{escape(system.name)}</b>"
        items.append(f'<li><span class="sp-letter">{LETTERS[side]}</span> {shown}{described}</li>')
    return f'<ul class="sp-names">{"".join(items)}</ul>'


def _difference(current: Round) -> str:
    pieces = [current.piece(side) for side in SIDES]
    if not all(piece.usable for piece in pieces):
        return ""
    parts = word_diff(pieces[0].text, pieces[1].text)
    if all(same for side in parts for _, same in side):
        return '<p class="sp-note">Both answers are the same, word for word.</p>'
    columns = "".join(
        f'<div class="sp-diff" aria-label="Answer {LETTERS[side]}, differing words marked">'
        + "".join(escape(text) if same else f"<mark>{escape(text)}</mark>" for text, same in parts[number])
        + "</div>"
        for number, side in enumerate(SIDES)
    )
    return f'<h3>Where they differ</h3><div class="sp-pair">{columns}</div>'


def _rewards(current: Round, rewards: Rewards | None, note: str) -> str:
    if rewards is None:
        return f'<p class="sp-note">{escape(note)}</p>' if note else ""
    heads = "".join(f"<th scope='col'>answer {LETTERS[side]} ({escape(current.sides[side])})</th>" for side in SIDES)
    rows = "".join(
        f"<tr><th scope='row'>{escape(system)}, β = {rewards.betas[system]:g}</th>"
        + "".join(_reward_cell(values, current.sides[side]) for side in SIDES)
        + "</tr>"
        for system, values in rewards.values.items()
    )
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in rewards.sentences())
    return (
        "<h3>What each model thinks of both answers</h3>"
        f'<div class="sp-scroll"><table class="sp-table"><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody>'
        f"</table></div><ul class='sp-said'>{said}</ul>"
        '<p class="sp-note">Implicit reward in nats: β·(log π(y|x) − log π<sub>base</sub>(y|x)). '
        "The larger of a row is what that model was trained to prefer.</p>"
    )


def _reward_cell(values: Mapping[str, float], system: str) -> str:
    if system not in values:
        return "<td>–</td>"
    best = " class='sp-best'" if len(values) > 1 and values[system] == max(values.values()) else ""
    return f"<td{best}>{values[system]:+.3f}</td>".replace("-", "−")


# --- the tally


LOCKED = (
    '<div class="sp-empty"><h2>Vote once first</h2><p>Results that you have seen could bias your votes. '
    "They are shown after your first vote.</p></div>"
)


FEWEST = 10
"""Prompts below which an interval would say more than is known."""


def standings(found: Tally) -> str:
    """The live tally: win rates with intervals, with length taken out, and by category."""
    overall = found.overall
    if overall.win_rate is None:
        return '<div class="sp-empty"><h2>No votes yet</h2><p>The first one may be yours.</p></div>'
    rows = "".join(_standing(each, found) for each in (overall, *found.categories))
    left_out = [
        f"{number} {what}"
        for number, what in ((found.informed, "given after seeing results"), (found.failed, "with a side that failed"))
        if number
    ]
    note = f" Not counted: {' and '.join(left_out)}." if left_out else ""
    first, second = escape(found.first), escape(found.second)
    votes = f"{overall.votes} vote{'' if overall.votes == 1 else 's'}"
    half = overall.wins["tie"] + overall.wins["both_bad"]
    counts = f"{first} {overall.wins[found.first]}, ties and both bad {half}, {second} {overall.wins[found.second]}"
    heads = ["prompts", "votes", first, "tie", "both bad", second, f"win rate of {first}", "length-adjusted"]
    return (
        f'<section class="sp-tally"><p class="sp-headline"><b>{first}</b> against <b>{second}</b>: '
        f"{_percent(overall.win_rate)} of {votes}.</p>"
        f'<div class="sp-bar" role="img" aria-label="{counts}">{_bar(overall, found)}</div>'
        f'<div class="sp-scroll"><table class="sp-table"><thead><tr>{"".join(map(_head, heads))}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        '<p class="sp-note">Ties and two bad answers count half. Brackets are 95 % bootstrap intervals over prompts, '
        f"shown from {FEWEST} prompts on; length-adjusted is the win rate at equal length, from 100 votes on.{note}"
        "</p></section>"
    )


def _head(words: str) -> str:
    return f'<th scope="col">{words}</th>'


def _standing(standing: Standing, found: Tally) -> str:
    wins = standing.wins
    counts = [standing.votes, wins[found.first], wins["tie"], wins["both_bad"], wins[found.second]]
    controlled = "–" if standing.length_controlled is None else _percent(standing.length_controlled)
    cells = "".join(f"<td>{count}</td>" for count in counts)
    rate = "–" if standing.win_rate is None else _percent(standing.win_rate)
    return f'<tr><th scope="row">{escape(standing.category)}</th>{cells}<td>{rate}</td><td>{controlled}</td></tr>'


def _percent(estimate: Estimate) -> str:
    value, low, high = (100 * each for each in (estimate.value, estimate.low, estimate.high))
    if estimate.clusters < FEWEST:
        return f"{value:.1f} %"
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def _bar(standing: Standing, found: Tally) -> str:
    wins = standing.wins
    parts = [("first", wins[found.first]), ("half", wins["tie"] + wins["both_bad"]), ("second", wins[found.second])]
    return "".join(f'<span class="sp-{name}" style="flex-grow:{count}"></span>' for name, count in parts if count)
