"""Data sources -> PreparedData: token ids of training and held-out pairs, and the data report."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from inspo_hub.errors import DataError
from inspo_hub.pairs.cache import tokenised_table
from inspo_hub.pairs.mixture import heldout_rows, mixed_order
from inspo_hub.pairs.overlong import Limits, cut_rows, path_lengths
from inspo_hub.pairs.report import DataReport, Rows, SourceReport, describe, fingerprint, leakage, rows_where
from inspo_hub.pairs.store import PairSet, TokenTable
from inspo_hub.pairs.template import tokenizer_name
from inspo_hub.pairs.tokenise import PairTokeniser, notes_on
from inspo_hub.pairs.types import OnInvalid, OnOverlong, PairSource, TextFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedData:
    """What a run trains and evaluates on."""

    train: PairSet
    heldout: PairSet
    report: DataReport

    @property
    def fingerprint(self) -> str:
        """The data fingerprint of the lock: training and held-out pairs in order."""
        return hashlib.sha256(f"{self.report.fingerprint}{self.report.heldout_fingerprint}".encode()).hexdigest()


@dataclass(frozen=True)
class _Policy:
    """How rows that cannot be taken as they are are treated."""

    limits: Limits
    on_overlong: OnOverlong
    on_invalid: OnInvalid
    bos_id: int | None
    report: DataReport = field(default_factory=DataReport)


def prepare_pairs(
    sources: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    max_length: int,
    conditioned: bool,
    separator: Sequence[int] = (),
    max_alternative_tokens: int | None = None,
    on_overlong: OnOverlong = "truncate",
    on_invalid: OnInvalid = "drop",
    heldout: float | Sequence[Any] | None = None,
    text_format: TextFormat = "auto",
    chat_template_kwargs: Mapping[str, Any] | None = None,
    num_proc: int | None = None,
) -> PreparedData:
    """Tokenised, checked, cut and mixed pairs of several sources.

    Args:
        sources: `PairSource`s, or objects with their attributes (a recipe's data sources).
        seed: decides the order, the shares' rows and the held-out prompts, and nothing else does.
        max_length: holds for every path: prompt + response, and if `conditioned` also
            prompt + min(alternative, max_alternative_tokens) + separator + response, both ways round.
        heldout: sources of their own, or the fraction of the prompts to hold out.
        text_format: whether string rows are rendered as one user message and its answer (`chat`) or joined as they
            stand (`raw`); `auto` is chat where the tokenizer has a chat template.
    """
    tokeniser = tokeniser_for(tokenizer, text_format, chat_template_kwargs)
    limits = Limits(max_length, conditioned, len(separator), max_alternative_tokens, tokeniser.floor)
    limits.check()
    report = DataReport(seed=seed, max_length=max_length, conditioned=conditioned, notes=notes_on(tokeniser))
    report.end_token = str(tokenizer.convert_ids_to_tokens(tokeniser.end_id))
    policy = _Policy(limits, on_overlong, on_invalid, tokenizer.bos_token_id, report)
    named = _named(sources)
    train = _take(named, tokeniser, policy, num_proc)
    if isinstance(heldout, float | int):
        train, held = _hold_out(train, float(heldout), seed)
    else:
        held = _take([PairSource.of(source) for source in heldout or ()], tokeniser, policy, num_proc)
    train = _mix(train, named, seed)
    _finish(policy, train, held, named)
    return PreparedData(train, held, report)


def _named(sources: Sequence[Any]) -> list[PairSource]:
    if not sources:
        raise DataError("no data source", where="data.train", fix="name at least one preference data set")
    return [PairSource.of(source) for source in sources]


def _mix(pairs: PairSet, sources: Sequence[PairSource], seed: int) -> PairSet:
    """The pairs that take part, by the sources' shares, in their seeded order."""
    order = mixed_order(pairs.source_of(), pairs.column("row"), [source.weight for source in sources], seed)
    if not len(order):
        usable = [f"{source.name} {int((pairs.source_of() == n).sum())}" for n, source in enumerate(sources)]
        raise DataError(
            f"the sources' shares leave no training pair; usable rows: {', '.join(usable)}",
            where="data.train.weight",
            fix="leave out the source without usable rows, or its weight",
        )
    return pairs.subset(order)


def _hold_out(pairs: PairSet, fraction: float, seed: int) -> tuple[PairSet, PairSet]:
    """(train, held out): every prompt on one side."""
    out = heldout_rows(pairs.column("prompt_hash"), fraction, seed)
    if out.all():
        raise DataError(
            f"all {len(pairs)} pairs are held out, none is left to train on",
            where="data.heldout",
            fix="hold out a smaller fraction, or bring more data",
        )
    return pairs.subset(np.flatnonzero(~out)), pairs.subset(np.flatnonzero(out))


def tokeniser_for(
    tokenizer: PreTrainedTokenizerBase, text_format: TextFormat, template_kwargs: Mapping[str, Any] | None
) -> PairTokeniser:
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if text_format == "chat" and not has_template:
        raise DataError(
            "text_format: chat, but the tokenizer has no chat template",
            where=tokenizer_name(tokenizer),
            fix="use an instruction-tuned model's tokenizer, or text_format: raw",
        )
    chat = has_template if text_format == "auto" else text_format == "chat"
    return PairTokeniser(tokenizer, chat=chat, template_kwargs=dict(template_kwargs or {}))


def _take(sources: Sequence[PairSource], tokeniser: PairTokeniser, policy: _Policy, num_proc: int | None) -> PairSet:
    """All usable rows of these sources, in file order, cut to the limits; the others are counted."""
    tables = [tokenised_table(source, tokeniser, num_proc=num_proc) for source in sources]
    for source, table in zip(sources, tables, strict=True):
        _count_invalid(table, policy)
        valid = sum(problem is None for problem in table.problem)
        form = "chat" if tokeniser.chat else "raw"
        policy.report.sources.append(
            SourceReport(source.name, len(table), valid, 0, source.weight, source.revision, form)
        )
    pairs = _all_pairs(tables, policy)
    if policy.on_invalid == "error" and policy.report.invalid:
        raise _refusal("rows that cannot be pairs", policy.report, fix="repair the rows, or set on_invalid: drop")
    if sources and not len(pairs):
        raise _refusal("no row is left", policy.report, fix="check columns, max_length and the template")
    return pairs


def _all_pairs(tables: Sequence[TokenTable], policy: _Policy) -> PairSet:
    valid = [np.array([problem is None for problem in table.problem], bool) for table in tables]
    empty = np.zeros(0, np.int64)
    number = np.concatenate([empty, *(np.full(int(ok.sum()), i) for i, ok in enumerate(valid))])
    index = np.concatenate([empty, *(np.flatnonzero(ok) for ok in valid)])
    all_lengths = [table.lengths()[ok] for table, ok in zip(tables, valid, strict=True)]
    lengths = np.concatenate([np.zeros((0, 3), np.int64), *all_lengths])
    first = np.concatenate([empty, *(table.prompt.first_ids()[ok] for table, ok in zip(tables, valid, strict=True))])
    over = path_lengths(lengths, policy.limits) > policy.limits.max_length
    cuts = cut_rows(lengths, policy.limits)
    pairs = PairSet(
        tables,
        table=number,
        index=index,
        lengths=cuts.lengths,
        max_alternative=cuts.max_alternative,
        taken=cuts.taken,
        has_bos=first == (-1 if policy.bos_id is None else policy.bos_id),
    )
    return _apply_overlong(pairs, over, policy)


def _apply_overlong(pairs: PairSet, over: Bool[np.ndarray, " pairs"], policy: _Policy) -> PairSet:
    found = rows_where(pairs, over)
    report = policy.report
    report.overlong.merge(found)
    if policy.on_overlong == "error" and found.count:
        raise DataError(
            f"{found.count} rows are longer than max_length {policy.limits.max_length}: {', '.join(found.row_ids)}",
            where="data.max_length",
            fix="raise max_length, or set on_overlong: truncate or drop",
        )
    if policy.on_overlong == "drop":
        return pairs.subset(np.flatnonzero(~over))
    same = np.zeros(len(pairs), bool)
    for position in np.flatnonzero(pairs.taken[:, 1:3].any(axis=1)):
        pair = pairs[int(position)]
        same[position] = pair.chosen == pair.rejected
    if same.any():
        report.invalid.setdefault("identical_after_cut", Rows()).merge(rows_where(pairs, same))
    return pairs.subset(np.flatnonzero(~same))


def _count_invalid(table: TokenTable, policy: _Policy) -> None:
    for index, problem in enumerate(table.problem):
        if problem is not None:
            policy.report.invalid.setdefault(problem, Rows()).add([table.row_id(index)], table.detail[index] or "")


def _refusal(what: str, report: DataReport, *, fix: str) -> DataError:
    counts = [
        f"{kind} {rows.count} ({', '.join(rows.row_ids[:3])}{': ' if rows.detail else ''}{rows.detail})"
        for kind, rows in report.invalid.items()
    ]
    if report.overlong.count:
        counts.append(f"overlong {report.overlong.count} ({', '.join(report.overlong.row_ids[:3])})")
    total = sum(source.rows for source in report.sources)
    names = ", ".join(source.name for source in report.sources)
    return DataError(f"{what}: of {total} rows, {'; '.join(counts)}", where=names, fix=fix)


def _finish(policy: _Policy, train: PairSet, heldout: PairSet, sources: Sequence[PairSource]) -> None:
    report = policy.report
    report.train_pairs, report.heldout_pairs = len(train), len(heldout)
    for number, source in enumerate(report.sources):
        used = train.source_of() if number < len(sources) else heldout.source_of()
        source.used = int((used == (number if number < len(sources) else number - len(sources))).sum())
    describe(report, train, path_lengths(train.lengths, policy.limits, train.max_alternative))
    leakage(report, train, heldout)
    if report.leaked_prompts.count:
        report.notes.append(f"{report.leaked_prompts.count} held-out rows have a training prompt: their scores flatter")
    report.max_token_id = max(train.max_id(), heldout.max_id())
    report.fingerprint, report.heldout_fingerprint = fingerprint(train), fingerprint(heldout)
    _log.info("%s", report.text())
