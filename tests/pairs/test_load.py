"""Sources on this machine: every kind of file, folder and glob, column maps, limits, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from inspo_hub.errors import DataError, ResolutionError
from inspo_hub.pairs import PairSource
from inspo_hub.pairs.load import content_key
from inspo_hub.pairs.load import load_source as load_by_content

ROWS = [{"prompt": f"question {n}", "chosen": f"good {n}", "rejected": f"bad {n}", "score": n} for n in range(6)]
Write = Callable[..., str]


def load_source(source: PairSource) -> datasets.Dataset:
    return load_by_content(source, content_key(source))


def _parquet(folder: Path) -> str:
    datasets.Dataset.from_list(ROWS).to_parquet(folder / "pairs.parquet")
    return str(folder / "pairs.parquet")


def _jsonl(folder: Path, name: str = "pairs.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(folder / name)


def _gzip(folder: Path) -> str:
    (folder / "pairs.jsonl.gz").write_bytes(gzip.compress(Path(_jsonl(folder)).read_bytes()))
    (folder / "pairs.jsonl").unlink()
    return str(folder / "pairs.jsonl.gz")


def _json(folder: Path) -> str:
    (folder / "pairs.json").write_text(json.dumps(ROWS))
    return str(folder / "pairs.json")


def _csv(folder: Path) -> str:
    datasets.Dataset.from_list(ROWS).to_csv(folder / "pairs.csv")
    return str(folder / "pairs.csv")


def _on_disk(folder: Path) -> str:
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    return str(folder / "saved")


def _dict_on_disk(folder: Path) -> str:
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(folder / "saved")
    return str(folder / "saved")


def _arrow(folder: Path) -> str:
    return str(next(Path(_on_disk(folder)).glob("*.arrow")))


def _folder(folder: Path) -> str:
    (folder / "data").mkdir()
    datasets.Dataset.from_list(ROWS).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return str(folder)


def _snapshot(folder: Path) -> str:
    """A Hub snapshot: named by its commit, links into blobs, configurations in the README."""
    snapshot = folder / "snapshots" / ("ab" * 20)
    (snapshot / "pairs").mkdir(parents=True)
    (folder / "blobs").mkdir()
    datasets.Dataset.from_list(ROWS).to_parquet(folder / "blobs" / "1")
    os.symlink(folder / "blobs" / "1", snapshot / "pairs" / "prefs.parquet")
    (snapshot / "other").mkdir()
    datasets.Dataset.from_list(ROWS[:1]).to_parquet(snapshot / "other" / "more.parquet")
    (snapshot / "README.md").write_text(
        "---\nconfigs:\n- config_name: other\n  data_files: other/*.parquet\n- config_name: default\n"
        "  data_files:\n  - split: train\n    path: pairs/prefs.parquet\n---\n# Pairs\n"
    )
    return str(snapshot)


def _glob(folder: Path) -> str:
    for number in range(2):
        (folder / f"part-{number}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in ROWS[3 * number : 3 * number + 3])
        )
    return str(folder / "part-*.jsonl")


@pytest.mark.parametrize(
    "make", [_parquet, _jsonl, _gzip, _json, _csv, _on_disk, _dict_on_disk, _arrow, _folder, _snapshot, _glob]
)
def test_every_kind_of_source(make: Callable[[Path], str], tmp_path: Path) -> None:
    folder = tmp_path / "data set"
    folder.mkdir()
    rows = load_source(PairSource(id="someone/pairs", local_path=make(folder)))
    assert rows.to_list() == [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in ROWS] or (
        rows.sort("prompt").to_list() == [{k: row[k] for k in ("chosen", "rejected", "prompt")} for row in ROWS]
    )


def test_columns_limit_and_split(write_rows: Write) -> None:
    path = write_rows([{"q": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]} for row in ROWS])
    swapped = PairSource(
        id=path, columns={"prompt": "q", "chosen": "rejected", "rejected": "chosen"}, limit=2, split="test[2:]"
    )
    assert load_source(swapped).to_list() == [
        {"prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]} for row in ROWS[2:4]
    ]


def test_a_null_column_is_left_unread(write_rows: Write) -> None:
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    path = write_rows([{"prompt": "another text", "chosen": said, "rejected": said}])
    assert "prompt" not in load_source(PairSource(id=path, columns={"prompt": None})).column_names


def test_a_recipe_source_is_read_by_its_attributes(write_rows: Write) -> None:
    path = write_rows(ROWS)
    recipe = SimpleNamespace(id="someone/pairs", revision="main", weight=0.5, columns={}, limit=3)
    source = PairSource.of(recipe, local_path=path)
    assert source == PairSource(id="someone/pairs", local_path=path, revision="main", weight=0.5, limit=3)
    assert len(load_source(source)) == 3


@pytest.mark.parametrize(
    ("rows", "options", "what"),
    [
        (ROWS, {"columns": {"prompt": "instruction"}}, "no column 'instruction' among prompt, chosen"),
        (ROWS, {"columns": {"answer": "chosen"}}, "unknown column role 'answer'"),
        (ROWS, {"columns": {"chosen": "rejected"}}, "one column has two roles"),
        ([{"prompt": "a", "chosen": "b"}], {}, "no column 'rejected'"),
        (ROWS, {"split": "test[9:]"}, "corresponds to no data"),
        ([{"instruction": "q", "chosen": "Paris is", "rejected": "Paris was"}], {}, "prompt: instruction"),
        ([{**ROWS[0], "images": ["cat.png"]}], {}, "column 'images' holds images"),
        ([{**ROWS[0], "chosen": "text"}, {**ROWS[1], "chosen": 3}], {"split": "no[1"}, "cannot be read"),
    ],
)
def test_what_is_refused(rows: list, options: dict, what: str, write_rows: Write) -> None:
    with pytest.raises(DataError, match=what.replace("[", r"\[")):
        load_source(PairSource(id=write_rows(rows), **options))


def test_an_image_feature_is_refused_by_its_type(tmp_path: Path) -> None:
    features = datasets.Features(
        {**{name: datasets.Value("string") for name in ("prompt", "chosen", "rejected")}, "photo": datasets.Image()}
    )
    rows = [{"prompt": "p", "chosen": "c", "rejected": "r", "photo": None}]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "photos")
    with pytest.raises(DataError, match="column 'photo' holds images"):
        load_source(PairSource(id=str(tmp_path / "photos")))


def test_a_path_that_is_not_there() -> None:
    with pytest.raises(ResolutionError, match="no file or folder"):
        load_source(PairSource(id="someone/never-downloaded"))


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    path = _folder(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read: .*test_prefs"):
        load_source(PairSource(id="someone/pairs", local_path=path, split="test_prefs"))
    _dict_on_disk(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        load_source(PairSource(id=str(tmp_path / "saved"), split="validation"))


def test_a_configuration_is_read_by_its_name(tmp_path: Path) -> None:
    path = _snapshot(tmp_path)
    assert len(load_source(PairSource(id="someone/pairs", local_path=path, config="other"))) == 1
    with pytest.raises(DataError, match=r"cannot be read: .*'missing'"):
        load_source(PairSource(id="someone/pairs", local_path=path, config="missing"))


def test_no_rows(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).select([]).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="the data set has no rows"):
        load_source(PairSource(id=str(tmp_path / "saved")))
    with pytest.raises(DataError, match="the data set has no rows"):
        load_source(PairSource(id=_jsonl(tmp_path), limit=0))
    datasets.Dataset.from_list(ROWS).select([]).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="corresponds to no data"):
        load_source(PairSource(id=str(tmp_path / "empty.parquet")))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="the data set has no rows") as error:
        load_source(PairSource(id=str(tmp_path / "empty.jsonl")))
    assert error.value.exit_code == 2


def test_files_of_several_kinds_are_refused(tmp_path: Path) -> None:
    _jsonl(tmp_path)
    _parquet(tmp_path)
    with pytest.raises(DataError, match=r"json.*parquet"):
        load_source(PairSource(id=str(tmp_path / "pairs.*")))


def test_a_file_that_was_replaced_within_its_time_is_read_anew(tmp_path: Path) -> None:
    """`datasets` itself goes by path and modification time, and would give the old rows."""
    path = Path(_jsonl(tmp_path))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert load_source(PairSource(id=str(path)))[3]["chosen"] == "good 3"
    path.write_text(path.read_text().replace("good 3", "best 3"))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert load_source(PairSource(id=str(path)))[3]["chosen"] == "best 3"


def test_content_key_follows_content_not_names(tmp_path: Path) -> None:
    path = Path(_jsonl(tmp_path))
    source = PairSource(id=str(path))
    before = content_key(source)
    os.utime(path, (1, 1))
    assert content_key(source) == before
    path.write_text(path.read_text().replace("good 3", "best 3"))
    assert content_key(source) != before
    assert content_key(PairSource(id=str(path), limit=2)) != content_key(source)
    snapshot = PairSource(id="someone/pairs", local_path=_snapshot(tmp_path))
    key = content_key(snapshot)
    (tmp_path / "blobs" / "1").unlink()  # a snapshot is known by its commit, and not read through again
    assert content_key(snapshot) == key
