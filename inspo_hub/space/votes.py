"""Votes as rows: every one as it was given, and the decided ones as preference pairs that a recipe trains on.

A row is on this machine's disk before the visitor hears of it. Nothing in it says who voted.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub.space.rounds import SIDES, Round

if TYPE_CHECKING:
    from inspo_hub.space.config import SpaceConfig

VOTES, PAIRS = "votes", "pairs"
"""Folders of the dataset: every vote; and what can be trained on."""
Row = dict[str, Any]


def vote_row(round: Round, config: SpaceConfig, now: datetime) -> Row:
    """The whole vote. A field has one type, whatever the systems are called: files of several Spaces go together."""
    return {
        "round": round.id,
        "time": _text(now),
        "winner": round.winner,
        "prompt": [dict(message) for message in round.conversation],
        "category": round.category,
        "row": round.row,
        "informed": round.informed,
        "answers": [
            {
                "side": side,
                "system": round.sides[side],
                "weights": config.system(round.sides[side]).identity,
                "text": piece.text,
                "tokens": piece.tokens,
                "state": piece.state,
            }
            for side, piece in ((side, round.piece(side)) for side in SIDES)
        ],
        "sampling": round.sampling.model_dump(),
    }


def pair_row(round: Round, config: SpaceConfig, now: datetime) -> Row | None:
    """The vote in the training schema; None for a tie, for two bad answers, and where a side has no answer."""
    winner = round.winner
    if winner not in round.answers or not all(piece.usable for piece in round.answers.values()):
        return None
    loser = next(name for name in round.answers if name != winner)
    if round.answers[winner].text == round.answers[loser].text:
        return None
    return {
        "prompt": [dict(message) for message in round.conversation],
        "chosen": [{"role": "assistant", "content": round.answers[winner].text}],
        "rejected": [{"role": "assistant", "content": round.answers[loser].text}],
        "chosen_model": {"system": winner, "weights": config.system(winner).identity},
        "rejected_model": {"system": loser, "weights": config.system(loser).identity},
        "finished": all(piece.state == "finished" for piece in round.answers.values()),
        "category": round.category,
        "sampling": round.sampling.model_dump(),
        "time": _text(now),
        "round": round.id,
    }


def _text(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class VoteStore:
    """Appends rows to files of this process below a folder, which a commit scheduler may push as it stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = f"{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(4)}.jsonl"
        self._files = {kind: folder / kind / name for kind in (VOTES, PAIRS)}
        self._lock = threading.Lock()
        for file in folder.glob("*/*.jsonl"):
            _drop_unfinished_line(file)
        self._rows: dict[str, Row] = {}
        self.learn(row for file in sorted((folder / VOTES).glob("*.jsonl")) for row in read_rows(file))

    def add(self, vote: Row, pair: Row | None) -> None:
        """Writes one vote. The pair is written first: a kill between them loses a vote of the tally, and no pair twice.

        Raises:
            OSError: the disk does not take it; the vote is not counted then.
        """
        with self._lock:
            if pair is not None:
                _append(self._files[PAIRS], pair)
            _append(self._files[VOTES], vote)
            self._rows[vote["round"]] = vote

    def learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Counts votes that other processes wrote; each once."""
        with self._lock:
            for row in rows:
                self._rows.setdefault(row["round"], dict(row))

    @property
    def rows(self) -> list[Row]:
        """Every known vote."""
        with self._lock:
            return list(self._rows.values())


def read_rows(file: Path) -> list[Row]:
    """The rows of a jsonl file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]


def _append(file: Path, row: Row) -> None:
    """One write of one whole line, on the disk when this returns: a reader never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(handle).st_size
        written = os.write(handle, line)
        if written < len(line):  # a disk that has become full takes what fits
            os.ftruncate(handle, before)
            raise OSError(f"{file}: only {written} of {len(line)} bytes could be written")
        os.fsync(handle)
    finally:
        os.close(handle)


def _drop_unfinished_line(file: Path) -> None:
    """Cuts off what a machine that died in the middle of a write left behind the last whole line."""
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        file.write_bytes(content[: content.rfind(b"\n") + 1])


def dataset_card(config: SpaceConfig) -> str:
    """README.md of the votes' dataset: two configurations, and what their columns are."""
    from inspo_hub.recipe.writing import write_yaml

    data = {
        "pretty_name": f"Votes: {' and '.join(config.names)}",
        "task_categories": ["text-generation"],
        "tags": ["inspo_hub", "preference-optimization", "human-feedback"],
        "configs": [
            {"config_name": PAIRS, "data_files": f"{PAIRS}/*.jsonl", "default": True},
            {"config_name": VOTES, "data_files": f"{VOTES}/*.jsonl"},
        ],
    }
    systems = "\n".join(f"- `{each.name}`: {each.identity or 'unknown weights'}" for each in config.systems)
    return f"---\n{write_yaml(data)}---\n{_CARD.format(systems=systems)}"


_CARD = """
# Votes of visitors on two blind answers

{systems}

- `pairs`: `prompt`, `chosen` and `rejected` as messages, with the models' commits, the sampling and the time. Ties and
  pairs of two bad answers are not in it. `recipes/from_votes.yaml` of inspo_hub trains on it.
- `votes`: every vote with both answers and the side each was shown on; `winner` is a system, `tie` or `both_bad`;
  `informed` votes were given after the results had been seen.

There is no personal data in the rows: no address, no account, no session. Prompts are what visitors typed.
"""
