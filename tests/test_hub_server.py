"""The test Hub answers the real clients as the production Hub would."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from tests.hub_server import HubServer


def test_upload_and_download(hub: HubServer, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.token("alice"))
    repo = hub.unique("model")
    api.create_repo(repo, private=True)
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "model.safetensors").write_bytes(bytes(range(256)) * 400)
    (source / "sub" / "config.json").write_text('{"a": 1}')
    commit = api.upload_folder(repo_id=repo, folder_path=source)
    found = snapshot_download(
        repo, revision=commit.oid, cache_dir=tmp_path / "cache", endpoint=hub.endpoint, token=hub.token("alice")
    )
    names = ["model.safetensors", "sub/config.json"]
    assert {name: (Path(found) / name).read_bytes() for name in names} == hub.files(repo)
    assert hub.log.count("GET", "^/objects/", origin="cdn") == 1
