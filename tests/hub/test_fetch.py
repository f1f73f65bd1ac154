"""Downloads: only what we use, never a pickle, every byte checked; the identity of weights on disk and on the Hub."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from inspo_hub import hub as room
from inspo_hub.errors import ResolutionError
from inspo_hub.hub.files import check_repo_path
from tests.hub_server import Answer, Corrupt, Cut, Do, HubServer
from tests.hub_server.fixtures import HubProcess
from tests.hub_server.store import Blob

from .conftest import QUICK, model_files, write_files


def test_models_come_without_pickles_code_and_duplicates(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    extra = {
        name: b"x" for name in ("pytorch_model.bin", "modeling_x.py", "consolidated.safetensors", "onnx/model.onnx")
    }
    alice.create_repo(repo, model_files() | extra | {"additional_chat_templates/rag.jinja": b"{{ x }}"})
    pinned = room.resolve("model", repo)
    folder = room.fetch(pinned)
    assert room.fetch(pinned) == folder
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(model_files()) | {"additional_chat_templates/rag.jinja"}
    assert (room.fetch(pinned, code=True) / "modeling_x.py").is_file()


def test_tokenizer_alone_downloads_no_weights(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    folder = room.fetch(room.resolve("model", repo), "tokenizer")
    assert (folder / "tokenizer.json").is_file()
    assert not (folder / "model.safetensors").exists()


def test_pickled_weights_are_refused_before_anything_is_downloaded(alice: HubServer, tmp_path: Path) -> None:
    repo = alice.unique("base", "bob")
    files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    alice.create_repo(repo, files)
    with pytest.raises(ResolutionError, match=r"no safetensors weights, only pytorch_model.bin[\s\S]*refs/pr/1"):
        room.fetch(room.resolve("model", repo))
    with pytest.raises(ResolutionError, match="no safetensors weights"):
        room.fetch(room.resolve("model", str(write_files(tmp_path / "m", files))))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_byte_is_seen_and_fetched_again(alice: HubServer, name: str) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    pinned = room.resolve("model", repo)
    lfs = name == "model.safetensors"
    rule = alice.faults.add("GET", "" if lfs else f"{name}$", Corrupt(at=7), origin="cdn" if lfs else "hub")
    assert (room.fetch(pinned) / name).read_bytes() == model_files()[name]
    assert rule.hits == 1


def test_bytes_that_stay_wrong_are_refused_and_not_kept(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    pinned = room.resolve("model", repo)
    rule = alice.faults.add("GET", "", Corrupt(at=7), origin="cdn", times=None)
    with pytest.raises(ResolutionError, match=r"model.safetensors: the downloaded bytes differ .* twice"):
        room.fetch(pinned)
    alice.faults.remove(rule)
    assert (room.fetch(pinned) / "model.safetensors").read_bytes() == model_files()["model.safetensors"]


def test_a_cached_file_that_rotted_is_fetched_again(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    pinned = room.resolve("model", repo)
    weights = (room.fetch(pinned) / "model.safetensors").resolve()
    before = weights.stat()
    weights.write_bytes(b"\0" * before.st_size)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (room.fetch(pinned) / "model.safetensors").read_bytes() == model_files()["model.safetensors"]


@pytest.mark.parametrize("action", [Cut(1000), Cut(1000, reset=True), Answer(503)])
def test_a_download_that_breaks_is_tried_again(alice: HubServer, action: Cut | Answer) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files(size=100_000))
    rule = alice.faults.add("GET", "", action, origin="cdn", times=1)
    folder = room.fetch(room.resolve("model", repo), patience=QUICK)
    assert (folder / "model.safetensors").read_bytes() == model_files(size=100_000)["model.safetensors"]
    assert rule.hits == 1


def test_datasets_bring_data_and_card_but_no_scripts(alice: HubServer) -> None:
    repo = alice.unique("rows", "bob")
    files = {
        "data/train.jsonl": b"{}\n",
        "data/test.jsonl": b"{}\n",
        "README.md": b"# x",
        "load.py": b"x",
        "a.pkl": b"x",
    }
    alice.create_repo(repo, files, type="dataset")
    pinned = room.resolve("dataset", repo)
    assert [file.path for file in room.wanted_files(pinned)] == ["README.md", "data/test.jsonl", "data/train.jsonl"]
    folder = room.fetch(pinned, patterns=["data/train*"])
    assert (folder / "data/train.jsonl").is_file()
    assert not (folder / "data/test.jsonl").exists()
    with pytest.raises(ResolutionError, match="no file that we can use and that matches"):
        room.fetch(pinned, patterns=["nothing*"])


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "C:\\x", "a\\..\\x", "C:/x", "", "a\0b"])
def test_paths_never_leave_the_folder(path: str) -> None:
    with pytest.raises(ResolutionError, match="leaves the folder of its repository"):
        check_repo_path(path, where="model x")


@pytest.mark.parametrize("path", ["model.safetensors", "a/b/c.json", "..data/x", "a..b"])
def test_ordinary_paths_are_taken(path: str) -> None:
    assert check_repo_path(path, where="model x") == path


def test_weights_are_the_same_on_the_hub_and_on_disk(alice: HubServer, tmp_path: Path) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    folder = write_files(tmp_path / "m", model_files())
    on_hub = room.weights_identity(room.resolve("model", repo))
    assert alice.log.count("GET", origin="cdn") == 0, "weights were downloaded"
    assert on_hub == room.weights_identity(room.resolve("model", str(folder)))
    alice.commit(repo, {"README.md": b"# other card"})
    assert on_hub == room.weights_identity(room.resolve("model", repo)), "a card is no weight"
    alice.commit(repo, {"model.safetensors": b"other"})
    assert on_hub != room.weights_identity(room.resolve("model", repo))
    (folder / "config.json").write_bytes(b'{"hidden_size": 9}')
    assert on_hub != room.weights_identity(room.resolve("model", str(folder)))


def test_hashes_are_those_of_the_hub() -> None:
    hashes = room.bytes_hash(b"hello\n")
    assert hashes.blob_id == "ce013625030ba8dba906f756967f9e9ca394464a"  # `echo hello | git hash-object --stdin`
    assert hashes.sha256 == hashlib.sha256(b"hello\n").hexdigest()


def test_a_hash_is_remembered_only_while_the_file_is_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inspo_hub.hub import fingerprint

    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "SETTLED_NS", -1)
    read: list[Path] = []
    for_real = fingerprint._hash_for_real
    monkeypatch.setattr(fingerprint, "_hash_for_real", lambda path, size: (read.append(path), for_real(path, size))[1])
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"a" * 100)
    first = room.file_hash(file)
    assert room.file_hash(file) == first
    assert len(read) == 1
    stat = file.stat()
    file.write_bytes(b"b" * 100)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and time of change as before
    assert room.file_hash(file).sha256 == hashlib.sha256(b"b" * 100).hexdigest()
    assert len(read) == 2


def test_a_fresh_file_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"a")
    room.file_hash(file)
    assert not (tmp_path / "cache" / "fingerprints").exists()


def test_local_fingerprint_of_folder_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPO_HUB_CACHE", str(tmp_path / "cache"))
    folder = write_files(tmp_path / "d", {"a.jsonl": b"1", "sub/b.jsonl": b"2", ".hidden": b"3", "x.bin": b"4"})
    everything = room.local_fingerprint(folder)
    assert set(everything) == {"a.jsonl", "sub/b.jsonl", "x.bin"}
    assert set(room.local_fingerprint(folder, "dataset")) == {"a.jsonl", "sub/b.jsonl"}
    assert room.local_fingerprint(folder / "a.jsonl") == {"a.jsonl": hashlib.sha256(b"1").hexdigest()}
    assert room.digest(everything) != room.digest(room.local_fingerprint(folder, "dataset"))


def test_main_moves_while_files_are_downloaded(alice: HubServer) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files(1))
    moves = Do(lambda: alice.commit(repo, model_files(2)))
    alice.faults.add("GET", f"/api/models/{repo}/tree/", moves)
    alice.faults.add("GET|HEAD", "/resolve/", Do(lambda: alice.commit(repo, model_files(3))))
    folder = room.fetch(room.resolve("model", repo))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == model_files(1)


def test_a_file_name_that_escapes_is_refused(alice: HubServer, tmp_path: Path) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    alice.history(repo)[0].files["../../evil.json"] = Blob.of(b"{}", lfs=False)
    with pytest.raises(ResolutionError, match=r"'../../evil.json' leaves the folder"):
        room.fetch(room.resolve("model", repo))
    assert not list(tmp_path.rglob("evil.json"))


def test_an_invalid_token_is_told_even_for_public_repositories(
    alice: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = alice.unique("base", "bob")
    alice.create_repo(repo, model_files())
    monkeypatch.setenv("HF_TOKEN", "hf_" + "z" * 34)
    with pytest.raises(ResolutionError, match="check the token with `hf auth whoami`") as said:
        room.resolve("model", repo, patience=QUICK)
    assert "zzzz" not in str(said.value)


def test_what_a_published_run_says_about_itself(alice: HubServer, tmp_path: Path) -> None:
    repo = alice.unique("trained", "alice")
    files = {"recipe.yaml": b"version: 1\n", "lock.json": b"{}", "metrics.jsonl": b"{}\n"}
    sha = alice.create_repo(repo, model_files() | files)
    folder = room.fetch_run(room.resolve("model", repo, sha))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    local = write_files(tmp_path / "out", files)
    assert room.fetch_run(room.resolve("model", str(local))) == local
    alice.commit(repo, {"lock.json": None})
    with pytest.raises(ResolutionError, match=r"there is no lock.json"):
        room.fetch_run(room.resolve("model", repo))


@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_both_storages_in_a_process_of_its_own(hub: HubServer, hub_process: HubProcess, xet: bool) -> None:
    repo = hub.unique("base", "bob")
    hub.create_repo(repo, model_files(size=300_000))
    code = f"""
        import hashlib
        from inspo_hub import hub
        pinned = hub.resolve("model", "{repo}")
        folder = hub.fetch(pinned)
        print(pinned.sha, hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())
    """
    sha, digest = hub_process.run(code, xet=xet).stdout.split()
    assert sha == hub.head(repo)
    assert digest == hashlib.sha256(model_files(size=300_000)["model.safetensors"]).hexdigest()
