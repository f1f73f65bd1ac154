"""The publisher against a Hub that refuses, drops, limits and is slow: what is lost, what is told, what goes on."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from inspo_hub.errors import PublishError
from inspo_hub.hub import Patience
from inspo_hub.publish import PublishResult, PublishSettings, publish_output, repositories, repository_of
from tests.hub_server import Answer, Do, Drop, HubServer, RateLimited
from tests.hub_server.store import Blob

from ..hub.conftest import write_files
from .conftest import BIG, CARD, QUICK, MakePublisher, checkpoint, final, save_files


def told(result: PublishResult) -> dict[str, int]:
    return {each.what: each.step for each in result.published}


def test_saves_and_result_reach_the_hub_verified(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    publisher = make_publisher(repo)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    publisher.submit(final(tmp_path, 20), 20, "final")
    result = publisher.finish()
    assert result.complete
    assert result.exit_code == 0
    assert told(result) == {"weights": 20, "card": 20}
    expected = save_files(20) | {"README.md": CARD, "lock.json": b"{}", "metrics.jsonl": b"{}\n"}
    assert alice.files(repo) == expected | {"report/curves.svg": b"<svg/>"}
    shas = {each.what: each.sha for each in result.published}
    assert shas["card"] == alice.head(repo)
    assert alice.history(repo)[0].title == "Model card", "the card comes last"
    assert not [path for path in (tmp_path / "spool").iterdir() if path.is_dir()], "snapshots that are done are removed"


def test_strategies(alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher) -> None:
    ends = make_publisher(repo, tmp_path / "a", strategy="end")
    ends.submit(checkpoint(tmp_path, 10), 10)
    assert ends.finish().published == ()
    assert alice.files(repo) == {}
    saves = make_publisher(repo, tmp_path / "b", strategy="every_save")
    saves.submit(checkpoint(tmp_path, 10), 10, extra={"lock.json": write_files(tmp_path, {"l": b"{1}"}) / "l"})
    assert told(saves.finish()) == {"weights": 10}
    assert alice.files(repo) == save_files(10) | {"lock.json": b"{1}"}, "no state on the branch of the weights"


def test_every_commit_refused_for_the_whole_run(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    rule = alice.faults.add("POST", "/commit/", Answer(403, "no more commits for you"), times=None)
    publisher = make_publisher(repo)
    for step in (10, 20, 30):
        publisher.submit(checkpoint(tmp_path, step), step)
    publisher.submit(final(tmp_path, 40), 40, "final")
    result = publisher.finish()
    assert rule.hits >= 1
    assert not result.complete
    assert result.exit_code == 5
    assert {(each.what, each.step) for each in result.missing} == {("weights", 40), ("card", 40)}
    assert "no more commits for you" in result.missing[0].reason
    assert result.lines("OUT")[-1] == "finish with: inspo-hub publish OUT"
    assert "no more commits" in str(result.error("OUT"))
    assert alice.files(repo) == {}
    alice.faults.clear()
    again = make_publisher(repo)
    assert told(again.finish()) == {"weights": 40, "card": 40}
    assert alice.files(repo)["model.safetensors"] == save_files(40)["model.safetensors"]


@pytest.mark.parametrize("when", ["after", "before"])
def test_the_answer_to_a_commit_is_lost(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher, when: str
) -> None:
    rule = alice.faults.add("POST", "/commit/", Drop(when))  # type: ignore[arg-type]
    publisher = make_publisher(repo)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    result = publisher.finish()
    assert told(result) == {"weights": 10}
    assert rule.hits == 1
    assert [commit.title for commit in alice.history(repo)] == ["Weights at step 10", "initial commit"]
    assert result.published[0].sha == alice.head(repo)


TROUBLE = [
    RateLimited(1, by="ratelimit"),
    RateLimited(1, by="retry-after"),
    RateLimited(1, by="commits"),
    Answer(500),
    Answer(503),
    Answer(412, "A commit has happened since. Please refresh and try again."),
    Drop("before_body", reset=True),
]


@pytest.mark.parametrize(
    ("url", "action"),
    [
        *(("/commit/", action) for action in TROUBLE),
        *((url, action) for url in ("/preupload/", "/objects/batch") for action in (Answer(503), TROUBLE[-1])),
    ],
    ids=str,
)
def test_passing_trouble_is_waited_out(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher, url: str, action: Answer
) -> None:
    alice.faults.add("POST", url, action, times=2)
    started = time.monotonic()
    publisher = make_publisher(repo)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    result = publisher.finish()
    assert told(result) == {"weights": 10}
    if url == "/commit/" and isinstance(action, RateLimited) and action.by != "commits":
        assert time.monotonic() - started >= 2, "the Hub's wish was undercut"


def test_a_wait_that_is_too_long_is_not_begun(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    alice.faults.add("POST", "/commit/", RateLimited(3600), times=None)
    publisher = make_publisher(repo)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    started = time.monotonic()
    result = publisher.finish()
    assert time.monotonic() - started < 5
    assert "429" in result.missing[0].reason


def test_training_does_not_wait_for_a_slow_hub_and_only_the_newest_waits(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    at_commit, go_on = threading.Event(), threading.Event()
    alice.faults.add("POST", "/commit/", Do(lambda: (at_commit.set(), go_on.wait(10)), "before_body"))
    publisher = make_publisher(repo)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    assert at_commit.wait(5)
    started = time.monotonic()
    for step in (20, 30, 40):
        publisher.submit(checkpoint(tmp_path, step), step)
    assert time.monotonic() - started < 1
    on_disk = sorted(path.name[:8] for path in (tmp_path / "spool").iterdir() if path.is_dir())
    assert on_disk == ["00000010", "00000040"], "one on its way, one waiting"
    go_on.set()
    assert told(publisher.finish()) == {"weights": 40}
    assert [commit.title for commit in alice.history(repo)] == [
        "Weights at step 40",
        "Weights at step 10",
        "initial commit",
    ]


def test_a_newer_save_replaces_one_that_is_being_retried(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    refuse = alice.faults.add("POST", "/commit/", Answer(503), times=None)
    publisher = make_publisher(repo, patience=PublishSettings().patience)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    _wait_until(lambda: refuse.hits >= 1)
    alice.faults.remove(refuse)
    publisher.submit(checkpoint(tmp_path, 20), 20)
    assert told(publisher.finish()) == {"weights": 20}
    assert "Weights at step 10" not in [commit.title for commit in alice.history(repo)]


def test_checkpoints_keep_a_distance_but_the_result_does_not(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    publisher = make_publisher(repo, interval_s=3600.0)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    _wait_until(lambda: told(publisher.result()) == {"weights": 10})
    publisher.submit(checkpoint(tmp_path, 20), 20)
    time.sleep(0.3)
    assert told(publisher.result()) == {"weights": 10}
    publisher.submit(final(tmp_path, 30), 30, "final")
    _wait_until(lambda: told(publisher.result()) == {"weights": 30, "card": 30})


def test_the_end_of_a_run_cuts_our_own_wait_short(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    away = alice.faults.add("POST", "/commit/", Answer(503))
    publisher = make_publisher(repo, patience=Patience(attempts=9, base_s=60, ceiling_s=60))
    publisher.submit(checkpoint(tmp_path, 10), 10)
    _wait_until(lambda: away.hits == 1 and "503" in "".join(each.reason for each in publisher.result().missing))
    assert told(publisher.finish(timeout=10)) == {"weights": 10}


def test_after_a_kill_only_the_newest_save_is_pushed(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    """The process dies with one save on its way and another waiting: the older one must not come after the newer."""
    at_commit, go_on = threading.Event(), threading.Event()
    alice.faults.add("POST", "/commit/", Do(lambda: (at_commit.set(), go_on.wait(10)), "before_body"))
    publisher = make_publisher(repo)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    assert at_commit.wait(5)
    publisher.submit(checkpoint(tmp_path, 20), 20)
    as_the_kill_leaves_it = shutil.copytree(tmp_path / "spool", tmp_path / "left")
    publisher.finish(0)
    go_on.set()
    _wait_until(lambda: len(alice.history(repo)) == 2)
    later = make_publisher(repo, as_the_kill_leaves_it)
    assert told(later.finish()) == {"weights": 20}
    assert [commit.title for commit in alice.history(repo)][:2] == ["Weights at step 20", "Weights at step 10"]
    assert not [path for path in as_the_kill_leaves_it.iterdir() if path.is_dir()]


def test_the_snapshot_is_frozen(alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher) -> None:
    """A save limit may delete a checkpoint, and the run may go on writing small files, while their push waits."""
    go_on = threading.Event()
    alice.faults.add("GET", f"/api/models/{repo}", Do(lambda: go_on.wait(10), "before_body"))
    publisher = make_publisher(repo)
    folder = checkpoint(tmp_path, 10, weights=BIG)
    metrics = write_files(tmp_path, {"metrics.jsonl": b"1\n"}) / "metrics.jsonl"
    publisher.submit(folder, 10, extra={"metrics.jsonl": metrics})
    snapshot = next(path for path in (tmp_path / "spool").iterdir() if path.is_dir())
    assert os.stat(snapshot / "save" / "model.safetensors").st_nlink == 2, "large files are links, not copies"
    for path in folder.iterdir():
        path.unlink()
    with metrics.open("ab") as file:
        file.write(b"2\n")
    go_on.set()
    assert told(publisher.finish()) == {"weights": 10}
    assert alice.files(repo) == save_files(10, weights=BIG) | {"metrics.jsonl": b"1\n"}


def test_a_save_that_is_overwritten_in_place_is_never_pushed_as_the_old_one(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    go_on = threading.Event()
    alice.faults.add("GET", f"/api/models/{repo}", Do(lambda: go_on.wait(10), "before_body"))
    alice.faults.add("POST", "/commit/", Answer(503))
    publisher = make_publisher(repo)
    folder = checkpoint(tmp_path, 10, weights=BIG)
    publisher.submit(folder, 10)
    (folder / "model.safetensors").write_bytes(b"x" * BIG)
    go_on.set()
    result = publisher.finish()
    assert "was written to after it was saved" in result.missing[0].reason
    assert alice.files(repo) == {}


def test_a_refused_card_does_not_stop_the_weights(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    output = final(tmp_path, 20)
    (output / "README.md").write_bytes(b"---\nlicense: my own license\n---\n# A model\n")
    publisher = make_publisher(repo)
    publisher.submit(output, 20, "final")
    result = publisher.finish()
    assert told(result) == {"weights": 20}
    assert [(each.what, each.step) for each in result.missing] == [("card", 20)]
    assert "license" in result.missing[0].reason
    assert result.exit_code == 5
    assert alice.files(repo)["model.safetensors"] == save_files(20)["model.safetensors"]
    (output / "README.md").write_bytes(CARD)
    finished = publish_output(output, repo, PublishSettings(patience=QUICK, interval_s=0), step=20)
    assert finished.complete
    assert alice.files(repo)["README.md"] == CARD


def test_shards_of_an_earlier_push_go(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": bytes([i]) * 100 for i in (1, 2)}
    index = {"model.safetensors.index.json": b'{"weight_map": {}}'}
    publisher = make_publisher(repo)
    publisher.submit(write_files(tmp_path / "sharded", shards | index | {"config.json": b"{}"}), 10)
    _wait_until(lambda: told(publisher.result()) == {"weights": 10})
    assert alice.files(repo) == shards | index | {"config.json": b"{}"}
    adapter = {"adapter_model.safetensors": b"lora", "adapter_config.json": b"{}"}
    publisher.submit(write_files(tmp_path / "adapter", adapter), 20)
    assert told(publisher.finish()) == {"weights": 20}
    assert alice.files(repo) == adapter | {"config.json": b"{}"}


@pytest.mark.parametrize("times", [1, None])
def test_other_bytes_on_the_hub_are_noticed(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher, times: int | None
) -> None:
    """A commit that holds other bytes than were sent is no success, whatever status it was answered with."""

    def mangle() -> None:
        alice.history(repo)[0].files["config.json"] = Blob.of(b"mangled", lfs=False)

    alice.faults.add("POST", "/commit/", Do(mangle, "after"), times=times)
    publisher = make_publisher(repo)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    result = publisher.finish()
    assert result.complete is (times == 1)
    if times == 1:
        assert alice.files(repo) == save_files(10)
    else:
        assert "the Hub holds other bytes than were sent: config.json" in result.missing[0].reason


def test_quota_and_missing_repository_are_told_at_once(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    alice.accounts.users["alice"].quota_bytes = 10
    try:
        publisher = make_publisher(repo, tmp_path / "a")
        publisher.submit(checkpoint(tmp_path, 10), 10)
        result = publisher.finish()
    finally:
        alice.accounts.users["alice"].quota_bytes = None
    assert not result.complete
    assert result.missing[0].reason
    gone = make_publisher("alice/never-created", tmp_path / "b")
    gone.submit(checkpoint(tmp_path, 10), 10)
    started = time.monotonic()
    assert "RepositoryNotFound" in gone.finish().missing[0].reason
    assert time.monotonic() - started < 5


def test_a_hub_that_is_silent_does_not_keep_the_run(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    go_on = threading.Event()
    alice.faults.add("POST", "/commit/", Do(lambda: go_on.wait(20), "before_body"))
    publisher = make_publisher(repo)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    started = time.monotonic()
    result = publisher.finish(timeout=0.5)
    assert time.monotonic() - started < 5
    assert [(each.what, each.step, each.reason) for each in result.missing] == [("weights", 10, "not tried yet")]
    go_on.set()


def test_a_pull_request_where_one_may_not_write(
    alice: HubServer, tmp_path: Path, make_publisher: MakePublisher
) -> None:
    theirs = alice.unique("model", "bob")
    alice.create_repo(theirs, {"config.json": b"{}"})
    lost = alice.faults.add("POST", "create_pr=1", Drop("after"), skip=1)
    publisher = make_publisher(theirs, create_pr=True)
    publisher.submit(checkpoint(tmp_path, 10), 10)
    _wait_until(lambda: told(publisher.result()) == {"weights": 10})
    publisher.submit(final(tmp_path, 20), 20, "final")
    result = publisher.finish()
    assert result.complete, result
    assert lost.hits == 1, "the answer to the pull request was lost, and it was found again"
    pulls = alice.repo(theirs).discussions
    assert len(pulls) == 1
    assert pulls[1].status == "open"
    assert result.pull_request == 1
    assert {each.revision for each in result.published} == {"refs/pr/1"}
    assert alice.files(theirs, "refs/pr/1")["model.safetensors"] == save_files(20)["model.safetensors"]
    assert alice.files(theirs) == {"config.json": b"{}"}


def test_a_full_disk_is_told_and_training_goes_on(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = make_publisher(repo)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("inspo_hub.publish.spool.shutil.copy2", full)
        publisher.submit(checkpoint(tmp_path, 10), 10)
    result = publisher.finish()
    assert [(each.what, each.step) for each in result.missing] == [("weights", 10)]
    assert "No space left on device" in result.missing[0].reason


def test_two_publishers_of_one_output_are_refused(repo: str, make_publisher: MakePublisher) -> None:
    make_publisher(repo)
    with pytest.raises(PublishError, match="another process is publishing this output"):
        make_publisher(repo)


def test_a_broken_record_is_refused(repo: str, tmp_path: Path, make_publisher: MakePublisher) -> None:
    write_files(tmp_path / "spool", {"publish.json": b'{"format": 1}'})
    with pytest.raises(PublishError, match="record cannot be read"):
        make_publisher(repo)


def test_publish_output_needs_something_and_somewhere(alice: HubServer, repo: str, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="not known where to publish"):
        publish_output(final(tmp_path, 20))
    with pytest.raises(PublishError, match="nothing to publish"):
        publish_output(write_files(tmp_path / "empty", {"notes.txt": b"x"}), repo)


def test_publish_output_for_the_first_time_creates_a_private_repository(alice: HubServer, tmp_path: Path) -> None:
    name = alice.unique("fresh", "alice")
    output = final(tmp_path, 20)
    result = publish_output(output, name, PublishSettings(patience=QUICK))
    assert result.complete
    assert alice.repo(name).private
    commits = len(alice.history(name))
    alice.log.clear()
    again = publish_output(output)
    assert not alice.log.count("POST", "/preupload/|/commit/"), "nothing is sent that stands there"
    assert again.complete
    assert len(alice.history(name)) == commits, "everything is there: no commit"


def test_repositories_of_twins() -> None:
    class Section:
        def __init__(self, repo: str) -> None:
            self.repo = repo

    assert repository_of("a/b", None) == "a/b"
    assert repository_of("a/b", "dpo") == "a/b-dpo"
    assert repository_of("a/{variant}-b", "dpo") == "a/dpo-b"
    assert repository_of("a/b-{variant}", None) == "a/b"
    assert repositories({"x": Section("a/b"), "y": None}, twins=True) == {"x": "a/b-x"}
    from inspo_hub.errors import RecipeError

    with pytest.raises(RecipeError, match="two variants would publish to a/b-x-x"):
        repositories({"x": Section("a/b-x"), "y": Section("a/{variant}"), "x-x": Section("a/b")}, twins=True)


def test_no_token_in_spool_log_or_result(
    alice: HubServer, repo: str, tmp_path: Path, make_publisher: MakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    token = os.environ["HF_TOKEN"]
    caplog.set_level("DEBUG", "inspo_hub")
    caplog.set_level("DEBUG", "huggingface_hub")
    alice.faults.add("POST", "/commit/", Answer(403, f"token {token} and Bearer {token} are not welcome"), times=None)
    publisher = make_publisher(repo)
    publisher.submit(final(tmp_path, 20), 20, "final")
    result = publisher.finish()
    assert "not welcome" in result.missing[0].reason
    written = "".join(path.read_text() for path in (tmp_path / "spool").glob("*.json"))
    for text in (
        caplog.text,
        json.dumps(result.to_dict()),
        str(result.error("x")),
        "\n".join(result.lines("x")),
        written,
    ):
        assert token not in text


def _wait_until(condition: object, seconds: float = 8.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
