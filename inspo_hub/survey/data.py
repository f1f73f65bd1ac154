"""A recipe's pairs in numbers: every row where they are few and near, a sample where they are many or far."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inspo_hub import hub
from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.errors import InspoError
from inspo_hub.pairs import PairSource
from inspo_hub.plan.facts import DataFacts, Overlong, PairRow, SourceFacts
from inspo_hub.quiet import quieter
from inspo_hub.recipe import HeldoutFraction
from inspo_hub.survey.files import rows_of_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inspo_hub.pairs import PairSet, PreparedData
    from inspo_hub.pairs.sample import LookedAt
    from inspo_hub.plan import Plan
    from inspo_hub.recipe import DataSource, Recipe

EVERY_ROW = 10**9
SMALL_BYTES = 16_000_000
"""Data sets on the Hub up to this size are downloaded: the run needs them anyway."""


@dataclass(frozen=True)
class Near:
    """A source whose files lie on this machine."""

    source: PairSource


@dataclass(frozen=True)
class Far:
    """A source on the Hub of which rows were read in parts."""

    source: PairSource
    rows: Sequence[Mapping[str, Any]]
    total: int
    known: bool


Place = Near | Far


def places(sections: Sequence[DataSource], pins: Sequence[hub.Pinned], wanted: int) -> list[Place]:
    """Where the rows of these sources are: here, or, where downloading them would be much, some of them read."""
    found: list[Place] = []
    for section, pinned in zip(sections, pins, strict=True):
        name = section.shown_name
        if not pinned.is_local and not _is_small_or_here(pinned):
            parts = rows_of_parts(pinned, section, wanted)
            if parts is not None:
                source = replace(PairSource.of(section), id=name)
                found.append(Far(source, parts.rows, parts.total, parts.known))
                continue
        folder = hub.fetch(pinned)
        found.append(Near(replace(PairSource.of(section, local_path=str(folder)), id=name)))
    return found


def _is_small_or_here(pinned: hub.Pinned) -> bool:
    files = hub.wanted_files(pinned)
    return sum(file.size for file in files if hub.local_file(pinned, file.path) is None) <= SMALL_BYTES


@dataclass(frozen=True)
class _Sample:
    """Rows of one source that were looked at, and what they say of all."""

    looked: LookedAt
    kept: list[PairRow]
    """The pairs among them after the recipe's own policy."""
    usable: int
    """Rows of the whole source that will be pairs, estimated."""
    facts: SourceFacts


