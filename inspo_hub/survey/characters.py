"""Lengths from characters, where no tokenizer can be asked: an estimate that says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.errors import DataError, ResolutionError
from inspo_hub.pairs import PairSource
from inspo_hub.pairs.formats import Example, RowProblem, read_example
from inspo_hub.plan import Plan
from inspo_hub.plan.facts import DataFacts, Overlong, PairRow, SourceFacts
from inspo_hub.recipe import HeldoutFraction
from inspo_hub.survey.data import Far, Place, in_proportion, places
from inspo_hub.survey.files import DATA_SUFFIXES, names_of_split
from inspo_hub.survey.tokenizers import INSTALL

CHARACTERS_PER_TOKEN = 4.2
"""ASSUMED: English prose under a vocabulary of 32,000 tokens and more."""
MESSAGE_TOKENS = 5
"""ASSUMED: what a chat template writes around a message."""


def facts_from_characters(plan: Plan, *, conditioned: bool, sample_rows: int, prompts: int, why: str) -> DataFacts:
    """The pairs in estimated tokens; `why` no tokenizer was asked is said with them."""
    data = plan.recipe.data
    train = places(data.train, plan.train, sample_rows)
    own_heldout = data.heldout if isinstance(data.heldout, tuple) else ()
    heldout = places(own_heldout, plan.heldout, sample_rows)
    looked = [_look(place, sample_rows) for place in (*train, *heldout)]
    count, separator = len(train), _separator_tokens(plan)
    cut = [_clip(one.lengths, data.max_length, conditioned, separator) for one in looked]
    usable = [round(one.total * len(one.lengths) / max(1, one.rows)) for one in looked]
    rows = in_proportion([part.lengths for part in cut[:count]], usable[:count], sample_rows)
    if not rows:
        raise DataError("no row that was looked at is a pair", where=", ".join(place.source.name for place in train))
    fraction = data.heldout.fraction if isinstance(data.heldout, HeldoutFraction) else 0.0
    held_rows = in_proportion([part.lengths for part in cut[count:]], usable[count:], sample_rows)
    lengths = [row for one in looked[:count] for row in one.lengths]
    return DataFacts(
        exact=False,
        method=f"ESTIMATED FROM CHARACTERS ({CHARACTERS_PER_TOKEN} of them to a token): {why}",
        train_pairs=max(1, round(sum(usable[:count]) * (1 - fraction))),
        heldout_pairs=round(sum(usable[:count]) * fraction) if fraction else sum(usable[count:]),
        rows=rows,
        heldout_rows=rows if fraction else held_rows,
        by_conditioning={
            name: _clip(lengths, data.max_length, any("given" in score for score in kind(name=name).scores), separator)
            for name, kind in CONDITIONINGS.items()
        },
        sources=[
            SourceFacts(
                name=place.source.name, rows=one.total, rows_known=one.known, looked_at=one.rows, invalid=one.invalid
            )
            for place, one in zip(train, looked, strict=False)
        ],
        dropped=sum(one.rows - len(one.lengths) for one in looked[:count]),
        separator=separator,
        prompts=prompts,
    )


class _Looked:
    """Some rows of a source, by their characters."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], source: PairSource, total: int, *, known: bool) -> None:
        self.rows, self.total, self.known = len(rows), total, known
        self.lengths: list[PairRow] = []
        self.invalid: Counter[str] = Counter()
        for row in rows:
            try:
                self.lengths.append(_lengths(read_example(_renamed(row, source), chat=True)))
            except RowProblem as problem:
                self.invalid[problem.kind] += 1


def _look(place: Place, wanted: int) -> _Looked:
    if isinstance(place, Far):
        return _Looked(place.rows, place.source, place.total, known=place.known)
    every = list(_local_rows(place.source))
    limited = every[: place.source.limit]
    step = max(1, len(limited) // wanted)
    return _Looked(limited[::step], place.source, len(limited), known=True)


def _renamed(row: Mapping[str, Any], source: PairSource) -> dict[str, Any]:
    ours = {name: theirs for name, theirs in source.columns.items() if theirs is not None}
    return {**row, **{name: row.get(theirs) for name, theirs in ours.items()}}


def _lengths(example: Example) -> PairRow:
    def tokens(value: Any) -> int:
        messages = value if isinstance(value, list) else [value]
        texts = [str(message["content"]) if isinstance(message, Mapping) else str(message) for message in messages]
        return sum(round(len(text) / CHARACTERS_PER_TOKEN) + MESSAGE_TOKENS for text in texts)

    return PairRow(tokens(example.prompt), tokens(example.chosen), tokens(example.rejected))


def _local_rows(source: PairSource) -> Iterator[dict[str, Any]]:
    path = Path(source.local_path or source.id)
    files = [path]
    if path.is_dir():
        found = [each.relative_to(path).as_posix() for each in sorted(path.rglob("*")) if each.is_file()]
        names = names_of_split([name for name in found if name.endswith(DATA_SUFFIXES)], source.split)
        files = [path / name for name in names]
    for file in files:
        yield from _rows_of(file)


def _rows_of(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix in (".jsonl", ".ndjson"):
        with file.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    elif file.suffix == ".json":
        yield from json.loads(file.read_text(encoding="utf-8"))
    elif file.suffix == ".parquet" and find_spec("pyarrow") is not None:
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    else:
        raise ResolutionError(
            f"{file.name} cannot be read in this environment",
            where=str(file),
            expected="a jsonl or json file, or the libraries that read others",
            fix=INSTALL,
        )


def _separator_tokens(plan: Plan) -> int:
    alternative = plan.recipe.alternative
    if alternative.format == "concat":
        return 0
    return round(len(alternative.turn_text) / CHARACTERS_PER_TOKEN) + 2 * MESSAGE_TOKENS


def _clip(lengths: Sequence[PairRow], max_length: int, conditioned: bool, separator: int) -> Overlong:
    """What truncating takes, in its order: the alternative's tail, the prompt's oldest, the response's tail."""
    rows, overlong = [], 0
    taken = dict.fromkeys(("prompt", "chosen", "rejected", "alternatives"), 0)
    for prompt, chosen, rejected, _ in lengths:
        longest = max(chosen, rejected)
        path = prompt + (chosen + rejected + separator if conditioned else longest)
        between = separator + 1 if conditioned else 0
        limit = None
        if path > max_length:
            overlong += 1
            new_prompt = min(prompt, max(max_length // 2, max_length - between - longest))
            room = max(2, max_length - between - new_prompt)
            left = max_length - separator - new_prompt
            limit = max(1, left - min(longest, room)) if conditioned else None
            taken["prompt"] += prompt - new_prompt
            taken["chosen"] += max(0, chosen - room)
            taken["rejected"] += max(0, rejected - room)
            taken["alternatives"] += sum(max(0, other - (limit or other)) for other in (chosen, rejected))
            prompt, chosen, rejected = new_prompt, min(chosen, room), min(rejected, room)
        rows.append(PairRow(prompt, chosen, rejected, limit))
    return Overlong(rows=overlong, taken=taken, lengths=rows)
