"""The style sheet of the charts: colours that can be told apart on white and on black, also by the colour-blind."""

from __future__ import annotations

from collections.abc import Sequence

FONT_SIZE = 12
_LIGHT = ("#0072b2", "#c44601", "#00795a", "#a3427f", "#806000", "#4b5563")
_DARK = ("#56b4e9", "#ff9d5c", "#35c99b", "#e79ac8", "#e8c547", "#aeb6c2")
COLOURS = len(_LIGHT)


def style() -> str:
    """The rules of a chart; classes begin with `ih-`, so that a page that holds the picture is left alone."""
    font = f"font: {FONT_SIZE}px system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', 'DejaVu Sans', sans-serif"
    shapes = (
        f".ih-text {{ {font} }}\n.ih-title {{ {font}; font-weight: 600; font-size: {FONT_SIZE + 1}px }}\n"
        ".ih-line { fill: none; stroke-width: 2; stroke-linejoin: round }\n"
        ".ih-bar { fill: none; stroke-width: 1.5 }\n"
        ".ih-grid, .ih-axis, .ih-guide { fill: none; stroke-width: 1 }\n.ih-guide { stroke-dasharray: 3 3 }\n"
    )
    dark = _theme("#0d1117", "#e6edf3", "#2b333d", "#9aa4b0", _DARK)
    return (
        shapes
        + _theme("#ffffff", "#1f2328", "#e3e6ea", "#6b7480", _LIGHT)
        + f"@media (prefers-color-scheme: dark) {{\n{dark}}}\n"
    )


def _theme(paper: str, ink: str, grid: str, axis: str, colours: Sequence[str]) -> str:
    rules = [
        f".ih-paper {{ fill: {paper} }}",
        f".ih-text, .ih-title {{ fill: {ink} }}",
        f".ih-grid {{ stroke: {grid} }}",
        f".ih-axis, .ih-guide {{ stroke: {axis} }}",
    ]
    for number, colour in enumerate(colours):
        rules.append(f".ih-line.ih-c{number}, .ih-bar.ih-c{number} {{ stroke: {colour} }}")
        rules.append(f".ih-mark.ih-c{number} {{ fill: {colour} }}")
    return "\n".join(rules) + "\n"
