"""The page's HTML: what models and visitors wrote can do nothing in it, and nothing tells before the vote."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from compare_page import gpu, panels
from compare_page.report import report_html

from inspo_hub.space.config import SamplingSection
from inspo_hub.space.rewards import Rewards
from inspo_hub.space.rounds import Piece, Round, Rounds
from inspo_hub.space.tally import tally
from tests.space.test_rounds import Scripted, service_of
from tests.space.test_votes import made

ATTACKS = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "[here](javascript:alert(1))",
    "![spy](https://evil.example/pixel.png)",
    '"><svg onload=alert(1)>',
    "`<b>`\n\n<iframe src='https://evil.example'></iframe>",
]


def ended(tmp_path: Path, text: str = "An answer.", prompt: str = "Why?") -> Round:
    service = service_of(tmp_path, Scripted({"dpo": text, "inspo": "Another answer, longer."}))
    return list(service.compare(prompt, visitor="v"))[-1]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_written_stays_text(tmp_path: Path, attack: str) -> None:
    current = ended(tmp_path, attack, prompt=attack)
    service = service_of(tmp_path, Scripted({"dpo": "", "inspo": ""}))
    current.vote = "a"
    html = panels.rounds([current], current) + panels.reveal(current, service.config, None, attack)
    for tag in ("<script", "<img", "<svg", "<iframe", 'href="javascript:'):
        assert tag not in html
    assert "onerror=" not in html.replace("onerror=&quot;", "").replace("onerror=&#x27;", "")


def test_markdown_of_a_model_is_drawn() -> None:
    html = panels.prose("**bold**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[link](https://example.org)")
    assert "<strong>bold</strong>" in html
    assert "<td>1</td>" in html
    assert 'rel="noopener noreferrer nofollow" target="_blank" href="https://example.org"' in html


def test_nothing_tells_which_is_which_before_the_vote(tmp_path: Path) -> None:
    current = ended(tmp_path)
    html = panels.rounds([], current)
    for told in ("dpo", "inspo", " tokens", " words", "judge", "1111111"):
        assert told not in html
    assert panels.link(current) in html.replace("&amp;", "&")
    current.vote = "b"
    html = panels.rounds([], current)
    assert "dpo" in html
    assert "inspo" in html
    assert "2 words" in html
    assert "Your vote" in html


def test_the_same_round_looks_the_same_on_either_side(tmp_path: Path) -> None:
    """Swapping the systems swaps the texts and changes nothing else that a visitor could learn from."""
    current = ended(tmp_path)
    html = panels.rounds([], current)
    current.sides = {"a": current.sides["b"], "b": current.sides["a"]}
    swapped = panels.rounds([], current)
    texts = [piece.text for piece in current.answers.values()]
    swap = str.maketrans({"\x01": texts[1], "\x02": texts[0]})
    assert html.replace(texts[0], "\x01").replace(texts[1], "\x02").translate(swap) == swapped


def test_a_reveal_says_names_differences_and_rewards(tmp_path: Path) -> None:
    current = ended(tmp_path)
    config = service_of(tmp_path, Scripted({"dpo": "", "inspo": ""})).config
    current.vote = "a"
    rewards = Rewards(
        {"dpo": {"dpo": 0.5, "inspo": -0.25}, "inspo": {"dpo": 0.1, "inspo": 0.2}}, {"dpo": 0.1, "inspo": 0.1}
    )
    html = panels.reveal(current, config, rewards)
    assert "<mark>" in html
    assert "+0.500" in html
    assert "−0.250" in html
    assert "dpo prefers its own answer by 0.75 nats." in html


def test_a_link_says_nothing_of_sides() -> None:
    rounds = [Rounds(random.Random(seed)) for seed in range(8)]
    facts = {
        "conversation": ({"role": "user", "content": "Why & how?"},),
        "sampling": SamplingSection(),
        "category": "",
    }
    made_links = {
        panels.link(each.open(("dpo", "inspo"), answers={"dpo": Piece(), "inspo": Piece()}, **facts)) for each in rounds
    }
    assert made_links == {"prompt=Why+%26+how%3F&seed=0&temperature=1.0&top_p=1.0&tokens=256"}


def test_a_tally_is_drawn_with_its_intervals() -> None:
    rows = [made("dpo" if number % 3 else "inspo", prompt=str(number)) for number in range(30)]
    html = panels.standings(tally(rows, ("dpo", "inspo")))
    assert "66.7 % [" in html
    assert "30 votes" in html
    assert "[" not in panels.standings(tally(rows[:3], ("dpo", "inspo"))), "three prompts have no interval"
    assert "No votes yet" in panels.standings(tally([], ("dpo", "inspo")))


def test_the_report_is_the_runs_card_with_its_pictures(twins: Path) -> None:
    html = report_html(twins)
    assert "<h2>Answers</h2>" in html
    assert html.count("<svg") == 1
    assert "@media (prefers-color-scheme" not in html, "pictures follow the page's own theme"
    assert "<details><summary>" in html
    assert html.count("<details>") == html.count("</details>")
    assert "&lt;details" not in html
    assert "<!--" not in html
    assert 'href="dpo/README.md"' not in html, "there is no such page here"


def test_zero_gpu_wraps_both_calls_and_nothing_is_wrapped_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the `spaces` package, which is on the Hub only."""
    backend = Scripted({"dpo": "One two.", "inspo": "Uno dos."})
    assert gpu.on_gpu(backend) is backend
    lent: list[tuple[str, int]] = []

    class Spaces:
        @staticmethod
        def GPU(function: Any, *, duration: int) -> Any:
            lent.append((function.__name__, duration))
            return function

    monkeypatch.setattr(gpu, "spaces", Spaces)
    wrapped = gpu.on_gpu(backend)
    assert lent == [("stream", 60), ("rewards", 60)]
    frames = list(wrapped.stream([], SamplingSection()))
    assert frames[-1]["inspo"].text == "Uno dos."
    assert wrapped.rewards([], frames[-1]) is None
    assert gpu.where("models") == "ZeroGPU"


def test_a_card_cannot_bring_scripts(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nx: 1\n---\n# T\n\n<script>alert(1)</script>\n\n![p](../../etc/passwd)\n")
    html = report_html(tmp_path)
    assert "<script" not in html
    assert "x: 1" not in html
    assert "<h1>T</h1>" in html
