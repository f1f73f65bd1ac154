"""metrics.jsonl -> the charts of a card: loss, margins, accuracies, log-probabilities, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inspo_hub.card.axes import drawable
from inspo_hub.card.curves import Chart, Series, chart_grid
from inspo_hub.card.facts import Record

STEP = "optimizer step"
_SPLITS = {"train": "training", "heldout": "held out"}


def training_charts(records: Sequence[Record]) -> list[Chart]:
    """A chart for each group of metrics that was logged; none where nothing was."""
    charts = [
        _chart(records, "Loss", "mean loss of a pair", {"loss": ""}),
        _chart(records, "Reward margin", "reward, chosen less rejected", _sides("margin"), guide=0.0),
        _chart(records, "Preference accuracy", "share of pairs", _sides("accuracy"), guide=0.5),
        _chart(
            records,
            "Log-probability of the answers, π(y|x)",
            "nats per token",
            {"plain_logp_per_token_chosen": "chosen", "plain_logp_per_token_rejected": "rejected"},
        ),
        _chart(
            records,
            "Log-ratio to the reference, plain",
            "nats per token",
            {"plain_log_ratio_per_token_chosen": "chosen", "plain_log_ratio_per_token_rejected": "rejected"},
            guide=0.0,
        ),
        _chart(records, "Distillation gap", "reward, conditioned less plain", {"distillation_gap": ""}, guide=0.0),
    ]
    return [chart for chart in charts if chart is not None]


def training_curves(records: Sequence[Record], title: str) -> str | None:
    """All charts of a run as one SVG; None where nothing was logged."""
    charts = training_charts(records)
    return chart_grid(charts, title=title) if charts else None


def twin_curves(records: Mapping[str, Sequence[Record]], title: str) -> str | None:
    """The held-out curves of several variants in the same charts; None where nothing was measured."""
    wanted = {
        "plain_accuracy": ("Preference accuracy, plain", "share of held-out pairs", 0.5),
        "plain_margin": ("Reward margin, plain", "reward, chosen less rejected", 0.0),
        "conditioned_accuracy": ("Preference accuracy, conditioned", "share of held-out pairs", 0.5),
        "conditioned_margin": ("Reward margin, conditioned", "reward, chosen less rejected", 0.0),
        "distillation_gap": ("Distillation gap", "reward, conditioned less plain", 0.0),
    }
    charts = []
    for metric, (name, label, guide) in wanted.items():
        series = [
            Series(name=variant, points=points)
            for variant, lines in records.items()
            if (points := _points(lines, "heldout", metric))
        ]
        if series:
            charts.append(Chart(title=name, x_label=STEP, y_label=label, series=series, guide=guide))
    return chart_grid(charts, title=title) if charts else None


def budget_curves(records: Mapping[str, Sequence[Record]], summaries: Mapping[str, Record], title: str) -> str | None:
    """Held-out plain accuracy over the tokens and over the seconds that it took; None where nothing was measured.

    A step of one variant may take more of both than a step of another: over steps alone, the dearer one looks better.
    """
    charts = []
    for key, what, label in (
        ("tokens_per_step", "Accuracy by tokens", "trained tokens, thousands"),
        ("seconds_per_step", "Accuracy by time", "seconds of training"),
    ):
        unit = 1e-3 if key == "tokens_per_step" else 1.0
        series = [
            Series(name=name, points=[(step * summaries[name][key] * unit, value) for step, value in points])
            for name, lines in records.items()
            if (points := _points(lines, "heldout", "plain_accuracy")) and summaries[name].get(key)
        ]
        if series:
            charts.append(Chart(title=what, x_label=label, y_label="share of held-out pairs", series=series, guide=0.5))
    return chart_grid(charts, title=title) if charts else None


def _sides(metric: str) -> dict[str, str]:
    return {f"plain_{metric}": "plain", f"conditioned_{metric}": "conditioned"}


def _chart(
    records: Sequence[Record], title: str, y_label: str, metrics: Mapping[str, str], guide: float | None = None
) -> Chart | None:
    series = [
        Series(name=", ".join(part for part in (name, split_name) if part), points=points)
        for metric, name in metrics.items()
        for split, split_name in _SPLITS.items()
        if (points := _points(records, split, metric))
    ]
    return Chart(title=title, x_label=STEP, y_label=y_label, series=series, guide=guide) if series else None


def _points(records: Sequence[Record], split: str, metric: str) -> list[tuple[float, float]]:
    """(step, value) of every record that has the metric; empty where no value is a finite number."""
    points = [
        (float(record["step"]), float(record[metric]))
        for record in records
        if record.get("split") == split and record.get(metric) is not None
    ]
    return points if any(drawable(value) for _, value in points) else []