@dataclass(frozen=True)
class Reader:
    """Looks at the rows of one variant's data with its tokenizer."""

    plan: Plan
    tokenizer: PreTrainedTokenizerBase
    conditioned: bool
    """Whether any variant gives a response its alternative: all of them see pairs that fit that."""
    sample_rows: int
    prompts: int = 0

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    def facts(self) -> DataFacts:
        data = self.recipe.data
        train = places(data.train, self.plan.train, self.sample_rows)
        own_heldout = data.heldout if isinstance(data.heldout, tuple) else ()
        heldout = places(own_heldout, self.plan.heldout, self.sample_rows)
        near = [place.source for place in (*train, *heldout) if isinstance(place, Near)]
        if len(near) == len(train) + len(heldout):
            from inspo_hub.pairs.sample import count_rows

            if sum(count_rows(source) for source in near) <= self.sample_rows:
                return self._all_of(near[: len(train)], near[len(train) :])
        return self._sampled(train, heldout)

    @property
    def _separator(self) -> tuple[int, ...]:
        from inspo_hub.pairs import separator_ids

        return separator_ids(self.tokenizer, self.recipe.alternative.format, self.recipe.alternative.turn_text)

    def _all_of(self, train: Sequence[PairSource], heldout: Sequence[PairSource]) -> DataFacts:
        """Exactly what the run will prepare, prepared."""
        prepared, separator = self._prepare(train, heldout), len(self._separator)
        looked = [self._look(source, EVERY_ROW) for source in train]
        held_out = len(prepared.heldout) if isinstance(self.recipe.data.heldout, HeldoutFraction) else 0
        return DataFacts(
            exact=True,
            method="every row was tokenised as the run will",
            train_pairs=len(prepared.train),
            heldout_pairs=len(prepared.heldout),
            rows=_rows_of(prepared.train),
            heldout_rows=_rows_of(prepared.heldout),
            by_conditioning=self._by_conditioning(looked, separator),
            sources=[
                SourceFacts(name=source.name, rows=one.rows, rows_known=True, looked_at=one.rows, invalid=one.invalid)
                for source, one in zip(train, looked, strict=True)
            ],
            dropped=sum(one.rows for one in looked) - len(prepared.train) - held_out,
            separator=separator,
            prompts=self.prompts,
            notes=tuple(prepared.report.notes),
        )

    def _prepare(self, train: Sequence[PairSource], heldout: Sequence[PairSource]) -> PreparedData:
        from inspo_hub.pairs import prepare_pairs

        data = self.recipe.data
        # What is said of them here would be taken for the report of a run.
        with quieter("inspo_hub.pairs", logging.WARNING):
            return prepare_pairs(
                list(train),
                self.tokenizer,
                seed=self.recipe.seed,
                max_length=data.max_length,
                conditioned=self.conditioned,
                separator=self._separator,
                max_alternative_tokens=self.recipe.alternative.max_tokens,
                on_overlong=data.on_overlong,
                on_invalid=data.on_invalid,
                heldout=data.heldout.fraction if isinstance(data.heldout, HeldoutFraction) else list(heldout) or None,
                text_format=data.text_format,
                chat_template_kwargs=data.chat_template_kwargs,
            )

    def _sampled(self, train: Sequence[Place], heldout: Sequence[Place]) -> DataFacts:
        """What samples say: shares of usable rows, and lengths in the sources' proportions."""
        from inspo_hub.pairs.mixture import share_counts

        separator, data = len(self._separator), self.recipe.data
        seen, held = ([self._sample(place, separator) for place in part] for part in (train, heldout))
        shares = share_counts([one.usable for one in seen], [place.source.weight for place in train])
        looked = [one.looked for one in seen]
        rows = in_proportion([one.kept for one in seen], shares, self.sample_rows)
        if not rows:
            raise _nothing_usable(looked, [place.source.name for place in train])
        fraction = data.heldout.fraction if isinstance(data.heldout, HeldoutFraction) else 0.0
        held_counts = [one.usable for one in held]
        return DataFacts(
            exact=False,
            method=f"estimated from {sum(one.looked.rows for one in (*seen, *held)):,} tokenised rows",
            train_pairs=max(1, round(sum(shares) * (1 - fraction))),
            heldout_pairs=round(sum(shares) * fraction) if fraction else sum(held_counts),
            rows=rows,
            heldout_rows=rows if fraction else in_proportion([one.kept for one in held], held_counts, self.sample_rows),
            by_conditioning=self._by_conditioning(looked, separator),
            sources=[one.facts for one in seen],
            dropped=sum(one.looked.rows - len(one.kept) for one in seen),
            separator=separator,
            prompts=self.prompts,
            notes=self._would_stop(looked, separator),
        )

    def _sample(self, place: Place, separator: int) -> _Sample:
        from inspo_hub.pairs.sample import count_rows

        if isinstance(place, Near):
            total, known = count_rows(place.source), True
            looked = self._look(place.source, self.sample_rows)
        else:
            total, known = place.total, place.known
            looked = self._look(place.source, place.rows)
        kept = self._kept(looked, separator)
        name = place.source.name
        facts = SourceFacts(name=name, rows=total, rows_known=known, looked_at=looked.rows, invalid=looked.invalid)
        return _Sample(looked, kept, round(total * len(kept) / max(1, looked.rows)), facts)

    def _would_stop(self, looked: Sequence[LookedAt], separator: int) -> tuple[str, ...]:
        """What of the sample the recipe's own policies do not let pass."""
        data, notes = self.recipe.data, []
        invalid = sum(sum(one.invalid.values()) for one in looked)
        if data.on_invalid == "error" and invalid:
            notes.append(f"data.on_invalid: error will stop the run: {invalid} of the rows looked at are no pairs")
        over = self._by_conditioning(looked, separator)["symmetric" if self.conditioned else "none"].rows
        if data.on_overlong == "error" and over:
            notes.append(f"data.on_overlong: error will stop the run: {over} of the rows looked at are too long")
        return tuple(notes)

    def _look(self, source: PairSource, rows: int | Sequence[Mapping[str, Any]]) -> LookedAt:
        from inspo_hub.pairs.sample import look_at

        data = self.recipe.data
        return look_at(
            source,
            self.tokenizer,
            rows=rows,
            seed=self.recipe.seed,
            text_format=data.text_format,
            template_kwargs=data.chat_template_kwargs,
        )

    def _limits(self, conditioned: bool, separator: int) -> Any:
        from inspo_hub.pairs.overlong import Limits
        from inspo_hub.pairs.sample import prompt_floor

        data = self.recipe.data
        floor = prompt_floor(self.tokenizer, data.text_format, data.chat_template_kwargs)
        limits = Limits(data.max_length, conditioned, separator, self.recipe.alternative.max_tokens, floor)
        limits.check()
        return limits

    def _kept(self, looked: LookedAt, separator: int) -> list[PairRow]:
        """The pairs of a sample after the recipe's own policy."""
        from inspo_hub.pairs.sample import cut_lengths

        cut = cut_lengths(looked.lengths, self._limits(self.conditioned, separator))
        drops = self.recipe.data.on_overlong == "drop"
        return [PairRow(*row) for row, over in zip(cut.rows, cut.overlong, strict=True) if not (drops and over)]

    def _by_conditioning(self, looked: Sequence[LookedAt], separator: int) -> dict[str, Overlong]:
        import numpy as np

        from inspo_hub.pairs.sample import cut_lengths

        lengths = np.concatenate([one.lengths for one in looked])
        found = {}
        for conditioned in (False, True):
            cut = cut_lengths(lengths, self._limits(conditioned, separator))
            overlong = Overlong(rows=sum(cut.overlong), taken=cut.taken, lengths=[PairRow(*row) for row in cut.rows])
            found[conditioned] = overlong
        return {
            name: found[any("given" in score for score in kind(name=name).scores)]
            for name, kind in CONDITIONINGS.items()
        }


