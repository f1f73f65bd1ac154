"""Parts of files, and the price list: what is read, what is not, and what a Hub that is away means for it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from inspo_hub import hub as room
from inspo_hub.errors import ResolutionError
from tests.hub_server import Answer, HubServer
from tests.hub_server.api.hardware import HARDWARE

CONTENT = bytes(place % 251 for place in range(3 * room.READ_AHEAD))


@pytest.fixture
def pinned(alice: HubServer) -> room.Pinned:
    repo = alice.unique("data", "bob")
    alice.create_repo(repo, {"big.parquet": CONTENT, "small.txt": b"0123456789"}, type="dataset")
    return room.resolve("dataset", repo)


@pytest.mark.parametrize(
    "span", [(0, 10), (7, 8), (100, 5000), (len(CONTENT) - 3, len(CONTENT) + 50), (10**9, 10**9 + 5)]
)
def test_a_range_is_these_bytes(alice: HubServer, pinned: room.Pinned, span: tuple[int, int]) -> None:
    assert room.read_range(pinned, "big.parquet", *span) == CONTENT[slice(*span)]
    assert room.local_file(pinned, "big.parquet") is None


def test_small_files_that_are_in_git_themselves_have_ranges_too(alice: HubServer, pinned: room.Pinned) -> None:
    assert room.read_range(pinned, "small.txt", 2, 5) == b"234"


def test_what_is_here_is_read_here(alice: HubServer, pinned: room.Pinned, tmp_path: Path) -> None:
    room.fetch(pinned, patterns=["big.parquet"])
    alice.log.clear()
    assert room.read_range(pinned, "big.parquet", 5, 9) == CONTENT[5:9]
    with room.open_file(pinned, "big.parquet", len(CONTENT)) as file:
        assert file.read(3) == CONTENT[:3]
    assert len(alice.log) == 0
    (tmp_path / "x.bin").write_bytes(CONTENT)
    folder, file_itself = (room.resolve("dataset", str(path)) for path in (tmp_path, tmp_path / "x.bin"))
    assert room.read_range(folder, "x.bin", 5, 9) == room.read_range(file_itself, "x.bin", 5, 9) == CONTENT[5:9]


def test_a_remote_file_is_read_like_a_local_one(alice: HubServer, pinned: room.Pinned) -> None:
    with room.open_file(pinned, "big.parquet", len(CONTENT)) as file:
        assert file.seekable()
        assert file.seek(-4, io.SEEK_END) == len(CONTENT) - 4
        assert file.read() == CONTENT[-4:]
        file.seek(10)
        assert file.read(5) + file.read(5) == CONTENT[10:20]
        alice.log.clear()
        assert file.read(100) == CONTENT[20:120]
        assert len(alice.log) == 0, "read ahead"
        assert file.read() == CONTENT[120:]


def test_a_part_that_cannot_be_had_is_told(alice: HubServer, pinned: room.Pinned) -> None:
    with pytest.raises(ResolutionError, match=r"reading a part of none\.parquet failed"):
        room.read_range(pinned, "none.parquet", 0, 10)
    alice.faults.add("GET", "/resolve/", Answer(403, "not for you"))
    with pytest.raises(ResolutionError, match="not for you"):
        room.read_range(pinned, "big.parquet", 0, 10)


# --- prices


def test_the_price_list_is_the_hub_s(alice: HubServer) -> None:
    listed = room.hardware()
    assert listed is not None
    assert [one.name for one in listed] == [one["name"] for one in HARDWARE]
    by_name = {one.name: one for one in listed}
    assert by_name["l40sx8"] == room.Hardware(
        name="l40sx8",
        cpu="192 vCPU",
        ram="1534 GB",
        disk="100 GB",
        usd_per_unit=pytest.approx(23.5 / 60, rel=1e-5),
        unit="minute",
        accelerator="L40S",
        accelerator_type="gpu",
        accelerators=8,
        vram="384 GB",
    )
    assert by_name["cpu-basic"].accelerators == 0


def test_a_hub_that_is_away_has_no_prices_and_no_error(alice: HubServer) -> None:
    from huggingface_hub import get_session

    assert room.hardware() is not None
    before = get_session().timeout
    alice.faults.add("GET", "/api/jobs/hardware", Answer(503), times=9)
    assert room.hardware() is None
    alice.faults.clear()
    alice.stop()
    assert room.hardware() is None
    assert get_session().timeout == before


def test_a_list_of_another_form_is_no_list(alice: HubServer) -> None:
    alice.faults.add("GET", "/api/jobs/hardware", Answer(200))  # {"error": ...} instead of rows
    assert room.hardware() is None
