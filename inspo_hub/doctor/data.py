"""Findings about the pairs: what the rows are, what was cut, what leaks, what a length alone gives away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from inspo_hub.doctor.findings import Finding, Severity

if TYPE_CHECKING:
    from inspo_hub.pairs import DataReport, PairSet
    from inspo_hub.pairs.report import Rows

OFTEN = 0.05
"""Share of the rows from which something that is tolerable in a few is worth a warning."""
LENGTH_BIAS = 0.60
"""Share of pairs whose longer response is the chosen one, from which length is worth a finding."""
ALIKE = 0.95
"""Tokens that two responses share, as a share of those of both, from which they are nearly one."""
LOOKED_AT = 2000
"""Pairs whose tokens are compared."""


def data_findings(report: DataReport, pairs: PairSet, *, bos_id: int | None) -> list[Finding]:
    """Everything that the data say of themselves.

    Args:
        report: the run's own.
        pairs: its training pairs.
        bos_id: the tokenizer's BOS token; None where it has none.
    """
    rows = np.unique(np.linspace(0, len(pairs) - 1, min(LOOKED_AT, len(pairs))).astype(np.int64))
    found = [*_invalid(report), *_repeated(report, pairs), _near_identical(pairs, rows), *_leaks(report)]
    found += [_length_bias(report), _begin(pairs, rows, bos_id), *_cut(report, pairs)]
    found += [
        Finding(
            check="chat template",
            severity="warning",
            measured=note,
            means="tomorrow's run trains on other prompts",
            do="set data.chat_template_kwargs: {date_string: …}",
        )
        for note in report.notes
        if "today's date" in note
    ]
    return found


def _told(rows: Rows) -> str:
    names = ", ".join(rows.row_ids[:3])
    return f"{rows.count} ({names}{', …' * (rows.count > 3)})" if rows.count else "0"


def _counted(
    check: str,
    rows: Rows,
    total: int,
    *,
    what: str,
    means: str,
    do: str,
    few: Severity = "advice",
    often: float = OFTEN,
) -> Finding:
    """A finding about rows of one kind: none is ok, some are `few`, many are a warning."""
    share = rows.count / max(1, total)
    severity: Severity = "ok" if not rows.count else "warning" if share >= often else few
    return Finding(
        check=check,
        severity=severity,
        measured=f"{what}: {_told(rows)} of {total}",
        means=means if rows.count else "none",
        do=do if rows.count else "",
        numbers={"rows": rows.count, "of": total, "row_ids": list(rows.row_ids)},
    )


def _invalid(report: DataReport) -> Iterator[Finding]:
    total = sum(source.rows for source in report.sources)
    reasons = {
        "identical": ("both responses are one", "pairs without a preference teach nothing and are left out"),
        "identical_after_cut": ("both responses are one after the cut", "what told them apart was cut away"),
    }
    from inspo_hub.pairs.report import Rows

    for kind in {"identical": None, **dict.fromkeys(report.invalid)}:
        rows = report.invalid.get(kind, Rows())
        what, means = reasons.get(kind, (kind.replace("_", " "), "these rows cannot be pairs and are left out"))
        detail = f" ({rows.detail})" if rows.detail else ""
        do = (
            "raise data.max_length" if kind == "identical_after_cut" else "repair these rows or drop them at the source"
        )
        yield _counted(kind.replace("_", " "), rows, total, what=what, means=means + detail, do=do)


def _repeated(report: DataReport, pairs: PairSet) -> Iterator[Finding]:
    from inspo_hub.pairs.report import rows_where

    total = len(pairs)
    yield _counted(
        "duplicates", report.duplicate, total, what="rows of which an equal one comes earlier",
        means="a pair that is there n times counts n times", do="remove the repetitions from the data",
    )  # fmt: skip
    yield _counted(
        "contradictions", report.contradicting, total, what="rows of which another one prefers the other response",
        means="noise of the labels: the loss cannot satisfy both", do="keep one of the two; or objective robust or dpo "
        "with label_smoothing near the share of such rows",
    )  # fmt: skip
    exact, near = pairs.column("prompt_hash"), pairs.column("near_hash")
    _, place, counts = np.unique(near, return_inverse=True, return_counts=True)
    first: dict[int, int] = {}
    for key, own in zip(near.tolist(), exact.tolist(), strict=True):
        first.setdefault(key, own)
    other = np.array([first[key] != own for key, own in zip(near.tolist(), exact.tolist(), strict=True)], dtype=bool)
    yield _counted(
        "near-duplicate prompts", rows_where(pairs, (counts[place] > 1) & other), total,
        what="rows whose prompt differs from an earlier one by case or punctuation only",
        means="one question counts several times", do="merge them, if they are not meant",
    )  # fmt: skip


def _near_identical(pairs: PairSet, rows: np.ndarray) -> Finding:
    from inspo_hub.pairs.report import Rows

    alike = Rows()
    for row in rows.tolist():
        _, chosen, rejected = pairs.arrays(row)
        if _overlap(chosen, rejected) >= ALIKE:
            alike.add([pairs.row_id(row)])
    return _counted(
        "near-identical responses", alike, len(rows), what=f"pairs whose responses share {ALIKE:.0%} of their tokens",
        means="they carry little preference, and given one of them the other is mostly copied",
        do="look at them with `inspo-hub preview`, and drop those whose difference means nothing",
    )  # fmt: skip


def _overlap(left: np.ndarray, right: np.ndarray) -> float:
    """Tokens of both, counted as often as in both, as a share of the tokens of either."""
    ids, counts = np.unique(np.concatenate([left, right]), return_counts=True)
    of_left = np.searchsorted(np.sort(left), ids, "right") - np.searchsorted(np.sort(left), ids, "left")
    shared = np.minimum(of_left, counts - of_left).sum()
    return float(shared / max(1, len(left) + len(right) - shared))


def _leaks(report: DataReport) -> Iterator[Finding]:
    total = report.heldout_pairs
    if not total:
        yield Finding(
            check="held-out pairs",
            severity="advice",
            measured="no pair is held out",
            means="nothing will tell learning from memorising, and distillation_gap has no held-out line",
            do="set data.heldout: {fraction: 0.05}",
        )
        return
    do = "take these prompts out of training, or hold out a fraction: it is chosen by prompt"
    yield _counted("leaked prompts", report.leaked_prompts, total, what="held-out rows with a training prompt",
                   means="held-out scores flatter", do=do, few="warning")  # fmt: skip
    yield _counted("nearly leaked prompts", report.near_leaked_prompts, total,
                   what="held-out rows whose prompt differs from a training prompt by case or punctuation only",
                   means="held-out scores flatter", do=do)  # fmt: skip


def _length_bias(report: DataReport) -> Finding:
    bias = report.length_bias
    unequal = 1 - bias["equal"]
    share = bias["chosen_longer"] / unequal if unequal else 0.5
    biased = max(share, 1 - share) >= LENGTH_BIAS
    longer = "longer" if share >= 0.5 else "shorter"
    return Finding(
        check="length bias",
        severity="advice" if biased else "ok",
        measured=f"chosen is longer in {bias['chosen_longer']:.0%} of the pairs, as long in {bias['equal']:.0%} "
        f"(mean {bias['mean_chosen']:.0f} against {bias['mean_rejected']:.0f} tokens)",
        means=f"a rule that takes the {longer} response is right in {max(share, 1 - share):.0%} of the pairs"
        + ("; conditioning on the alternative does not prevent learning it" if biased else ""),
        do="report the length-controlled win rate, and compare with objective rdpo or a length-normalised one" * biased,
        numbers=dict(bias),
    )


def _begin(pairs: PairSet, rows: np.ndarray, bos_id: int | None) -> Finding:
    """BOS at the start of the prompt: once, always or never; and nowhere else."""
    from inspo_hub.pairs.report import Rows

    twice, begins = Rows(), 0
    for row in rows.tolist() if bos_id is not None else []:
        prompt, chosen, rejected = pairs.arrays(row)
        begins += int(prompt[0] == bos_id)
        if (prompt[:2] == bos_id).sum() > 1 or chosen[0] == bos_id or rejected[0] == bos_id:
            twice.add([pairs.row_id(row)])
    if not twice.count:
        none = "the tokenizer has no BOS token" if bos_id is None else f"{begins} of {len(rows)} prompts begin with it"
        return Finding(check="double BOS", severity="ok", measured=f"0 of {len(rows)}; {none}", means="no second BOS")
    return Finding(
        check="double BOS",
        severity="problem",
        measured=f"rows with a second BOS token: {_told(twice)} of {len(rows)}",
        means="the model has not met that, and inference will not write it: training and use differ",
        do="take the BOS out of the texts, or out of the chat template (model.chat_template)",
        numbers={"rows": twice.count, "row_ids": twice.row_ids},
    )


def _cut(report: DataReport, pairs: PairSet) -> Iterator[Finding]:
    from inspo_hub.pairs.report import rows_where

    total, limit = len(pairs), report.max_length
    alternatives = rows_where(pairs, pairs.taken[:, 3] > 0)
    unseen = report.truncated_tokens.get("alternative", 0)
    yield _counted(
        "cut alternatives",
        alternatives,
        total,
        what=f"pairs whose alternative does not fit {limit} tokens whole",
        means=f"{unseen:,} tokens of alternatives are not seen: a knob of cost, and of the start margin's spread",
        do="raise data.max_length, or set alternative.max_tokens so that all are cut alike",
        often=0.2,
    )
    yield _counted(
        "cut responses", report.responses_cut, total, what="pairs of which a response lost its tail and end token",
        means="the model is taught to stop nowhere there", do="raise data.max_length, or set data.on_overlong: drop",
    )  # fmt: skip
