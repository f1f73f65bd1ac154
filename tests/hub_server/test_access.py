"""Who may see and change what, and which cards are taken, as the real client meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server import HubServer
from tests.hub_server.cards import check_card
from tests.test_hub_server import WEIGHTS, post_commit, status_of


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token("alice"))


def test_repositories_are_made_described_moved_and_deleted(hub: HubServer, api: HfApi) -> None:
    name, new = hub.unique("model"), hub.unique("model")
    assert api.create_repo(name).repo_id == name
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(name)
    assert status_of(error) == 409
    assert api.create_repo(name, exist_ok=True).repo_id == name
    api.create_repo(hub.unique("theirs", "acme"))
    with pytest.raises(HfHubHTTPError, match="under the namespace"):
        api.create_repo(hub.unique("theirs", "bob"))
    card = "---\nlicense: mit\nbase_model: a/b\ntags: [dpo]\ndatasets: [c/d]\npipeline_tag: text-generation\n---\n"
    hub.commit(name, {"README.md": card, "model.safetensors": WEIGHTS})
    info = api.model_info(name, files_metadata=True)
    assert info.tags == ["dpo", "text-generation", "license:mit", "base_model:a/b", "dataset:c/d"]
    assert {row.rfilename: row.size for row in info.siblings or []}["model.safetensors"] == len(WEIGHTS)
    assert api.model_info(name, expand=["gated", "sha"]).__dict__.get("tags") is None
    api.update_repo_settings(name, private=True, gated="manual")
    assert (hub.repo(name).private, hub.repo(name).gated) == (True, "manual")
    assert name not in {row.id for row in HfApi(endpoint=hub.endpoint, token=False).list_models(author="alice")}
    api.move_repo(name, new)
    assert api.model_info(name).id == api.model_info(new).id == new
    api.delete_repo(new)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(new)


@pytest.mark.parametrize("who", ["nobody", "read", "bob", "wrong"])
def test_write_access_is_not_what_create_repo_says(hub: HubServer, who: str) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, {"a": "1"})
    tokens = {"nobody": False, "read": hub.token("alice", "read"), "bob": hub.token("bob"), "wrong": "hf_wrong"}
    api = HfApi(endpoint=hub.endpoint, token=tokens[who])
    if who != "wrong":
        api.create_repo(repo, exist_ok=True)  # the trap: no error
        api.auth_check(repo)
    with pytest.raises(HfHubHTTPError) as error:
        api.auth_check(repo, write=True)
    assert status_of(error) == (403 if who in ("read", "bob") else 401)
    with pytest.raises(HfHubHTTPError):
        api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="a")
    assert hub.files(repo) == {"a": b"1"}


def test_private_repositories_do_not_exist_for_others(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, {"a": "1"}, private=True)
    assert api.model_info(repo).private
    for token in (False, hub.token("bob")):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.endpoint, token=token).model_info(repo)
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download(repo, "a", cache_dir=tmp_path, endpoint=hub.endpoint, token=token)


def test_gated_repositories_show_themselves_and_keep_their_files(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    repo = hub.unique("model")
    hub.create_repo(repo, {"a": "1"}, gated="manual")
    bob = HfApi(endpoint=hub.endpoint, token=hub.token("bob"))
    assert bob.model_info(repo).gated == "manual"
    for token, code in ((False, 401), (hub.token("bob"), 403)):
        with pytest.raises(GatedRepoError) as error:
            HfApi(endpoint=hub.endpoint, token=token).auth_check(repo)
        assert status_of(error) == code
    with pytest.raises(GatedRepoError, match=f"Visit {hub.endpoint}/{repo} to ask for access"):
        bob.hf_hub_download(repo, "a", cache_dir=tmp_path)
    api.grant_access(repo, "bob")
    assert [row.username for row in api.list_accepted_access_requests(repo)] == ["bob"]
    assert Path(bob.hf_hub_download(repo, "a", cache_dir=tmp_path)).read_text() == "1"


def test_fine_grained_tokens_do_what_they_name(hub: HubServer) -> None:
    mine, other = hub.unique("model"), hub.unique("model")
    hub.create_repo(mine, {"a": "1"}, private=True)
    hub.create_repo(other, {"a": "1"}, private=True)
    secret = hub.add_token("alice", "fineGrained", {mine: ["repo.content.read", "repo.write"]})
    api = HfApi(endpoint=hub.endpoint, token=secret)
    api.auth_check(mine, write=True)
    api.upload_file(repo_id=mine, path_or_fileobj=b"2", path_in_repo="a")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(other)
    access = api.whoami()["auth"]["accessToken"]
    assert access["role"] == "fineGrained"
    assert access["fineGrained"]["scoped"][0]["entity"]["name"] == mine


def test_what_is_missing_says_so(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    repo = hub.unique("model")
    sha = hub.create_repo(repo, {"a": "1"})
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "b", cache_dir=tmp_path)
    assert list((tmp_path / f"models--{repo.replace('/', '--')}" / ".no_exist" / sha).iterdir())
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, "a", revision="v9", cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.hf_hub_download("alice/never-made", "a", cache_dir=tmp_path)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=hub.endpoint, token="hf_wrong").whoami()


def test_out_of_quota(hub: HubServer) -> None:
    token = hub.add_user("carol", quota_bytes=150_000)
    api, repo = HfApi(endpoint=hub.endpoint, token=token), hub.unique("model", "carol")
    api.create_repo(repo)
    api.upload_file(repo_id=repo, path_or_fileobj=WEIGHTS, path_in_repo="a.safetensors")
    with pytest.raises(HfHubHTTPError, match="storage limit reached") as error:
        api.upload_file(repo_id=repo, path_or_fileobj=WEIGHTS[::-1], path_in_repo="b.safetensors")
    assert status_of(error) == 403


# --- Cards ---

BAD = {
    "model": [
        "base_model: /tmp/out",
        "base_model: ./out",
        "license: apache",
        "language: English",
        "tags: dpo",
        "base_model_relation: child",
        "model-index: [{name: a, results: [{task: {type: b}, dataset: {name: c}, metrics: [{type: d, value: 1}]}]}]",
        "license: mit\nlicense: mit",
        "a: [",
    ],
    "space": ["sdk: gradio\ncolorFrom: orange", "sdk: gradio\nemoji: x", "sdk: shiny", "title: no sdk"],
    "dataset": ["license: nope", "language: [xx, Deutsch]", "tags: {a: b}"],
}


@pytest.mark.parametrize(("kind", "data"), [(kind, data) for kind, rows in BAD.items() for data in rows])
def test_bad_cards_are_refused(hub: HubServer, api: HfApi, kind: str, data: str) -> None:
    repo = hub.unique("card")
    hub.create_repo(repo, type=kind)
    with pytest.raises(ValueError, match="Invalid metadata in"):
        api.upload_file(
            repo_id=repo, repo_type=kind, path_or_fileobj=f"---\n{data}\n---\n".encode(), path_in_repo="README.md"
        )
    assert hub.log.count("POST", "/commit/") == 0
    file = {"key": "file", "value": {"path": "README.md", "content": f"---\n{data}\n---\n"}}
    assert post_commit(hub, f"{kind}s/{repo}", json.dumps(file)).status_code == 400
    assert hub.files(repo, type=kind) == {}


def test_good_cards_are_taken(hub: HubServer, api: HfApi) -> None:
    card = """---
license: apache-2.0
language: [en, nb]
library_name: transformers
pipeline_tag: text-generation
base_model: org/base
base_model_relation: finetune
datasets: [org/data]
tags: [inspo]
model-index:
- name: m
  results:
  - task: {type: text-generation}
    dataset: {type: org/data, name: held out}
    metrics: [{type: accuracy, value: 0.5}]
---
# Title
"""
    ModelCard(card).validate()
    repo = hub.unique("model")
    hub.create_repo(repo)
    api.upload_file(repo_id=repo, path_or_fileobj=card.encode(), path_in_repo="README.md")
    data = api.model_info(repo).card_data
    assert data is not None
    assert (data.language, data.license) == (["en", "nb"], "apache-2.0")
    assert api.model_info(repo).model_index is not None
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(repo_id=repo, path_or_fileobj=b"# no metadata", path_in_repo="README.md")
    with pytest.raises(ValueError, match="license"):
        ModelCard("---\nlicense: nope\n---\n").validate()
    assert check_card("---\nlanguage: no\n---\n", "model") == ([], [])  # YAML 1.2: Norwegian
