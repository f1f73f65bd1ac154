"""Killed at the worst moments, with and without Xet: the next process finishes what the spool holds, once."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.hub_server import Do, HubServer
from tests.hub_server.fixtures import HubProcess

from .conftest import CARD, final, save_files

RUN = """
    import sys, time
    from pathlib import Path
    from inspo_hub.publish import Publisher, PublishSettings, spool_of

    output = Path("output")
    publisher = Publisher(PublishSettings(interval_s=0, wait_s=30), sys.argv[1], spool_of(output))
    publisher.submit(output, 20, "final")
    print("complete", publisher.finish().complete)
"""
FINISH = """
    import json
    from pathlib import Path
    from inspo_hub.publish import publish_output

    print(json.dumps(publish_output(Path("output"), timeout=30).to_dict()))
"""
SLOW = pytest.mark.slow
MOMENTS = [
    pytest.param(False, ("PUT", ""), "before", id="lfs-in-the-middle-of-the-bytes", marks=SLOW),
    pytest.param(False, ("POST", "/commit/"), "after", id="lfs-commit-done-answer-lost"),
    pytest.param(True, ("POST", "/xorbs/"), "before", id="xet-in-the-middle-of-the-bytes"),
    pytest.param(True, ("POST", "/commit/"), "before", id="xet-before-the-commit", marks=SLOW),
    pytest.param(True, ("POST", "/commit/"), "after", id="xet-commit-done-answer-lost", marks=SLOW),
]


@pytest.mark.parametrize(("xet", "request_", "when"), MOMENTS)
def test_killed_while_pushing_and_finished_later(
    hub: HubServer, hub_process: HubProcess, xet: bool, request_: tuple[str, str], when: str
) -> None:
    token, repo = hub.add_token("alice"), hub.unique("trained", "alice")
    hub.create_repo(repo, private=True)
    final(hub_process.home, 20)
    process = None

    def kill() -> None:
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait()

    rule = hub.faults.add(*request_, Do(kill, when))  # type: ignore[arg-type]
    process = hub_process.start(["-c", _dedent(RUN), repo], token=token, xet=xet)
    said, _ = process.communicate(timeout=60)
    assert rule.hits == 1, said
    assert process.returncode == -signal.SIGKILL
    assert "complete" not in said
    assert _snapshots(hub_process.home), "what was frozen is still there"
    finished = json.loads(hub_process.run(FINISH, token=token, xet=xet).stdout.splitlines()[-1])
    assert finished["complete"], finished
    assert hub.files(repo)["model.safetensors"] == save_files(20)["model.safetensors"]
    assert hub.files(repo)["README.md"] == CARD
    titles = [commit.title for commit in hub.history(repo)]
    assert titles == ["Model card", "Model after step 20", "initial commit"], "nothing is committed twice"
    assert not _snapshots(hub_process.home)
    assert token not in "".join(path.read_text() for path in (hub_process.home / "output/.publish").glob("*.json"))


def _snapshots(home: Path) -> list[Path]:
    return [path for path in (home / "output/.publish").iterdir() if path.is_dir()]


def _dedent(code: str) -> str:
    import textwrap

    return textwrap.dedent(code)
