"""Charts: well-formed XML that holds every value it was given, no script, nothing from elsewhere, said in words."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspo_hub.card.curves import MAX_POINTS, Chart, Series, chart_grid, describe, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def marked(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if kind in (element.get("class") or "").split()]


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def line_ends(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(?:[ML]|^)(-?[\d.]+) (-?[\d.]+)", path)]


def curve(points: list[tuple[float, float]], **options: object) -> ElementTree.Element:
    return parse(line_chart([Series(name="one", points=points)], "Title", "step", "value", **options))  # type: ignore[arg-type]


def test_a_line_goes_through_its_points_in_proportion() -> None:
    (line, in_legend) = marked(curve([(0, 0.0), (5, 0.5), (10, 1.0)]), "ih-line")
    (x0, y0), (x1, y1), (x2, y2) = line_ends(line.get("d", ""))
    assert x0 < x1 < x2
    assert y0 > y1 > y2, "up is up"
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert "h24" in in_legend.get("d", "")


def test_axes_ticks_labels_title_and_legend_are_written() -> None:
    shown = texts(curve([(0, 0.0), (100, 1.0)], guide=0.5))
    assert {"Title", "step", "value", "one", "0", "100", "0.2", "1.0"} <= set(shown)


def test_a_value_that_is_no_number_interrupts_the_line_and_appears_nowhere() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, 2.0), (5, math.inf), (6, 1.5)]
    svg = line_chart([Series(name="one", points=points)], "t", "x", "y")
    root = parse(svg)
    lines = [line for line in marked(root, "ih-line") if "L" in line.get("d", "")]
    assert len(lines) == 2
    assert len(marked(root, "ih-mark")) == 1, "a value alone between gaps is a dot"
    assert not re.search(r"\b(nan|inf)\b", svg, re.IGNORECASE)


def test_error_bars_span_their_intervals() -> None:
    series = Series(
        name="dpo",
        style="points",
        points=[(2.0, 0.5)],
        intervals=[(0.25, 0.75)],
        x_intervals=[(1.0, 3.0)],
        labels=["β"],
    )
    root = parse(line_chart([series], "t", "KL", "win rate"))
    vertical, horizontal = (bar.get("d", "") for bar in marked(root, "ih-bar"))
    assert re.fullmatch(r"M[\d.]+ [\d.]+h8m-4 0V[\d.]+m-4 0h8", vertical)
    low, high = float(re.findall(r" ([\d.]+)h8", vertical)[0]), float(re.findall(r"V([\d.]+)", vertical)[0])
    (mark, _) = marked(root, "ih-mark")
    assert low > float(mark.get("cy", "nan")) > high
    assert float(mark.get("cy", "nan")) == pytest.approx((low + high) / 2, abs=0.2)
    assert "H" in horizontal
    assert "β" in texts(root)


def test_nothing_to_draw_is_said() -> None:
    assert "no values" in texts(curve([(0, math.nan)]))
    assert "no values" in texts(parse(line_chart([], "t", "x", "y")))


def test_a_long_run_stays_a_small_file() -> None:
    points = [(float(step), math.sin(step)) for step in range(100_000)]
    svg = line_chart([Series(name="loss", points=points)], "t", "x", "y")
    assert len(svg) < 20_000
    (line, _) = marked(parse(svg), "ih-line")
    assert len(line_ends(line.get("d", ""))) <= MAX_POINTS


def test_it_is_accessible_and_can_stand_in_a_page_beside_others() -> None:
    first, second = (line_chart([Series(name=name, points=[(0, 1.0), (9, 2.5)])], "Loss", "x", "y") for name in "ab")
    root = parse(first)
    assert root.get("role") == "img"
    described = dict((element.get("id"), element.text) for element in root if element.get("id"))
    assert (root.get("aria-labelledby") or "").split() == list(described)
    assert "Loss (y by x): a: 1 at 0 to 2.5 at 9." in described.values()
    assert not set(described) & {element.get("id") for element in parse(second)}
    assert all(name.startswith("ih-") for name in re.findall(r"\.([a-z][\w-]*)", _style_of(root))), "no foreign class"


def _style_of(root: ElementTree.Element) -> str:
    return "".join(element.text or "" for element in root.iter(f"{SVG}style"))


def test_both_themes_give_every_colour_a_meaning() -> None:
    style = _style_of(curve([(0, 1.0)]))
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for theme in (light, dark):
        paper = re.search(r"\.ih-paper \{ fill: (#\w{6})", theme)
        inks = re.findall(r"(?:stroke|fill): (#\w{6})", theme)
        assert paper is not None
        series = re.findall(r"\.ih-mark\.ih-c\d \{ fill: (#\w{6})", theme)
        assert len(series) == len(set(series)) == 6
        assert all(_contrast(paper[1], colour) >= 3 for colour in series), "WCAG 2.2: graphics 3:1"
        text = re.search(r"\.ih-title \{ fill: (#\w{6})", theme)
        assert text is not None
        assert _contrast(paper[1], text[1]) >= 7
        assert paper[1] in inks


def _contrast(first: str, second: str) -> float:
    """Contrast ratio of WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_series_can_be_told_apart_without_colour() -> None:
    series = [Series(name=str(number), points=[(0, number), (1, number)]) for number in range(6)]
    lines = marked(parse(line_chart(series, "t", "x", "y")), "ih-line")
    assert len({line.get("stroke-dasharray") for line in lines}) == 6


any_text = st.text(max_size=60)
any_number = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(st.tuples(any_text, st.lists(st.tuples(any_number, any_number), max_size=5)), max_size=8),
    any_text,
    any_text,
    st.sampled_from(["line", "points"]),
)
def test_any_text_and_any_number_give_a_picture_within_its_frame(
    content: list[tuple[str, list[tuple[float, float]]]], title: str, label: str, style: str
) -> None:
    series = [Series(name=name, points=points, style=style) for name, points in content]  # type: ignore[arg-type]
    root = parse(line_chart(series, title, label, label))
    width, height = 640, 380
    for element in marked(root, "ih-line") + marked(root, "ih-mark"):
        path = element.get("d") or f"{element.get('cx')} {element.get('cy')}"
        assert all(-1 <= x <= width + 1 and -1 <= y <= height + 60 for x, y in line_ends(path))


def test_a_grid_puts_charts_side_by_side() -> None:
    chart = Chart(title="Loss", x_label="x", y_label="y", series=[Series(name="a", points=[(0, 1)])])
    root = parse(chart_grid([chart] * 3, title="All", columns=2, width=400, height=300))
    assert root.get("viewBox") == "0 0 800 600"
    places = [group.get("transform") for group in root.iter(f"{SVG}g")]
    assert places == ["translate(0 0)", "translate(400 0)", "translate(0 300)"]


def test_points_are_described_by_their_values() -> None:
    series = Series(name="dpo", style="points", points=[(1.5, 0.6)])
    chart = Chart(title="Frontier", x_label="KL", y_label="win rate", series=[series])
    assert describe(chart) == "Frontier (win rate by KL): dpo: 0.6 at 1.5."