def _rows_of(pairs: PairSet) -> list[PairRow]:
    from inspo_hub.pairs.overlong import NO_LIMIT

    limits = [None if limit == NO_LIMIT else limit for limit in pairs.max_alternative.tolist()]
    return [
        PairRow(prompt, chosen, rejected, limit)
        for (prompt, chosen, rejected), limit in zip(pairs.lengths.tolist(), limits, strict=True)
    ]


def in_proportion(parts: Sequence[Sequence[PairRow]], counts: Sequence[int], at_most: int) -> list[PairRow]:
    """Rows of each part, repeated or thinned out evenly, in the proportion of the counts."""
    total = sum(counts)
    rows: list[PairRow] = []
    for part, count in zip(parts, counts, strict=True):
        if part and count:
            wanted = max(1, round(count / total * min(at_most, total)))
            rows += [part[place * len(part) // wanted] for place in range(wanted)]
    return rows


def _nothing_usable(looked: Sequence[LookedAt], names: Sequence[str]) -> InspoError:
    from inspo_hub.errors import DataError

    problems = {kind: sum(one.invalid.get(kind, 0) for one in looked) for one in looked for kind in one.invalid}
    told = ", ".join(f"{kind} {count}" for kind, count in problems.items()) or "all are longer than data.max_length"
    return DataError(
        f"of {sum(one.rows for one in looked)} rows that were looked at none can be used: {told}",
        where=", ".join(names),
        fix="check columns, max_length and the template; `inspo-hub preview` shows pairs",
    )
