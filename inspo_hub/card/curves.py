"""Charts as SVG text, drawn without a plotting library: lines, points with error bars, axes, legend, light and dark.

A picture brings its own background and follows the reader's light or dark setting; series differ by colour, dash and
marker, so that they can be told apart without colours. It holds no script and refers to nothing outside itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

from inspo_hub.card.axes import Axis, drawable, make_axis, thin_out
from inspo_hub.card.theme import COLOURS, FONT_SIZE, style

MAX_POINTS = 400
"""Points of a line; more than a chart has pixels only makes the file larger."""
_GLYPH = 0.6 * FONT_SIZE
"""Width of a character as far as the layout knows; browsers choose the font."""
_RIGHT, _TOP, _BOTTOM, _LEGEND_ROW = 18, 34, 56, 18
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2", "12 4")
_MARKERS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve, or one set of points. Values that are not finite are left out and interrupt the line."""

    name: str
    points: Sequence[tuple[float, float]]
    style: Literal["line", "points"] = "line"
    intervals: Sequence[tuple[float, float]] | None = None
    """Low and high end of each point's y, drawn as an error bar."""
    x_intervals: Sequence[tuple[float, float]] | None = None
    labels: Sequence[str] | None = None
    """A word beside each point."""

    def __post_init__(self) -> None:
        for others in (self.intervals, self.x_intervals, self.labels):
            assert others is None or len(others) == len(self.points), "one interval and one label per point"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What one set of axes shows."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    guide: float | None = None
    """A horizontal line to compare with, such as 0.5 for an accuracy."""


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_label: str,
    *,
    guide: float | None = None,
    width: int = 640,
    height: int = 380,
) -> str:
    """One chart as an SVG document."""
    chart = Chart(title=title, x_label=x_label, y_label=y_label, series=series, guide=guide)
    return chart_grid([chart], title=title, columns=1, width=width, height=height)


