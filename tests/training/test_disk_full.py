"""A full disk: one error with exit code 4 wherever it is met, no half checkpoint used, and on it goes with room."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from inspo_hub.cli import main
from inspo_hub.errors import RecipeError, TrainingError
from inspo_hub.training import trainer
from inspo_hub.training.disk import full_disk_told, is_disk_full
from inspo_hub.training.records import JsonLines
from tests.training.conftest import Project, make_project
from tests.training.test_runs import assert_same_bits

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def raised_by(action: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - which one it is, is what is tested
        action()
    return raised.value


def full_database(folder: Path) -> None:
    connection = sqlite3.connect(folder / "full.sqlite")
    connection.execute("PRAGMA max_page_count = 4")
    connection.execute("CREATE TABLE t (x BLOB)")
    connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")


@pytest.fixture
def small_files() -> Iterator[None]:
    """A limit on the size of files, which the writers of libraries meet as they meet a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda path: save_file({"x": torch.zeros(300, 300)}, path),
    "torch": lambda path: torch.save(torch.zeros(300, 300), path),
    "Python": lambda path: path.write_bytes(bytes(200_000)),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_what_a_library_says_that_could_not_write_is_understood(
    write: Callable[[Path], object], small_files: None, tmp_path: Path
) -> None:
    assert is_disk_full(raised_by(lambda: write(tmp_path / "file")))


@needs_dev_full
def test_torch_on_a_full_device() -> None:
    assert is_disk_full(raised_by(lambda: torch.save(torch.zeros(1000, 1000), "/dev/full")))


def test_python_and_sqlite_on_a_full_disk(tmp_path: Path) -> None:
    assert is_disk_full(raised_by(no_space))
    assert is_disk_full(raised_by(lambda: full_database(tmp_path)))


def test_an_error_that_came_of_a_full_disk_is_one() -> None:
    def wrapped() -> None:
        try:
            no_space()
        except OSError as error:
            raise RuntimeError("the save failed") from error

    assert is_disk_full(raised_by(wrapped))


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "no"), RuntimeError("shapes"), sqlite3.OperationalError("locked")]
)
def test_other_errors_pass(error: Exception, tmp_path: Path) -> None:
    assert not is_disk_full(error)
    with pytest.raises(type(error)), full_disk_told(tmp_path):
        raise error


def test_the_error_says_where_and_how_much_is_free(tmp_path: Path) -> None:
    with (
        pytest.raises(TrainingError, match="No space left on device") as raised,
        full_disk_told(tmp_path / "not there"),
    ):
        no_space()
    assert raised.value.exit_code == 4
    assert "MB free" in raised.value.expected
    assert "same command" in raised.value.fix


def test_an_error_of_our_own_stays_what_it_is(tmp_path: Path) -> None:
    def wrapped() -> None:
        try:
            no_space()
        except OSError as error:
            raise RecipeError("too long") from error

    with pytest.raises(RecipeError), full_disk_told(tmp_path):
        wrapped()


# --- runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project after one uninterrupted run into `out`; its runs happen in this process."""
    project = make_project(tmp_path_factory.mktemp("full"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSPO_HUB_CACHE", str(project.folder / "cache"))
        assert train(project, "out") == 0
        yield project


def train(project: Project, output: str) -> int:
    return main(["run", str(project.recipe), "--output", str(project.folder / output)])


def at_step(step: int, action: Callable[..., Any]) -> Callable[..., Any]:
    """The action, which finds the disk full at the given step's record and later."""

    def append(self: JsonLines, record: dict[str, Any]) -> None:
        if record["step"] >= step:
            with self.path.open("a", encoding="utf-8") as file:
                file.write('{"step": ')  # what fitted
            no_space()
        action(self, record)

    return append


@pytest.mark.parametrize("place", ["the log", "the seal of a checkpoint", "the final save", "the reference cache"])
def test_the_same_command_goes_on_when_there_is_room_again(
    whole: Project, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = place.replace(" ", "-")
    with monkeypatch.context() as patch:
        if place == "the log":
            patch.setattr(JsonLines, "append", at_step(4, JsonLines.append))
        elif place == "the seal of a checkpoint":
            patch.setattr(trainer, "seal", no_space)
        elif place == "the final save":
            patch.setattr("inspo_hub.training.session.move_into_place", no_space)
        else:
            patch.setenv("INSPO_HUB_CACHE", str(whole.folder / "empty-cache"))
            patch.setattr("inspo_hub.reference.ReferenceCache.put", no_space)
        assert train(whole, output) == 4
    assert "nothing more can be written" in capsys.readouterr().err
    assert not (whole.folder / output / "trained.json").exists()
    assert not (whole.folder / output / "config.json").exists()
    assert train(whole, output) == 0
    folders = [whole.folder / name for name in (output, "out")]
    assert_same_bits(*(load_file(folder / "model.safetensors") for folder in folders))
    assert folders[0].joinpath("metrics.jsonl").read_bytes() == folders[1].joinpath("metrics.jsonl").read_bytes()


SMALL = """\
mount -t tmpfs -o size={size}k tmpfs {folder}
{command}
test $? = 4 || exit 10
ls {folder}/x/trained.json 2> /dev/null && exit 11
mount -o remount,size=100m {folder}
{command} || exit 12
cp -r {folder}/x {kept}
"""


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs -o size=100k tmpfs /mnt"
    return subprocess.run(["unshare", "-rm", "sh", "-c", probe], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="this user may not mount a small file system")
def test_a_disk_that_is_really_full(whole: Project) -> None:
    """1200 kB hold two checkpoints and a part of a third."""
    small, kept = whole.folder / "small", whole.folder / "kept"
    small.mkdir()
    command = " ".join(whole.command(output=f"{small.name}/x"))
    script = SMALL.format(size=1200, folder=small, command=command, kept=kept)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], env=whole.environment(), capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr or "nothing more can be written" in done.stderr
    assert_same_bits(*(load_file(folder / "model.safetensors") for folder in (kept, whole.folder / "out")))
    assert (kept / "metrics.jsonl").read_bytes() == (whole.folder / "out" / "metrics.jsonl").read_bytes()
