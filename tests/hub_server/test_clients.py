"""Real clients, mostly in processes of their own: transformers, datasets, `hf`, and the watch over their traffic."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.hub_server import Corrupt, Do, Drop, HubServer
from tests.hub_server.fixtures import HubProcess
from tests.hub_server.process import traffic_of


@pytest.fixture
def llama(hub: HubServer, tmp_path: Path) -> str:
    """A tiny Llama with a tokenizer, in a private repository of alice."""
    tokenizers = pytest.importorskip("tokenizers")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    words = {"[UNK]": 0, "[EOS]": 1, "hello": 2, "world": 3}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    source = tmp_path / "llama"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", eos_token="[EOS]"
    ).save_pretrained(source)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=4, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.LlamaForCausalLM(config).save_pretrained(source)
    repo = hub.unique("llama")
    hub.create_repo(repo, {path.name: path.read_bytes() for path in source.iterdir()}, private=True)
    return repo


@pytest.mark.slow
def test_transformers_loads_by_commit(hub: HubServer, hub_process: HubProcess, llama: str) -> None:
    sha = hub.head(llama)
    config = json.loads(hub.files(llama)["config.json"]) | {"hidden_size": 16}
    hub.commit(llama, {"config.json": json.dumps(config), "model.safetensors": b"not weights"})
    code = f"""
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        at = dict(revision={sha!r})
        config = AutoConfig.from_pretrained({llama!r}, **at)
        tokenizer = AutoTokenizer.from_pretrained({llama!r}, **at)
        model = AutoModelForCausalLM.from_pretrained({llama!r}, **at)
        print(config.hidden_size, tokenizer("hello world").input_ids, model.num_parameters())
    """
    assert hub_process.run(code, token=hub.token("alice")).stdout.startswith("8 [2, 3] ")
    asked = [entry for entry in hub.log if entry.origin == "hub" and "harnesses" not in entry.url]
    assert {entry.token for entry in asked} == {"alice:write"}


def test_transformers_in_this_process(hub: HubServer, llama: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    with pytest.raises(OSError, match="is not a valid model identifier"):
        AutoModelForCausalLM.from_pretrained(llama, cache_dir=tmp_path / "cache")
    at = {"revision": hub.head(llama), "token": hub.token("alice"), "cache_dir": tmp_path / "cache"}
    assert AutoModelForCausalLM.from_pretrained(llama, **at).num_parameters() > 0


def test_datasets_loads_a_pinned_snapshot(hub: HubServer, hub_process: HubProcess) -> None:
    pytest.importorskip("datasets")
    repo = hub.unique("pairs")
    rows = "".join(json.dumps({"prompt": f"p{n}", "chosen": "c", "rejected": "r"}) + "\n" for n in range(3))
    card = "---\nconfigs:\n- config_name: default\n  data_files: train.jsonl\n---\n"
    sha = hub.create_repo(repo, {"train.jsonl": rows, "README.md": card}, type="dataset")
    hub.commit(repo, {"train.jsonl": rows.splitlines()[0]}, type="dataset")
    done = hub_process.run(
        f"""
        from datasets import load_dataset
        from huggingface_hub import snapshot_download
        folder = snapshot_download({repo!r}, repo_type="dataset", revision={sha!r})
        print(load_dataset(folder, split="train")["prompt"][:])
        print(len(load_dataset({repo!r}, revision={sha!r}, split="train")))
        """
    )
    assert done.stdout.splitlines() == ["['p0', 'p1', 'p2']", "3"]


def test_the_command_line_uploads_and_downloads(hub: HubServer, hub_process: HubProcess, tmp_path: Path) -> None:
    repo = hub.unique("model")
    (tmp_path / "config.json").write_text("{}")
    hf = ["-m", "huggingface_hub.cli.hf"]
    hub_process.run([*hf, "upload", repo, str(tmp_path / "config.json"), "--private"], token=hub.token("alice"))
    assert (hub.files(repo), hub.repo(repo).private) == ({"config.json": b"{}"}, True)
    hub_process.run([*hf, "download", repo, "--local-dir", str(tmp_path / "out")], token=hub.token("alice"))
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    hub.repo(repo).private = False
    assert (
        repo in hub_process.run([*hf, "models", "ls", "--author", "alice", "--limit", "1000", "--no-truncate"]).stdout
    )


def test_a_process_killed_in_the_middle_of_its_upload(hub: HubServer, hub_process: HubProcess) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo)
    code = f"""
        from huggingface_hub import HfApi
        HfApi().upload_file(repo_id={repo!r}, path_or_fileobj=bytes(100_000), path_in_repo="model.safetensors")
    """
    running: list[subprocess.Popen[str]] = []
    hub.faults.add("PUT", "^/upload/", Do(lambda: running[0].kill(), when="before_body"))
    running.append(hub_process.start(code, token=hub.token("alice")))
    running[0].communicate(timeout=60)
    assert running[0].returncode < 0
    assert hub.files(repo) == {}
    hub_process.run(code, token=hub.token("alice"))
    assert hub.files(repo) == {"model.safetensors": bytes(100_000)}


def test_traffic_to_elsewhere_is_seen_even_if_it_is_swallowed(hub: HubServer, hub_process: HubProcess) -> None:
    code = """
        import socket
        for attempt in (
            lambda: socket.socket().connect(("192.0.2.1", 80)),
            lambda: socket.getaddrinfo("huggingface.co", 443),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
        ):
            try:
                attempt()
            except Exception as error:
                print(type(error).__name__)
    """
    home = hub_process.fresh_home("watched")
    with pytest.raises(AssertionError, match=r"traffic left the machine.*192\.0\.2\.1"):
        hub_process.run(code, home=home)
    assert traffic_of(home) == [
        "socket.connect ('192.0.2.1', 80)",
        "socket.getaddrinfo 'huggingface.co'",
        "socket.sendto ('192.0.2.1', 53)",
    ]


def test_xet_is_used_both_ways(hub: HubServer, hub_process: HubProcess) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, private=True)
    code = f"""
        import os, pathlib, random
        from huggingface_hub import HfApi, snapshot_download
        random.seed(0)
        here = pathlib.Path("out")
        here.mkdir()
        (here / "random.safetensors").write_bytes(random.randbytes(700_000))
        (here / "text.bin").write_bytes(b"the same words " * 40_000)
        (here / "floats.npy").write_bytes(b"".join((1000 + n).to_bytes(4, "little") for n in range(70_000)) + b"x")
        (here / "config.json").write_text("{{}}")
        sha = HfApi().upload_folder(repo_id={repo!r}, folder_path=here).oid
        back = pathlib.Path(snapshot_download({repo!r}, revision=sha))
        for file in here.iterdir():
            assert file.read_bytes() == (back / file.name).read_bytes(), file
        print(sha)
    """
    done = hub_process.run(code, token=hub.token("alice"), xet=True)
    assert done.stdout.split() == [hub.head(repo)]
    assert hub.files(repo)["text.bin"] == b"the same words " * 40_000
    assert hub.log.count("POST", "^/v1/xorbs/", origin="cas") > 0
    assert hub.log.count("GET", "^/xorbs/", origin="cdn") > 0
    assert hub.log.count("", "lfs/objects|^/objects/|^/upload/") == 0
    schemes = {chunk.scheme for xorb in hub.xorbs.values() for chunk in xorb.chunks}
    assert schemes == {0, 1, 2}  # as it is, LZ4, and LZ4 of bytes grouped by their place
    # A wrong byte is noticed, other than by LFS, and fetched again; a lost answer of the storage is asked for again.
    hub.log.clear()
    wrong = hub.faults.add("GET", "^/xorbs/", Corrupt(at=1000), origin="cdn")
    lost = hub.faults.add("GET", "^/v1/reconstructions/", Drop("after"), origin="cas")
    code = f"""
        from huggingface_hub import hf_hub_download
        print(open(hf_hub_download({repo!r}, "text.bin"), "rb").read() == b"the same words " * 40_000)
    """
    home = hub_process.fresh_home("another machine")
    assert hub_process.run(code, token=hub.token("alice"), xet=True, home=home).stdout.split() == ["True"]
    assert (wrong.hits, lost.hits) == (1, 1)


def test_with_xet_a_lost_answer_makes_a_second_empty_commit(hub: HubServer, hub_process: HubProcess) -> None:
    repo, votes = hub.unique("model"), hub.unique("votes")
    hub.create_repo(repo)
    hub.faults.add("POST", f"{repo}/commit/", Drop("after"))
    code = f"""
        import io, pathlib
        from huggingface_hub import CommitScheduler, HfApi
        here = pathlib.Path("out")
        here.mkdir()
        (here / "model.safetensors").write_bytes(bytes(range(256)) * 100)
        HfApi().upload_folder(repo_id={repo!r}, folder_path=here, commit_message="once")
        HfApi().upload_file(repo_id={repo!r}, path_or_fileobj=io.BytesIO(b"by LFS" * 99), path_in_repo="b.bin")
        folder = pathlib.Path("votes")
        with CommitScheduler(repo_id={votes!r}, repo_type="dataset", folder_path=folder, every=60) as scheduler:
            with scheduler.lock:
                (folder / "votes.jsonl").write_text("{{}}")
    """
    hub_process.run(code, token=hub.token("alice"), xet=True)
    first, second, file, *_ = list(reversed(hub.history(repo)))[1:]
    assert (first.title, second.title, first.files) == ("once", "once", second.files)
    assert file.files["b.bin"].content == b"by LFS" * 99
    assert hub.log.count("POST", "lfs/objects/batch") == 1  # file objects go by LFS even with Xet
    assert hub.files(votes, type="dataset") == {"votes.jsonl": b"{}"}
