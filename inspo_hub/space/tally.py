"""What the votes say so far: who wins, with an interval, with length taken out, and by category of prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspo_hub.evaluate import Estimate

WORTH = {"tie": 0.5, "both_bad": 0.5}
REFITS = 200
"""Bootstrap draws of the length-adjusted rate, each of which fits a regression anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The votes of one category, or of all: win rate of the first system, ties and two bad answers half."""

    category: str
    votes: int
    wins: Mapping[str, int]
    """By system, and under `tie` and `both_bad`."""
    win_rate: Estimate | None
    """None without a vote. The interval is a bootstrap over prompts."""
    length_controlled: Estimate | None
    """None where there are too few votes, or all answers are equally long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The standing over all votes that count, by category, and how many do not count."""

    first: str
    second: str
    overall: Standing
    categories: tuple[Standing, ...]
    informed: int
    """Votes that were given after the results had been seen: kept in the data, left out here."""
    failed: int
    """Votes on rounds in which a side had no answer: left out too."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as `/tally` gives them."""
        return {
            "win_rate_of": self.first,
            "against": self.second,
            "overall": _plain(self.overall),
            "categories": [_plain(each) for each in self.categories],
            "not_counted": {"informed": self.informed, "failed": self.failed},
        }


def tally(rows: Sequence[Mapping[str, Any]], names: tuple[str, str], *, resamples: int = 1000) -> Tally:
    """The tally of the votes between two systems; rows about other systems are left out."""
    ours = [row for row in rows if {each["system"] for each in row["answers"]} == set(names)]
    informed = [row for row in ours if row["informed"]]
    rest = [row for row in ours if not row["informed"]]
    counted = [row for row in rest if all(each["state"] != "failed" for each in row["answers"])]
    found = sorted({row["category"] for row in counted})
    return Tally(
        first=names[0],
        second=names[1],
        overall=_standing("all", counted, names, resamples),
        categories=tuple(
            _standing(each, [row for row in counted if row["category"] == each], names, resamples) for each in found
        ),
        informed=len(informed),
        failed=len(rest) - len(counted),
    )


def _standing(category: str, rows: Sequence[Mapping[str, Any]], names: tuple[str, str], resamples: int) -> Standing:
    outcomes = [row["winner"] for row in rows]
    wins = {name: outcomes.count(name) for name in (*names, *WORTH)}
    if not rows:
        return Standing(category=category, votes=0, wins=wins, win_rate=None, length_controlled=None)
    from inspo_hub.evaluate import mean_estimate

    values = [WORTH.get(winner, float(winner == names[0])) for winner in outcomes]
    prompts = [json.dumps(row["prompt"], sort_keys=True) for row in rows]
    return Standing(
        category=category,
        votes=len(rows),
        wins=wins,
        win_rate=mean_estimate(values, prompts, resamples=resamples),
        length_controlled=_length_controlled(rows, values, prompts, names),
    )


def _length_controlled(
    rows: Sequence[Mapping[str, Any]], values: Sequence[float], prompts: Sequence[str], names: tuple[str, str]
) -> Estimate | None:
    """The win rate of the first system at equal length; None where there are too few votes, or nothing to control."""
    from inspo_hub.evaluate.length_control import FEWEST_ROWS, length_controlled_estimate

    if len(rows) < FEWEST_ROWS:
        return None
    lengths = [{each["system"]: len(each["text"]) for each in row["answers"]} for row in rows]
    first, second = ([row[name] for row in lengths] for name in names)
    return length_controlled_estimate(values, first, second, prompts, resamples=REFITS)


def _plain(standing: Standing) -> dict[str, Any]:
    plain = {name: getattr(standing, name) for name in asdict(standing)}
    for name in ("win_rate", "length_controlled"):
        plain[name] = None if plain[name] is None else plain[name].to_dict()
    return plain
