"""The page in a real browser: the whole path, two visitors, reloads, quick clicks; and pictures for people to look at.

The server may not leave loopback (its own process is watched), and every request of the page is held to the same.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inspo_hub.space import SpaceConfig
from inspo_hub.space.config import LocalSource, VotesSection
from tests.hub_server.fixtures import HubProcess
from tests.space.conftest import QUESTION, SHOTS, Served, start_space

pytestmark = pytest.mark.timeout(300)
WIDE, PHONE = (1280, 900), (390, 844)
PATIENCE_MS = 90_000
"""A machine that runs other things too."""


class Visitor:
    """One browser context: a person with cookies, a screen and a colour scheme of their own."""

    def __init__(self, context: Any, url: str) -> None:
        self.context, self.url = context, url
        self.outside: list[str] = []
        self.broken: list[str] = []
        context.set_default_timeout(PATIENCE_MS)
        self.page = context.new_page()
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.broken.append(str(error)))

    def _note(self, request: Any) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", request.url):
            self.outside.append(request.url)

    def open(self, query: str = "") -> Any:
        self.page.goto(self.url + query)
        self.page.wait_for_selector("#answers .sp-thread, #answers .sp-empty")
        return self.page

    def ask(self, prompt: str) -> None:
        self.page.fill("#prompt textarea", prompt)
        self.page.click("#send")

    def wait_for_answers(self) -> list[str]:
        self.page.wait_for_selector("#vote-a:enabled")
        return list(self.page.locator(".sp-card .sp-body").all_inner_texts())

    def when_both_write(self, action: str) -> None:
        """Does something in the page at the first moment at which both answers have words and neither has ended."""
        self.page.evaluate(
            "() => { const watch = new MutationObserver(() => {"
            " const bodies = [...document.querySelectorAll('.sp-card.sp-busy .sp-body')];"
            " if (bodies.length === 2 && bodies.every((each) => each.innerText.trim())) {"
            f" watch.disconnect(); {action}; }} }});"
            " watch.observe(document.body, {childList: true, subtree: true, characterData: true}); }"
        )

    def look(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(300)
        wide = "document.querySelector('.gradio-container').getBoundingClientRect().width"
        assert self.page.evaluate(wide) <= self.page.viewport_size["width"], "the page scrolls sideways"
        self.page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=True)


Visit = Callable[..., Any]


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:
    """Opens a Space as a new visitor; in the end no page has reached out or broken."""
    visitors: list[Visitor] = []

    @contextmanager
    def opened(url: str, size: tuple[int, int] = WIDE, scheme: str = "light") -> Iterator[Visitor]:
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        visitors.append(Visitor(context, url))
        try:
            yield visitors[-1]
        finally:
            context.close()

    yield opened
    assert [visitor.outside for visitor in visitors if visitor.outside] == []
    assert [visitor.broken for visitor in visitors if visitor.broken] == []


def test_from_a_prompt_to_the_tally(live_space: Served, visit: Visit, live: SpaceConfig) -> None:
    """Both streams, ten quick clicks, the reveal, one row, and the next turn."""
    before = len(live_space.rows())
    with visit(live_space.url) as visitor:
        page = visitor.open()
        page.click("role=tab[name='Tally']")
        assert "Vote once first" in page.inner_text("#tally")
        page.click("role=tab[name='Compare']")
        visitor.look("1-empty-wide-light")
        visitor.when_both_write("window.bothWrote = true")
        visitor.ask(QUESTION)
        shown = visitor.wait_for_answers()
        assert all(text.strip() for text in shown)
        assert page.evaluate("window.bothWrote"), "both answers grow at the same time"
        whole = page.content()
        assert not [name for name in live.names if f">{name}<" in whole], "names are hidden"
        page.evaluate("() => { for (let i = 0; i < 10; i++) document.querySelector('#vote-b').click(); }")
        page.wait_for_selector(".sp-said li")
        assert page.locator(".sp-won .sp-name").inner_text() in live.names
        visitor.look("2-revealed-wide-light")
        assert len(live_space.rows()) == before + 1
        row = live_space.rows()[-1]
        assert row["winner"] == page.locator(".sp-won .sp-name").inner_text()
        assert [each["text"].split() for each in row["answers"]] == [text.split() for text in shown]
        visitor.ask("And the owl?")
        page.wait_for_selector(".sp-kept")
        assert page.locator(".sp-kept .sp-prose").inner_text().split() == shown[1].split()
        visitor.wait_for_answers()
        page.click("role=tab[name='Tally']")
        page.wait_for_selector(".sp-tally")
        assert f"of {len(live_space.rows())} vote" in page.inner_text(".sp-headline")
        visitor.look("3-tally-wide-light")


@pytest.mark.slow
def test_two_visitors_at_once_see_their_own_answers(live_space: Served, visit: Visit) -> None:
    questions = (QUESTION, "What is the whale like? Answer for a lecture. Take your time.")
    with visit(live_space.url) as first, visit(live_space.url, PHONE, "dark") as second:
        first.open()
        second.open()
        for visitor, question in zip((first, second), questions, strict=True):
            visitor.ask(question)
        for visitor, question, animal in zip((first, second), questions, ("otter", "whale"), strict=True):
            texts = visitor.wait_for_answers()
            assert visitor.page.inner_text(".sp-user") == question
            assert all(animal in text for text in texts)
        first.page.keyboard.press("a")
        first.page.wait_for_selector(".sp-reveal")
        assert second.page.locator(".sp-reveal").count() == 0
        second.page.click("#vote-tie")
        second.page.wait_for_selector(".sp-said li")
        second.look("4-revealed-phone-dark")
    assert {row["winner"] for row in live_space.rows()[-2:]} >= {"tie"}


@pytest.mark.slow
def test_what_is_written_before_the_page_has_arrived_stays(live_space: Served, visit: Visit) -> None:
    with visit(live_space.url) as visitor:
        held: list[Any] = []
        visitor.page.route("**/queue/join*", lambda route: held.append(route))
        page = visitor.open("?temperature=0.8")
        page.fill("#prompt textarea", QUESTION)
        page.wait_for_timeout(500)
        assert held, "the page asks what its link says"
        for route in held:
            route.continue_()
        page.unroute("**/queue/join*")
        page.wait_for_timeout(1500)
        assert page.input_value("#prompt textarea") == QUESTION


@pytest.mark.slow
def test_a_reload_in_mid_stream_brings_the_prompt_back(live_space: Served, visit: Visit) -> None:
    with visit(live_space.url) as visitor:
        page = visitor.open("?temperature=0.8&seed=3")
        visitor.when_both_write("location.reload()")
        page.evaluate("window.before = true")
        visitor.ask(QUESTION)
        page.wait_for_function("() => !window.before")
        page.wait_for_function("() => (document.querySelector('#prompt textarea') || {}).value")
        assert page.input_value("#prompt textarea") == QUESTION
        assert "seed=3" in page.url
        page.click("#send")
        first = visitor.wait_for_answers()
        with visit(page.url) as friend:
            friend.open()
            friend.page.wait_for_function("() => (document.querySelector('#prompt textarea') || {}).value")
            friend.page.click("#send")
            assert sorted(friend.wait_for_answers()) == sorted(first), "a link shows the same answers"


@pytest.mark.slow
def test_stop_regenerate_edit_and_a_new_conversation(live_space: Served, visit: Visit) -> None:
    with visit(live_space.url) as visitor:
        page = visitor.open("?tokens=400")
        # A fast machine writes everything before a hand could stop it.
        visitor.when_both_write("window.stopped = true; document.querySelector('#stop').click()")
        visitor.ask(QUESTION)
        page.wait_for_function("() => window.stopped")
        first = visitor.wait_for_answers()
        page.click("#regenerate")
        page.wait_for_function("() => location.search.includes('seed=1')")
        assert visitor.wait_for_answers() != first
        page.click("#edit")
        page.wait_for_function("() => document.querySelector('#prompt textarea').value")
        assert page.input_value("#prompt textarea") == QUESTION
        visitor.ask("Tell me about the tiger, for a report. Tell me more.")
        page.wait_for_function("() => document.querySelector('.sp-user').innerText.includes('tiger')")
        visitor.wait_for_answers()
        assert page.locator(".sp-user").count() == 1, "it took the place of the turn"
        page.click("#new")
        page.wait_for_selector(".sp-empty")
        visitor.ask("   ")
        page.wait_for_selector(".sp-error")
        assert "The prompt is empty" in page.inner_text("#status")


@pytest.mark.slow
def test_a_vote_reaches_the_dataset_on_the_hub(
    hub_process: HubProcess, shown: SpaceConfig, visit: Visit, tmp_path: Any
) -> None:
    """Precomputed answers, on a phone in the dark, by keyboard; the token is nowhere in the page."""
    server = hub_process.server
    token, repo = server.token("alice"), server.unique("votes")
    votes, hostile = VotesSection(repo=repo, every_minutes=0.05), _hostile(shown, tmp_path)
    config = shown.model_copy(update={"votes": votes, "generations": hostile})
    seen: list[str] = []
    with serving(config, tmp_path / "space", hub_process.environment(token=token)) as space:
        with visit(space.url, PHONE, "dark") as visitor:
            visitor.page.on("response", lambda answer: seen.append(_body(answer)))
            page = visitor.open()
            visitor.wait_for_answers()
            visitor.look("5-precomputed-phone-dark")
            assert "no model runs here" in page.inner_text("#heading")
            assert "<img src=x" in page.inner_text(".sp-pair"), "what a model wrote is text"
            page.keyboard.press("b")
            page.wait_for_selector(".sp-reveal")
            page.click("role=tab[name='Tally']")
            page.wait_for_selector(".sp-tally")
            assert not page.evaluate("window.hacked"), "and nothing of it runs"
            visitor.look("6-tally-phone-dark")
        with visit(space.url) as visitor:
            page = visitor.open()
            visitor.wait_for_answers()
            page.click("#vote-a")
            page.wait_for_selector(".sp-reveal")
            page.click("role=tab[name='Report']")
            page.wait_for_selector("#report h1")
            visitor.look("7-report-wide-light")
            _wait_for(lambda: any(name.startswith("votes/") for name in server.files(repo, type="dataset")))
    files = server.files(repo, type="dataset")
    rows = [row for name, content in files.items() if name.startswith("votes/") for row in _rows(content)]
    assert [row["round"] for row in rows] == [row["round"] for row in space.rows()]
    assert len(rows) == 2
    assert b"config_name: pairs" in files["README.md"]
    assert seen
    assert not [body for body in seen if token in body], "the token never reaches the browser"


def _hostile(shown: SpaceConfig, folder: Any) -> LocalSource:
    """The evaluation's answers, each with what a page must not do: run, or fetch from elsewhere."""
    attack = " <img src=x onerror='window.hacked=1'><script>window.hacked=1</script> ![](https://evil.example/spy.png)"
    lines = []
    for line in Path(str(shown.generations)).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        row["responses"] = {name: text + attack for name, text in row["responses"].items()}
        lines.append(json.dumps(row))
    (folder / "generations.jsonl").write_text("\n".join(lines))
    return LocalSource(path=str(folder / "generations.jsonl"))


@contextmanager
def serving(config: SpaceConfig, folder: Any, environment: dict[str, str]) -> Iterator[Served]:
    yield from start_space(config, folder, environment)


def _body(answer: Any) -> str:
    try:
        return str(answer.url) + str(answer.headers) + ("" if "stream" in str(answer.headers) else answer.text())
    except Exception as error:  # noqa: BLE001 - bodies of redirects and of closed streams cannot be had
        return f"no body: {type(error).__name__}"


def _rows(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.decode().splitlines()]


def _wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
