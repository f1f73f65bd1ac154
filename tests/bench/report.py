"""Results as a Markdown page, ratios first, and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.bench.machine import peak_flops
from tests.bench.measure import CaseResult
from tests.bench.presets import LEAST_MFU, TARGETS, Target
from tests.bench.sides import ABOUT, SideName

OURS = ("none", "one_sided", "symmetric", "averaged")


def markdown(results: Sequence[CaseResult], machine: dict[str, Any], command: str) -> str:
    """One section per case: ratios, targets, then seconds and memory."""
    parts = [_header(machine, command)]
    for result in results:
        parts += [f"## {result.case}", _about_pairs(result), _ratios(result), _reference_pass(result)]
        parts += [_targets(result), _times(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(machine: dict[str, Any], command: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    device = machine["gpu"] or machine["cpu"]
    return (
        f"`{command}`\n\n{device}; {machine['threads']} thread(s) of {machine['cores']} cores, "
        f"{machine['memory_gb']} GB; {machine['system']}, Python {machine['python']}, {versions}; "
        f"load average {machine['load_average'][0]}; commit {machine['commit'] or 'unknown'}."
    )


def _about_pairs(result: CaseResult) -> str:
    prompt, chosen, rejected = (statistics.mean(column) for column in zip(*result.lengths, strict=True))
    rounds = max(len(side.wall) for side in result.sides.values())
    clock = "processor seconds" if result.clock == "cpu" else "seconds"
    return (
        f"Mean lengths {prompt:.0f} + {chosen:.0f} + {rejected:.0f}; {clock}, median of {rounds} interleaved rounds; "
        "in brackets the smallest and the largest of the rounds' own ratios."
    )


def _is_ours(side: str) -> bool:
    return SideName.parse(side).name in OURS


def _ratios(result: CaseResult) -> str:
    """Our sides as columns, what they are held against as rows; checkpointed against checkpointed only."""
    measured = [side for side in result.sides if result.measured(side)]
    ours = [side for side in measured if _is_ours(side)]
    others = [side for side in measured if not _is_ours(side) and not side.endswith("reference_pass")]
    others += [side for side in ours if side in ("symmetric", "symmetric:checkpointing")]
    rows = [[f"÷ {_label(result, other)}", *(_ratio_cell(result, side, other) for side in ours)] for other in others]
    return _table(["", *ours], [row for row in rows if any(row[1:])]) if ours else ""


def _reference_pass(result: CaseResult) -> str:
    if not (result.measured("reference_pass") and result.measured("trl_reference_pass")):
        return ""
    cell = _ratio_cell(result, "reference_pass", "trl_reference_pass")
    share = ""
    if result.measured("symmetric"):
        share = f"; it costs {result.ratio('reference_pass', 'symmetric'):.2f} of a symmetric step, once per pair"
    return f"Our reference pass ÷ TRL's: {cell}{share}."


def _ratio_cell(result: CaseResult, side: str, other: str) -> str:
    if side == other or SideName.parse(side).checkpointing != SideName.parse(other).checkpointing:
        return ""
    ratios = result.ratios(side, other)
    if not ratios:
        return ""
    return f"**{result.ratio(side, other):.2f}** ({min(ratios):.2f}–{max(ratios):.2f})"


def _label(result: CaseResult, side: str) -> str:
    note = result.sides[side].note
    return f"{side} ({note})" if note else side


def _targets(result: CaseResult) -> str:
    rows = []
    for target in TARGETS:
        ratio = _ratio_of(result, target)
        if target.applies(result.case) and ratio is not None:
            verdict = "met" if ratio <= target.limit else f"missed by {ratio / target.limit - 1:.0%}"
            what = f"{target.side} ÷ {target.baseline}{', peak memory' if target.memory else ''}"
            rows.append([what, f"≤ {target.limit:.2f}", f"{ratio:.3f}", verdict])
    rows += _mfu_targets(result)
    return _table(["target", "limit", "measured", ""], rows) if rows else ""


def _mfu_targets(result: CaseResult) -> Iterator[list[str]]:
    least = LEAST_MFU.get(result.case.shape)
    for side in ("symmetric", "symmetric:checkpointing"):
        utilisation = _mfu(result, side) if result.measured(side) else None
        if least is not None and utilisation is not None:
            verdict = "met" if utilisation >= least else f"missed by {1 - utilisation / least:.0%}"
            yield [f"{side}, MFU", f"≥ {least:.0%}", f"{utilisation:.1%}", verdict]


def _mfu(result: CaseResult, side: str) -> float | None:
    """Model FLOPs of a step over what the GPU could do meanwhile; None for a device whose peak is not known."""
    peak = peak_flops() if result.case.device == "cuda" else None
    flops, seconds = result.sides[side].model_flops, result.seconds(side)
    return flops / statistics.median(seconds) / peak if peak and flops is not None and seconds else None


def _ratio_of(result: CaseResult, target: Target) -> float | None:
    """None where one of the two was not measured."""
    if not (result.measured(target.side) and result.measured(target.baseline)):
        return None
    if not target.memory:
        return result.ratio(target.side, target.baseline)
    peaks = [result.sides[side].peak_bytes for side in (target.side, target.baseline)]
    return None if None in peaks else peaks[0] / peaks[1]  # type: ignore[operator]


def _times(result: CaseResult) -> str:
    rows = []
    for name, side in result.sides.items():
        if side.unavailable:
            rows.append([name, f"not run: {side.unavailable}", "", "", ""])
            continue
        seconds = result.seconds(name)
        if not seconds:
            continue
        median = statistics.median(seconds)
        memory = "" if side.peak_bytes is None else f"{side.peak_bytes / 1e6:,.0f} MB"
        speed = "" if side.model_flops is None else f"{side.model_flops / median / 1e9:,.0f} GFLOP/s"
        if (utilisation := _mfu(result, name)) is not None:
            speed = f"{utilisation:.1%} MFU"
        rows.append([_label(result, name), f"{median:.2f}", f"{min(seconds):.2f}–{max(seconds):.2f}", memory, speed])
    return _table(["side", "seconds", "spread", "peak memory above the policy's weights", "model FLOPs"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---" for _ in head], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sides_list() -> str:
    """The sides and what they are, for `--list` and the docs."""
    return _table(["side", "what it is"], [[f"`{name}`", about] for name, about in ABOUT.items()])
