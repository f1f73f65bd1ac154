"""Rows and row counts of data sets on the Hub, from parts of their files."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inspo_hub import hub as room
from inspo_hub.errors import DataError
from inspo_hub.recipe import DataSource
from inspo_hub.survey.files import names_of_split, rows_of_parts, split_files
from tests.hub.conftest import alice, write_files
from tests.hub_server.server import HubServer

__all__ = ["alice"]


def make_rows(count: int, *, words: int = 40, seed: int = 0) -> list[dict[str, str]]:
    draw = random.Random(seed)

    def text() -> str:
        return " ".join(f"w{draw.randrange(10**6)}" for _ in range(words))

    return [{"prompt": f"row {n} {text()}", "chosen": text(), "rejected": text()} for n in range(count)]


def parquet(rows: list[dict[str, str]], group: int = 100) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=group, compression="none")
    return buffer.getvalue()


def jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def publish(server: HubServer, files: Mapping[str, bytes]) -> room.Pinned:
    repo = server.unique("data", "bob")
    server.create_repo(repo, files, type="dataset")
    return room.resolve("dataset", repo)


def source(**keys: Any) -> DataSource:
    return DataSource(id="bob/data", **keys)


@pytest.mark.parametrize("shards", [1, 3])
def test_parquet_rows_are_counted_by_footers_and_taken_from_all_over(alice: HubServer, shards: int) -> None:
    rows = make_rows(2400, words=200)
    size = len(rows) // shards
    files = {
        f"data/train-{n:05d}-of-{shards:05d}.parquet": parquet(rows[n * size : (n + 1) * size]) for n in range(shards)
    }
    pinned = publish(alice, {**files, "data/test-00000-of-00001.parquet": parquet(rows[:7])})
    total = sum(map(len, files.values()))
    alice.log.clear()
    found = rows_of_parts(pinned, source(), 64)
    assert (found.total, found.known, len(found.rows)) == (2400, True, 64)
    numbers = [int(row["prompt"].split()[1]) for row in found.rows]
    assert len({number // 300 for number in numbers}) == 8, "from eight places"
    assert all(rows[number] == row for number, row in zip(numbers, found.rows, strict=True))
    assert transferred(alice) < 0.75 * total
    assert rows_of_parts(pinned, source(split="test"), 64).total == 7


def transferred(server: HubServer) -> int:
    """Bytes that ranges asked for."""
    spans = [entry.headers["range"].removeprefix("bytes=").split("-") for entry in server.log if entry.origin == "cdn"]
    return sum(int(last) - int(first) + 1 for first, last in spans)


def test_a_limit_is_of_the_first_rows(alice: HubServer) -> None:
    pinned = publish(alice, {"train.parquet": parquet(make_rows(1000)), "x.md": b""})
    found = rows_of_parts(pinned, source(limit=150), 64)
    assert found.total == 150
    assert max(int(row["prompt"].split()[1]) for row in found.rows) < 200
    lines = publish(alice, {"train.jsonl": jsonl(make_rows(1000))})
    found = rows_of_parts(lines, source(limit=150), 64)
    assert (found.total, [row["prompt"].split()[1] for row in found.rows[:3]]) == (150, ["0", "1", "2"])


def test_jsonl_rows_are_estimated_from_stretches(alice: HubServer) -> None:
    rows = make_rows(6000, words=100)
    half = {"train-0.jsonl": jsonl(rows[:3000]), "train-1.jsonl": jsonl(rows[3000:])}
    pinned = publish(alice, half)
    alice.log.clear()
    found = rows_of_parts(pinned, source(), 200)
    assert not found.known
    assert found.total == pytest.approx(6000, rel=0.03)
    numbers = [int(row["prompt"].split()[1]) for row in found.rows]
    assert max(numbers) > 5000
    assert all(rows[number] == row for number, row in zip(numbers, found.rows, strict=True))
    assert transferred(alice) < sum(map(len, half.values())) / 2


def test_a_line_that_is_no_row_is_told(alice: HubServer) -> None:
    for content in (b"{\n" * 3, b"[1]\n" * 3):
        with pytest.raises(DataError, match=r"no JSON|no row"):
            rows_of_parts(publish(alice, {"train.jsonl": content}), source(), 10)


@pytest.mark.parametrize("name", ["train.csv", "train.json", "train.jsonl.gz"])
def test_other_files_only_tell_as_a_whole(alice: HubServer, name: str) -> None:
    assert rows_of_parts(publish(alice, {name: b"x"}), source(), 10) is None
    assert rows_of_parts(publish(alice, {"train.jsonl": b"x" * 10**6}), source(), 10) is None, "lines too long"


CARD = """\
---
configs:
- config_name: plain
  default: true
  data_files:
  - split: train
    path: plain/part-*.jsonl
  - split: test
    path: [plain/held.jsonl, "**/more/*.jsonl"]
- config_name: other
  data_dir: other
  data_files: "*.jsonl"
---
"""
FILES = ("plain/part-1.jsonl", "plain/part-2.jsonl", "plain/held.jsonl", "a/b/more/x.jsonl", "other/y.jsonl")


@pytest.mark.parametrize(("config", "split"), [(None, "train"), ("plain", "test"), ("other", "train")])
def test_splits_are_those_that_datasets_finds(alice: HubServer, tmp_path: Path, config: str | None, split: str) -> None:
    rows = {name: make_rows(number + 1, words=2, seed=number) for number, name in enumerate(FILES)}
    contents = {name: jsonl(lines) for name, lines in rows.items()}
    pinned = publish(alice, {**contents, "README.md": CARD.encode()})
    write_files(tmp_path / "same", {**contents, "README.md": CARD.encode()})
    theirs = datasets.load_dataset(str(tmp_path / "same"), config, split=split, cache_dir=str(tmp_path / "cache"))
    ours = [row for file in split_files(pinned, config, split) for row in rows[file.path]]
    assert sorted(row["prompt"] for row in ours) == sorted(theirs["prompt"])


@pytest.mark.parametrize("split", ["train", "test", "validation"])
@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train/a.parquet", "dev/b.parquet", "test/c.parquet"),
        ("my_train_file.parquet", "eval.parquet"),
        ("rows.parquet", "more.parquet"),
    ],
)
def test_splits_without_a_card_go_by_names(tmp_path: Path, names: tuple[str, ...], split: str) -> None:
    for number, name in enumerate(names):
        write_files(tmp_path / "d", {name: parquet(make_rows(number + 1, words=1))})
    builder = datasets.load_dataset_builder(str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))
    theirs = {Path(file).relative_to(tmp_path / "d").as_posix() for file in builder.config.data_files.get(split, [])}
    assert set(names_of_split(names, split)) == theirs


def test_what_is_unclear_is_left_to_whole_files(alice: HubServer) -> None:
    pinned = publish(alice, {"train.parquet": parquet(make_rows(3))})
    assert rows_of_parts(pinned, source(config="sub"), 10) is None
    assert rows_of_parts(pinned, source(split="train[:50%]"), 10) is None
    assert rows_of_parts(pinned, source(split="nothing"), 10) is None
