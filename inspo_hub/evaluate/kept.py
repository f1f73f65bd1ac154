"""Answers of a model, kept row by row: a generation that was cut off goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from inspo_hub.evaluate.calls import CallCache, call_key

if TYPE_CHECKING:
    from inspo_hub.evaluate.generation import Row, Sampling


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """Answers of one model, kept row by row, so that a run that was cut off generates only what is missing."""

    cache: CallCache
    model: str
    """The identity of its weights and of how it computes."""

    def known(self, rows: Sequence[Row], sampling: Sampling, stops: Sequence[int]) -> dict[int, list[int]]:
        """Number of a row -> its response ids, of the rows that were answered before."""
        found = {index: self.cache.get(self._key(row, sampling, stops)) for index, row in enumerate(rows)}
        return {index: answer["ids"] for index, answer in found.items() if answer is not None}

    def keep(
        self, made: Mapping[int, list[int]], rows: Sequence[Row], sampling: Sampling, stops: Sequence[int]
    ) -> None:
        self.cache.put_all({self._key(rows[index], sampling, stops): {"ids": ids} for index, ids in made.items()})

    def _key(self, row: Row, sampling: Sampling, stops: Sequence[int]) -> str:
        prompt, sample, prompt_ids = row
        settings = {**asdict(sampling), "samples_per_prompt": 1}  # sample by sample, whatever their number
        return call_key(
            model=self.model, prompt=prompt.text, ids=prompt_ids, sample=sample, stops=list(stops), **settings
        )
