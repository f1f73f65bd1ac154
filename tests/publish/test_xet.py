"""The publisher by Xet, which fails in other ways than LFS; in processes, as the client reads its mode once."""

from __future__ import annotations

import json

import pytest

from tests.hub_server import Answer, Drop, HubServer
from tests.hub_server.fixtures import HubProcess

from .conftest import final, save_files

RUN = """
    import json, sys
    from pathlib import Path
    from inspo_hub.hub import Patience
    from inspo_hub.publish import Publisher, PublishSettings, spool_of

    output = Path("output")
    settings = PublishSettings(interval_s=0, wait_s=40, patience=Patience(attempts=4, base_s=0.1, ceiling_s=0.2))
    publisher = Publisher(settings, "REPO", spool_of(output))
    publisher.submit(output, 20, "final")
    print(json.dumps(publisher.finish().to_dict()))
"""


@pytest.mark.parametrize(
    ("method", "url", "action", "reason"),
    [
        ("", "nothing", Answer(500), ""),
        pytest.param("GET", "xet-write-token", Answer(503), "", marks=pytest.mark.slow),
        pytest.param("POST", "/shards", Answer(500), "", marks=pytest.mark.slow),
        ("POST", "/commit/", Drop("after"), ""),
        ("GET", "xet-write-token", Answer(403, "no bytes today"), "403"),
        ("POST", "/commit/", Answer(403, "no commits today"), "no commits today"),
    ],
    ids=["undisturbed", "token-busy", "shard-busy", "answer-lost", "token-refused", "commits-refused"],
)
def test_publishing_by_xet(
    hub: HubServer, hub_process: HubProcess, method: str, url: str, action: Answer, reason: str
) -> None:
    """Passing trouble passes; what is refused for good is told, with the Hub's reason."""
    token, repo = hub.add_token("alice"), hub.unique("trained", "alice")
    hub.create_repo(repo, private=True)
    final(hub_process.home, 20)
    hub.faults.add(method, url, action, times=None if reason else 1)
    done = hub_process.run(RUN.replace("REPO", repo), token=token, xet=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert hub.log.count("GET", "xet-write-token"), "the bytes went by Xet"
    assert result["complete"] is not bool(reason), result
    if reason:
        assert reason in result["missing"][0]["reason"]
        assert hub.files(repo) == {}
    else:
        assert hub.files(repo)["model.safetensors"] == save_files(20)["model.safetensors"]
        assert len(hub.history(repo)) == 3
    assert token not in done.stdout + done.stderr
