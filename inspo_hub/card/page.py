"""The comparison as one HTML file: readable offline, light and dark, with its pictures in it; nothing is fetched.

The text is that of the Markdown card, rendered by markdown-it; a policy in the page's head forbids scripts and requests
whatever the texts may hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from inspo_hub.card.facts import CardFacts
from inspo_hub.card.render import CURVES, model_card
from inspo_hub.card.samples import samples_html
from inspo_hub.card.training_curves import training_curves
from inspo_hub.card.twins import SAMPLES, twin_parts, twin_pictures
from inspo_hub.hub import redact

if TYPE_CHECKING:
    from inspo_hub.recipe import Recipe

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --soft: #f3f5f7; --line: #d8dee4; --link: #0b5cad;
  --del: #ffd7d5; --ins: #ccf0d4 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --soft: #161b22; --line: #30363d;
  --link: #79b8ff; --del: #67222a; --ins: #1b4a2b } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif; overflow-wrap: break-word }
h1, h2, h3 { line-height: 1.25 } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem }
a { color: var(--link) } code { background: var(--soft); border-radius: 4px; padding: .1em .3em; font-size: .9em }
pre { background: var(--soft); padding: .8rem; border-radius: 6px; overflow-x: auto } pre code { padding: 0 }
table { display: block; overflow-x: auto; margin: 1rem 0; border-collapse: collapse }
td { font-variant-numeric: tabular-nums }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; white-space: nowrap } th { background: var(--soft) }
.picture { display: block } .picture svg { max-width: 100%; height: auto }
blockquote { margin: 0; padding-left: 1rem; border-left: 3px solid var(--line) }
.prompt { background: var(--soft); border-radius: 6px; padding: .8rem; white-space: pre-wrap }
.answers { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); margin-top: .8rem }
.answer { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; min-width: 0 }
.answer h4 { margin: 0 0 .4rem } .answer h4 span { font-weight: 400; font-size: .85em; margin-left: .6em }
.answer p { margin: 0; white-space: pre-wrap } del { background: var(--del) } ins { background: var(--ins) }
"""


def twin_page(recipe: Recipe, variants: Sequence[CardFacts]) -> str:
    """The comparison of several variants as a page."""
    parts, pictures = twin_parts(recipe, variants), twin_pictures(recipe, variants)
    shown = [
        redact(samples_html(variants[0].samples)) if name == SAMPLES else _rendered(part, pictures)
        for name, part in parts.items()
    ]
    return _page(f"{recipe.name}: {len(variants)} variants", shown)


def model_page(facts: CardFacts) -> str:
    """The card of a single model as a page, with its answers beside the base's."""
    picture = training_curves(facts.metrics, f"Training of {facts.title}")
    text = re.sub(r"\A---\n.*?\n---\n", "", model_card(facts), flags=re.DOTALL)
    return _page(facts.title, [_rendered(text, {CURVES: picture} if picture else {}), samples_html(facts.samples)])


def _page(title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _rendered(markdown: str, pictures: Mapping[str, str]) -> str:
    """Markdown as HTML, with each picture in the place where the text names its file."""
    from markdown_it import MarkdownIt

    # Our own text folds its longest blocks with HTML; whatever comes from others is escaped when it is written.
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")

    def image(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        drawn = pictures.get(str(token.attrGet("src")))
        return f'<span class="picture">{drawn}</span>' if drawn else escape(str(token.content))

    def link(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
        target = str(tokens[index].attrGet("href"))
        if not re.match(r"[a-z]+:|#", target):  # beside the card, which lies one folder above the page
            tokens[index].attrSet("href", f"../{target}")
        return str(renderer.renderToken(tokens, index, options, env))

    parser.add_render_rule("image", image)
    parser.add_render_rule("link_open", link)
    return str(parser.render(markdown))
