"""What the real client does when the Hub fails: the table of faults that publishing and loading must survive."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from tests.hub_server import Answer, Corrupt, Cut, Do, Drop, HubServer, RateLimited, Slow
from tests.test_hub_server import WEIGHTS, status_of


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token("alice"))


@pytest.fixture
def repo(hub: HubServer) -> str:
    name = hub.unique("model")
    hub.create_repo(name, {"model.safetensors": WEIGHTS, "config.json": "{}"})
    return name


@pytest.mark.parametrize("status", [403, 409, 500, 503])
def test_a_refused_commit_changes_nothing(hub: HubServer, api: HfApi, repo: str, status: int) -> None:
    rule = hub.faults.add("POST", "/commit/", Answer(status))
    before = hub.head(repo)
    with pytest.raises(HfHubHTTPError) as error:
        api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="config.json")
    assert (status_of(error), hub.head(repo), rule.hits) == (status, before, 1)
    api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="config.json")
    assert hub.files(repo)["config.json"] == b"2"


def test_a_commit_whose_answer_is_lost_was_made(hub: HubServer, api: HfApi, repo: str) -> None:
    hub.faults.add("POST", "/commit/", Drop("after"))
    with pytest.raises(httpx2.RemoteProtocolError):
        api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="config.json")
    assert hub.files(repo)["config.json"] == b"2"
    (entry,) = hub.log.find("POST", "/commit/")
    assert (entry.done, entry.status, entry.faults) == (200, None, ["Drop"])


def test_a_commit_that_was_dropped_before_was_not(hub: HubServer, api: HfApi, repo: str) -> None:
    before = hub.head(repo)
    for when in ("before_body", "before"):
        hub.faults.add("POST", "/commit/", Drop(when))
        with pytest.raises(httpx2.TransportError):
            api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="config.json")
    assert hub.head(repo) == before


def test_both_kinds_of_too_many_requests(hub: HubServer, api: HfApi, repo: str, waits: list[float]) -> None:
    hub.faults.add("POST", "/preupload/", RateLimited(7))
    hub.faults.add("POST", "/preupload/", RateLimited(3, by="retry-after"))
    hub.faults.add("POST", "/preupload/", RateLimited(by="commits"))
    api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="config.json")
    assert waits == [8, 4, 4]  # what the server said and one second; then the client's own third wait
    hub.faults.add("POST", "/commit/", RateLimited(by="commits"))
    with pytest.raises(HfHubHTTPError, match="128 per hour") as error:
        api.upload_file(repo_id=repo, path_or_fileobj=b"3", path_in_repo="config.json")
    assert status_of(error) == 429


@pytest.mark.parametrize("url", ["/preupload/", "/objects/batch", "^/upload/", "/objects/verify"])
@pytest.mark.parametrize("action", [Answer(503), Drop("before"), Drop("before_body", reset=True)], ids=str)
def test_one_failure_on_the_way_in_is_tried_again(
    hub: HubServer, api: HfApi, repo: str, waits: list[float], url: str, action: Answer | Drop
) -> None:
    rule = hub.faults.add("POST|PUT", url, action)
    api.upload_file(repo_id=repo, path_or_fileobj=WEIGHTS[::-1], path_in_repo="model.safetensors")
    assert hub.files(repo)["model.safetensors"] == WEIGHTS[::-1]
    assert (rule.hits, waits) == (1, [1])


def test_a_download_that_is_cut_is_resumed(hub: HubServer, repo: str, tmp_path: Path, waits: list[float]) -> None:
    hub.faults.add("GET", "^/objects/", Cut(1000), origin="cdn")
    found = snapshot_download(repo, revision=hub.head(repo), cache_dir=tmp_path, endpoint=hub.endpoint)
    assert Path(found, "model.safetensors").read_bytes() == WEIGHTS
    assert (hub.log.count("GET", "^/objects/", origin="cdn"), waits) == (2, [1])


def test_a_download_that_is_reset_fails(hub: HubServer, repo: str, tmp_path: Path) -> None:
    hub.faults.add("GET", "^/objects/", Cut(1000, reset=True), origin="cdn")
    with pytest.raises(httpx2.ReadError):
        snapshot_download(repo, revision=hub.head(repo), cache_dir=tmp_path, endpoint=hub.endpoint)
    snapshot_download(repo, revision=hub.head(repo), cache_dir=tmp_path, endpoint=hub.endpoint)


def test_a_wrong_byte_is_believed(hub: HubServer, repo: str, tmp_path: Path) -> None:
    hub.faults.add("GET", "^/objects/", Corrupt(at=5), origin="cdn")
    found = snapshot_download(repo, revision=hub.head(repo), cache_dir=tmp_path, endpoint=hub.endpoint)
    taken = Path(found, "model.safetensors").read_bytes()
    assert [place for place in range(len(WEIGHTS)) if taken[place] != WEIGHTS[place]] == [5]


def test_a_stale_file_is_given_without_an_error(hub: HubServer, api: HfApi, repo: str, tmp_path: Path) -> None:
    old = api.hf_hub_download(repo, "config.json", cache_dir=tmp_path)
    hub.commit(repo, {"config.json": "new"})
    hub.faults.add("HEAD", "/resolve/", Answer(503))
    assert api.hf_hub_download(repo, "config.json", cache_dir=tmp_path) == old
    assert Path(api.hf_hub_download(repo, "config.json", cache_dir=tmp_path)).read_text() == "new"


def test_a_branch_moves_between_two_calls(hub: HubServer, api: HfApi, repo: str, tmp_path: Path) -> None:
    hub.faults.add("HEAD", "/resolve/main/", Do(lambda: hub.commit(repo, {"config.json": "moved"})), skip=1)
    first = Path(api.hf_hub_download(repo, "model.safetensors", cache_dir=tmp_path))
    second = Path(api.hf_hub_download(repo, "config.json", cache_dir=tmp_path))
    assert first.parent != second.parent
    assert second.read_text() == "moved"


def test_slow_answers_and_slow_bytes(hub: HubServer, repo: str) -> None:
    url = f"{hub.endpoint}/{repo}/resolve/main/model.safetensors"
    hub.faults.add("GET", "/resolve/", Slow(seconds=0.3))
    hub.faults.add("GET", "^/objects/", Slow(bytes_per_second=len(WEIGHTS) / 0.3))
    started = time.monotonic()
    assert httpx2.get(url, follow_redirects=True).content == WEIGHTS
    assert 0.6 <= time.monotonic() - started < 3
    hub.faults.add("GET", "/resolve/", Slow(seconds=5))
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(url, timeout=0.1)


def test_the_hub_is_away_also_for_who_is_connected(hub: HubServer, repo: str) -> None:
    with httpx2.Client(base_url=hub.endpoint) as client:
        assert client.get(f"/api/models/{repo}").status_code == 200
        hub.stop()
        with pytest.raises(httpx2.TransportError):
            client.get(f"/api/models/{repo}")
        with pytest.raises(httpx2.ConnectError):
            client.get(f"/api/models/{repo}")
        hub.start()
        assert client.get(f"/api/models/{repo}").status_code == 200


def test_rules_count_skip_and_end(hub: HubServer, repo: str) -> None:
    rule = hub.faults.add("GET", f"/api/models/{repo}$", Answer(500), times=2, skip=1)
    codes = [httpx2.get(f"{hub.endpoint}/api/models/{repo}").status_code for _ in range(5)]
    assert (codes, rule.hits) == ([200, 500, 500, 200, 200], 2)
    forever = hub.faults.add("GET", repo, Answer(500), times=None)
    codes = [httpx2.get(f"{hub.endpoint}/api/models/{repo}").status_code for _ in range(3)]
    hub.faults.remove(forever)
    assert (codes, httpx2.get(f"{hub.endpoint}/api/models/{repo}").status_code) == ([500] * 3, 200)


def test_many_clients_at_once_make_one_history(hub: HubServer, api: HfApi, repo: str) -> None:
    def push(number: int) -> None:
        api.upload_file(repo_id=repo, path_or_fileobj=WEIGHTS[number:], path_in_repo=f"{number}.safetensors")

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"{number}.safetensors": WEIGHTS[number:] for number in range(8)}.items() <= hub.files(repo).items()
    assert len(hub.history(repo)) == 2 + 8
