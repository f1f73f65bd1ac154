"""A plan for people: a text for the terminal, and Markdown for a workflow's summary page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inspo_hub.plan.hardware import SPEEDS_OF
from inspo_hub.plan.machines import MachineEstimate
from inspo_hub.plan.memory import ENGINES
from inspo_hub.plan.results import ConditioningEstimate, Estimate

GB = 1e9
SHOWN_MACHINES = 8
"""Flavours that a report lists beside the chosen one; `--json` has all."""

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def to_text(name: str, plan: Estimate) -> str:
    """The plan as lines and aligned tables."""
    parts = [f"{name}: {_headline(plan)}"]
    for title, lines, table in _sections(plan):
        parts.append("\n".join([title, *(f"  {line}" for line in lines), *_aligned(table)]))
    return "\n\n".join(parts)


def to_markdown(name: str, plan: Estimate) -> str:
    """The plan as Markdown."""
    parts = [f"## Plan of `{name}`", f"**{_headline(plan)}**"]
    for title, lines, table in _sections(plan):
        parts += [f"### {title}", "\n".join(f"- {line}" for line in lines), _pipes(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(plan: Estimate) -> str:
    chosen = plan.chosen
    if chosen is None or chosen.hours is None or chosen.usd is None:
        return "no flavour holds this run" if chosen is None else f"{chosen.flavour.name}: {chosen.why_not}"
    return (
        f"{_hours(chosen.hours.total)} on {chosen.flavour.name}, about ${_usd(chosen.usd)} "
        f"({'measured' if chosen.measured else 'assumed'} speed)"
    )


def _sections(plan: Estimate) -> list[tuple[str, list[str], Table | None]]:
    return [
        ("Model", _model_lines(plan), None),
        ("Data", _data_lines(plan), _conditioning_table(plan.conditionings)),
        ("Training", _training_lines(plan), _variant_table(plan)),
        ("Memory of one GPU, in GB", _memory_lines(plan), _memory_table(plan)),
        ("Machines", _machine_lines(plan), _machine_table(plan)),
        *_chosen_section(plan),
    ]


def _model_lines(plan: Estimate) -> list[str]:
    model, shape = plan.model, plan.model.shape
    formats = ", ".join(f"{count:,} in {dtype}" for dtype, count in model.by_dtype.items())
    lines = [
        model.name,
        f"{model.parameters:,} parameters ({formats}); {shape.layers} layers of width {shape.hidden}, "
        f"vocabulary {shape.vocab:,}{'' if model.head else ', embedding and head are one'}",
    ]
    return [*lines, *model.notes]


def _data_lines(plan: Estimate) -> list[str]:
    data = plan.data
    lines = []
    for source in data.sources:
        about = "" if source.rows_known else "about "
        invalid = ", ".join(f"{kind} {count}" for kind, count in source.invalid.items())
        told = f"; left out of {source.looked_at:,} looked at: {invalid}" if invalid else ""
        lines.append(f"{source.name}: {about}{source.rows:,} rows{told}")
    heldout = f", {data.heldout_pairs:,} held out" if data.heldout_pairs else ""
    lines.append(f"{data.train_pairs:,} training pairs{heldout}; tokens: {data.method}")
    return [*lines, *data.notes]


def _conditioning_table(conditionings: Sequence[ConditioningEstimate]) -> Table:
    first = conditionings[0]
    columns = ("conditioning", "tokens a pair", *(f"p{p}" for p in first.tokens if p != "max"), "max")
    columns = (*columns, "longest path", "over-long", "tokens cut", "FLOPs")
    rows = []
    for one in conditionings:
        rows.append(
            [
                one.name,
                f"{one.mean_tokens:,.0f}",
                *(f"{count:,}" for count in one.tokens.values()),
                f"{one.longest_path['max']:,}",
                f"{one.overlong} of {one.rows}",
                _taken(one.taken),
                f"{one.flops_per_pair / first.flops_per_pair:.2f}×",
            ]
        )
    return columns, rows


def _taken(taken: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in taken.items() if count) or "none"


def _training_lines(plan: Estimate) -> list[str]:
    passes = [
        f"reference pass, once for all variants: {one.pairs:,} pairs before {one.variant} "
        f"({', '.join(one.train or one.heldout)})"
        for one in plan.passes
    ]
    return passes or ["no reference pass: the objective uses no reference"]


def _variant_table(plan: Estimate) -> Table:
    columns = (
        "variant", "objective × conditioning", "trained", "steps", "pairs", "tokens", "tokens a step",
        "micro-batches", "largest", "longest pair", "PFLOP",
    )  # fmt: skip
    about = "" if plan.data.exact else "≈ "
    rows = [
        [
            one.name,
            f"{one.objective} × {one.conditioning}{'' if one.layout == 'tree' else ', flat'}",
            f"{one.trained_parameters:,}",
            f"{one.steps:,}",
            f"{one.pairs:,}",
            f"{about}{one.tokens:,}",
            f"{one.tokens_per_step:,.0f}",
            f"{about}{one.micro_batches:,}",
            f"{one.largest_micro_batch:,}",
            f"{one.longest_pair:,}",
            _peta(one.flops),
        ]
        for one in plan.variants
    ]
    if len(rows) > 1:
        sums = {name: sum(getattr(one, name) for one in plan.variants) for name in ("steps", "pairs")}
        tokens, batches = (sum(getattr(one, name) for one in plan.variants) for name in ("tokens", "micro_batches"))
        flops = _peta(sum(one.flops for one in plan.variants))
        counts = [f"{sums['steps']:,}", f"{sums['pairs']:,}", f"{about}{tokens:,}"]
        rows.append(["total", "", "", *counts, "", f"{about}{batches:,}", "", "", flops])
    return columns, rows


def _peta(flops: float) -> str:
    return f"{flops / 1e15:,.3f}" if flops < 1e17 else f"{flops / 1e15:,.0f}"


def _memory_lines(plan: Estimate) -> list[str]:
    one = plan.variants[0]
    return [
        f"at the recipe's {one.tokens_per_microbatch:,} tokens a micro-batch, of the variant that needs most; "
        f"disk {plan.disk_bytes / GB:,.1f} GB",
    ]


def _memory_table(plan: Estimate) -> Table:
    engines = [engine for engine in ENGINES if any(engine in row for row in plan.memory.values())]
    rows = [
        [str(gpus), *(f"{row[engine] / GB:,.1f}" if engine in row else "" for engine in engines)]
        for gpus, row in plan.memory.items()
    ]
    return ("GPUs", *engines), rows


def _machine_lines(plan: Estimate) -> list[str]:
    return [
        f"prices: {plan.prices}",
        f"speeds: ASSUMED shares of the makers' peaks, table of {SPEEDS_OF}; `--calibrate` measures this machine",
    ]


def _machine_table(plan: Estimate) -> Table:
    columns = ("flavour", "$ an hour", "engine", "tokens a micro-batch", "recompute", "GB", "hours", "$")
    fitting = [one for one in plan.machines if one.hours is not None]
    cheapest = sorted(fitting, key=lambda one: (one.usd or 0.0, one.flavour.usd_per_hour))[:SHOWN_MACHINES]
    shown = [*([plan.here] if plan.here else []), *cheapest]
    if plan.chosen is not None and plan.chosen not in shown:
        shown.append(plan.chosen)
    return columns, [_machine_row(one, mark="*" if one is plan.chosen else "") for one in shown]


def _machine_row(one: MachineEstimate, *, mark: str) -> list[str]:
    setting = one.setting
    if setting is None or one.memory is None:
        return [one.flavour.name, f"{one.flavour.usd_per_hour:.2f}", one.why_not, "", "", "", "", ""]
    return [
        one.flavour.name + mark,
        f"{one.flavour.usd_per_hour:.2f}",
        setting.engine,
        f"{setting.tokens_per_microbatch:,}",
        "yes" if setting.checkpointing else "no",
        f"{one.memory.total / GB:,.1f}",
        f"{one.hours.total:,.2f}" if one.hours else "?",
        _usd(one.usd) if one.usd is not None else "?",
    ]


def _chosen_section(plan: Estimate) -> list[tuple[str, list[str], Table | None]]:
    chosen = plan.chosen
    if chosen is None or chosen.setting is None or chosen.memory is None:
        return []
    lines = [f"--set {setting}" for setting in plan.settings]
    if plan.launch is not None:
        lines += [f"{chosen.setting.engine}: {ENGINES[chosen.setting.engine]}", plan.launch]
    lines.append("memory: " + ", ".join(f"{name} {size / GB:,.2f} GB" for name, size in chosen.memory.parts.items()))
    lines.append(f"reference pass: {chosen.memory.reference / GB:,.2f} GB")
    if chosen.hours is not None:
        lines.append("time: " + ", ".join(f"{name} {_duration(s)}" for name, s in chosen.hours.seconds.items()))
        lines.append(f"time limit for a Job: {plan.timeout_minutes} minutes")
    lines += [f"{name}: {seconds:,.2f} s a step" for name, seconds in chosen.step_seconds.items()]
    return [(f"Chosen: {chosen.flavour.name}", lines, None)]


def _usd(usd: float) -> str:
    return f"{usd:,.2f}" if usd >= 0.005 else f"{usd:.4f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else _hours(seconds / 3600)


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 1.5 else f"{hours:.1f} hours"


def _aligned(table: Table | None) -> list[str]:
    if table is None:
        return []
    columns, rows = table
    lines = [list(columns), *[list(row) for row in rows]]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def _pipes(table: Table | None) -> str:
    if table is None:
        return ""
    columns, rows = table
    lines = [list(columns), ["---"] * len(columns), *[list(row) for row in rows]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