def chart_grid(charts: Sequence[Chart], *, title: str, columns: int = 2, width: int = 440, height: int = 330) -> str:
    """Several charts side by side in one SVG document; `width` and `height` are those of one chart."""
    assert charts, "a picture shows at least one chart"
    columns = min(columns, len(charts))
    rows = -(-len(charts) // columns)
    body = "\n".join(
        f'<g transform="translate({index % columns * width} {index // columns * height})">\n'
        + "\n".join(_Drawing(chart, width, height).elements())
        + "\n</g>"
        for index, chart in enumerate(charts)
    )
    description = " ".join(describe(chart) for chart in charts)
    # Ids must differ between pictures that end up in one HTML page.
    key = hashlib.sha256((title + body).encode()).hexdigest()[:8]
    size = f"{columns * width} {rows * height}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ih-chart" viewBox="0 0 {size}" width="{columns * width}" '
        f'height="{rows * height}" role="img" aria-labelledby="title-{key} description-{key}">\n'
        f'<title id="title-{key}">{_text(title)}</title>\n<desc id="description-{key}">{_text(description)}</desc>\n'
        f"<style>\n{style()}</style>\n"
        f'<rect class="ih-paper" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )


def describe(chart: Chart) -> str:
    """The chart in words, for those who do not see it: where each series starts and ends."""
    parts = []
    for series in chart.series:
        points = [point for point in series.points if drawable(point[0]) and drawable(point[1])]
        if not points:
            parts.append(f"{series.name}: no values")
        elif series.style == "line":
            (x0, y0), (x1, y1) = points[0], points[-1]
            parts.append(f"{series.name}: {y0:.4g} at {x0:g} to {y1:.4g} at {x1:g}")
        else:
            parts.append(f"{series.name}: " + ", ".join(f"{y:.4g} at {x:.4g}" for x, y in points[:12]))
    return f"{chart.title} ({chart.y_label} by {chart.x_label}): {'; '.join(parts)}."


class _Drawing:
    """The elements of one chart, in a box of its own with the origin at the top left."""

    def __init__(self, chart: Chart, width: int, height: int) -> None:
        self.chart, self.width, self.height = chart, width, height
        xs, ys = self._values()
        self.x: Axis | None = make_axis(xs) if xs else None
        self.y: Axis | None = make_axis(ys) if ys else None
        self.left = 32 + max((len(label) for label in self.y.labels), default=0) * _GLYPH if self.y else 32.0
        self.legend = list(_legend_places([series.name for series in chart.series], width - self.left - _RIGHT))
        legend_rows = 1 + max((row for row, _, _ in self.legend), default=-1)
        self.bottom = height - _BOTTOM - legend_rows * _LEGEND_ROW

    def _values(self) -> tuple[list[float], list[float]]:
        xs, ys = [], []
        for series in self.chart.series:
            for index, (x, y) in enumerate(series.points):
                if drawable(x) and drawable(y):
                    xs += [x, *(series.x_intervals[index] if series.x_intervals else ())]
                    ys += [y, *(series.intervals[index] if series.intervals else ())]
        if ys and drawable(self.chart.guide):
            assert self.chart.guide is not None
            ys.append(self.chart.guide)
        return [x for x in xs if drawable(x)], [y for y in ys if drawable(y)]

    def elements(self) -> Iterator[str]:
        middle = (self.left + self.width - _RIGHT) / 2
        yield f'<text class="ih-title" x="{self.left:.1f}" y="20">{_text(self.chart.title)}</text>'
        if self.x is None or self.y is None:
            place = f'x="{middle:.1f}" y="{self.height / 2:.1f}" text-anchor="middle"'
            yield f'<text class="ih-text" {place}>no values</text>'
            return
        yield from self._axes(self.x, self.y, middle)
        for number, series in enumerate(self.chart.series):
            yield from self._series(number, series)
        for number, (row, x, name) in enumerate(self.legend):
            yield from self._legend_entry(number, self.chart.series[number], row, x, name)

    def _axes(self, x_axis: Axis, y_axis: Axis, middle: float) -> Iterator[str]:
        right = self.width - _RIGHT
        for tick, label in zip(y_axis.ticks, y_axis.labels, strict=True):
            y = self._y(tick)
            yield f'<path class="ih-grid" d="M{self.left:.1f} {y:.1f}H{right}"/>'
            yield f'<text class="ih-text" x="{self.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        for tick, label in _apart(x_axis, right - self.left):
            x = self._x(tick)
            yield f'<path class="ih-axis" d="M{x:.1f} {self.bottom}v4"/>'
            yield f'<text class="ih-text" x="{x:.1f}" y="{self.bottom + 17}" text-anchor="middle">{label}</text>'
        yield f'<path class="ih-axis" d="M{self.left:.1f} {_TOP}V{self.bottom}H{right}"/>'
        if drawable(self.chart.guide):
            assert self.chart.guide is not None
            yield f'<path class="ih-guide" d="M{self.left:.1f} {self._y(self.chart.guide):.1f}H{right}"/>'
        yield (
            f'<text class="ih-text" x="{middle:.1f}" y="{self.bottom + 34}" text-anchor="middle">'
            f"{_text(self.chart.x_label)}</text>"
        )
        across = (_TOP + self.bottom) / 2
        yield (
            f'<text class="ih-text" transform="translate(14 {across:.1f}) rotate(-90)" text-anchor="middle">'
            f"{_text(self.chart.y_label)}</text>"
        )

    def _x(self, value: float) -> float:
        assert self.x is not None
        return self.left + self.x.position(value) * (self.width - self.left - _RIGHT)

    def _y(self, value: float) -> float:
        assert self.y is not None
        return self.bottom - self.y.position(value) * (self.bottom - _TOP)

    def _series(self, number: int, series: Series) -> Iterator[str]:
        colour = f"ih-c{number % COLOURS}"
        if series.style == "line":
            for stretch in _stretches(series.points):
                if len(stretch) == 1:
                    yield _marker(_MARKERS[0], self._x(stretch[0][0]), self._y(stretch[0][1]), colour)
                    continue
                path = "L".join(f"{self._x(x):.1f} {self._y(y):.1f}" for x, y in thin_out(stretch, MAX_POINTS))
                yield f'<path class="ih-line {colour}"{_dash(number)} d="M{path}"/>'
            return
        for index, (x, y) in enumerate(series.points):
            if drawable(x) and drawable(y):
                yield from self._error_bars(series, index, colour)
                yield _marker(_MARKERS[number % len(_MARKERS)], self._x(x), self._y(y), colour)
                if series.labels:
                    yield self._point_label(series.labels[index], self._x(x), self._y(y))

    def _error_bars(self, series: Series, index: int, colour: str) -> Iterator[str]:
        x, y = series.points[index]
        if series.intervals and all(map(drawable, series.intervals[index])):
            low, high = (self._y(end) for end in series.intervals[index])
            at = self._x(x)
            yield f'<path class="ih-bar {colour}" d="M{at - 4:.1f} {low:.1f}h8m-4 0V{high:.1f}m-4 0h8"/>'
        if series.x_intervals and all(map(drawable, series.x_intervals[index])):
            low, high = (self._x(end) for end in series.x_intervals[index])
            at = self._y(y)
            yield f'<path class="ih-bar {colour}" d="M{low:.1f} {at - 4:.1f}v8m0 -4H{high:.1f}m0 -4v8"/>'

    def _point_label(self, label: str, x: float, y: float) -> str:
        left_of = x + 8 + len(label) * _GLYPH > self.width - _RIGHT
        place = f'x="{x - 8:.1f}" text-anchor="end"' if left_of else f'x="{x + 8:.1f}"'
        return f'<text class="ih-text" {place} y="{y - 6:.1f}">{_text(label)}</text>'

    def _legend_entry(self, number: int, series: Series, row: int, x: float, name: str) -> Iterator[str]:
        y = self.bottom + _BOTTOM + row * _LEGEND_ROW
        colour = f"ih-c{number % COLOURS}"
        if series.style == "line":
            yield f'<path class="ih-line {colour}"{_dash(number)} d="M{self.left + x:.1f} {y}h24"/>'
        else:
            yield _marker(_MARKERS[number % len(_MARKERS)], self.left + x + 12, y, colour)
        yield f'<text class="ih-text" x="{self.left + x + 30:.1f}" y="{y + 4}">{_text(name)}</text>'


def _legend_places(names: Sequence[str], width: float) -> Iterator[tuple[int, float, str]]:
    """Row, x and text of each entry; a name that is too long for a row is cut."""
    longest = max(4, int((width - 30) / _GLYPH))
    row, x = 0, 0.0
    for name in names:
        shown = name if len(name) <= longest else name[: longest - 1] + "…"
        needed = 30 + len(shown) * _GLYPH + 14
        if x > 0 and x + needed > width + 14:
            row, x = row + 1, 0.0
        yield row, x, shown
        x += needed


def _apart(axis: Axis, width: float) -> Iterator[tuple[float, str]]:
    """Every tick, or every second, third, … where the labels would touch."""
    widest = max(len(label) for label in axis.labels) * _GLYPH + 10
    every = max(1, -(-int(widest * len(axis.ticks)) // int(width)))
    yield from list(zip(axis.ticks, axis.labels, strict=True))[::every]


def _stretches(points: Sequence[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """The parts of a line between values that cannot be drawn."""
    current: list[tuple[float, float]] = []
    for x, y in points:
        if drawable(x) and drawable(y):
            current.append((x, y))
        elif current:
            yield current
            current = []
    if current:
        yield current


def _marker(shape: str, x: float, y: float, colour: str) -> str:
    if shape == "circle":
        return f'<circle class="ih-mark {colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    outline = {"square": "m-4 -4h8v8h-8z", "diamond": "m0 -5l5 5l-5 5l-5 -5z", "triangle": "m0 -5l5 9h-10z"}[shape]
    return f'<path class="ih-mark {colour}" d="M{x:.1f} {y:.1f}{outline}"/>'


def _dash(number: int) -> str:
    dash = _DASHES[(number + number // COLOURS) % len(_DASHES)]  # a colour that comes again has another dash
    return f' stroke-dasharray="{dash}"' if dash else ""


def _text(text: str) -> str:
    """Text as XML holds it: markup escaped, characters that XML forbids replaced, one line."""
    allowed = "".join(
        char if ord(char) >= 0x20 and not 0xD800 <= ord(char) <= 0xDFFF and ord(char) not in (0xFFFE, 0xFFFF) else " "
        for char in text
    )
    return escape(" ".join(allowed.split()))
