"""`inspo-hub reproduce`: a published model trained again from its card, and what it refuses to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from inspo_hub.cli import main
from inspo_hub.errors import DataError, RecipeError, ResolutionError
from inspo_hub.reproducing import Request, compare_metrics, plan_again, read_published
from tests.hub_server import HubServer

from .conftest import Machine, Whole, World


def publish_card(hub: HubServer, whole: Whole, change: dict[str, str]) -> str:
    """A copy of the published model whose recipe somebody changed; card, recipe and lock agree again."""
    repo = hub.unique("changed", "alice")
    files = {name: content for name, content in hub.files(whole.repo).items() if name != "README.md"}
    text = files["recipe.yaml"].decode()
    for old, new in change.items():
        assert old in text, old
        text = text.replace(old, new)
    files["recipe.yaml"] = text.encode()
    hub.create_repo(repo, files, private=True)
    return repo


@pytest.mark.slow
def test_the_same_machine_gives_the_same_bits_although_everything_moved(
    hub: HubServer, machine: Machine, whole: Whole, world: World
) -> None:
    before, published = hub.head(world.base), hub.head(whole.repo)
    hub.commit(whole.repo, {"model.safetensors": b"other weights"})
    hub.commit(world.base, {"chat_template.jinja": "{{ 'another template' }}"})
    hub.commit(world.rows, {"train.jsonl": world.row_files["test.jsonl"]}, type="dataset")
    try:
        told = machine.cli("reproduce", f"{whole.repo}@{published}", "--output", str(machine.output()))
    finally:
        hub.set_ref(whole.repo, "refs/heads/main", published)
        hub.set_ref(world.base, "refs/heads/main", before)
        rows = hub.history(world.rows, type="dataset")[1].sha
        hub.set_ref(world.rows, "refs/heads/main", rows, type="dataset")
    assert (told["ok"], told["equal"], told["same_weights"], told["differences"]) == (True, True, True, [])
    assert told["numbers"] > 20
    assert told["differs_here"] == []
    assert machine.weights() == whole.machine.weights()
    assert machine.records() == whole.machine.records()
    assert not (machine.output() / ".publish").exists(), "nothing goes to the publisher's repository"
    assert not hub.log.count("POST", "/preupload/|/commit/")


def test_plan_only_says_what_would_be_trained_and_what_differs(
    as_alice: HubServer, whole: Whole, world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = as_alice.files(whole.repo)["README.md"].decode()
    other = re.sub(r'"torch": "[^"]*"', '"torch": "1.0.0"', text)
    assert other != text
    repo = as_alice.unique("old", "alice")
    as_alice.create_repo(repo, {**as_alice.files(whole.repo), "README.md": other})
    assert main(["reproduce", repo, "--plan-only", "--json", "--output", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pins"]["model"] == {"id": world.base, "sha": as_alice.head(world.base)}
    assert [line.split(" -> ")[0] for line in told["differs_here"]] == ["torch: 1.0.0"]
    assert not (tmp_path / "out").exists()
    assert main(["reproduce", repo, "--plan-only"]) == 0
    said = capsys.readouterr().out
    assert f"{repo}@{as_alice.head(repo)} was trained by recipe tiny from" in said
    assert f"model: {world.base}@{as_alice.head(world.base)}" in said
    assert "by 1 process(es) on cpu" in said


def test_an_output_folder_can_be_reproduced_too(as_alice: HubServer, whole: Whole, tmp_path: Path) -> None:
    copy = shutil.copytree(whole.machine.output(), tmp_path / "copy")
    planned = plan_again(Request(model=str(copy)))
    assert planned.plan.recipe.publish is None
    assert planned.published.metrics[-1]["split"] == "heldout"


def test_code_is_refused_unless_it_is_trusted(as_alice: HubServer, whole: Whole) -> None:
    """A judge of an installed package too: the card chooses what is called."""
    prompts = "{prompts: {id: alice/prompts}, judge: {python: 'subprocess:getoutput'}}"
    judged = publish_card(as_alice, whole, {"evaluate: null": f"evaluate: {prompts}"})
    with pytest.raises(ResolutionError, match="do not belong together"):
        plan_again(Request(model=judged))
    fix_lock(as_alice, judged)
    with pytest.raises(RecipeError, match=r"would run Python code[\s\S]*subprocess:getoutput[\s\S]*--skip-evaluation"):
        plan_again(Request(model=judged))
    assert plan_again(Request(model=judged, skip_evaluation=True)).plan.recipe.evaluate is None
    with pytest.raises(ResolutionError, match="alice/prompts"):
        plan_again(Request(model=judged, trust_code=True))

    server = "{endpoint: {model: m, base_url: 'http://127.0.0.1:9', api_key_env: HF_TOKEN}}"
    calling = publish_card(
        as_alice, whole, {"evaluate: null": f"evaluate: {{prompts: {{id: alice/prompts}}, judge: {server}}}"}
    )
    fix_lock(as_alice, calling)
    with pytest.raises(RecipeError, match=r"ask http://127.0.0.1:9 with the key in \$HF_TOKEN[\s\S]*--skip-evaluation"):
        plan_again(Request(model=calling))

    remote = publish_card(as_alice, whole, {"trust_remote_code: false": "trust_remote_code: true"})
    fix_lock(as_alice, remote)
    with pytest.raises(RecipeError, match=r"would run Python code[\s\S]*trust_remote_code"):
        plan_again(Request(model=remote, skip_evaluation=True))
    assert plan_again(Request(model=remote, trust_code=True)).plan.remote_code is not None


def fix_lock(hub: HubServer, repo: str) -> None:
    """Writes the hash of the changed recipe into the lock, as whoever wants to trick us would."""
    from inspo_hub.recipe.kept import to_plain
    from inspo_hub.recipe.loading import parse_recipe

    lock = json.loads(hub.files(repo)["lock.json"])
    recipe = parse_recipe(hub.files(repo)["recipe.yaml"].decode())
    assert to_plain(recipe)["recipe"]
    hub.commit(repo, {"lock.json": json.dumps({**lock, "recipe_sha256": recipe.sha256()})})


@pytest.mark.parametrize(
    "path", ["./rows.jsonl", "../rows.jsonl", "/etc/rows.jsonl", "~/rows.jsonl", "./a/../../rows.jsonl"]
)
def test_local_files_are_named_and_never_looked_for_elsewhere(
    as_alice: HubServer, whole: Whole, world: World, path: str, tmp_path: Path
) -> None:
    local = publish_card(as_alice, whole, {f"train:\n  - id: {world.rows}": f"train:\n  - id: {path}"})
    inside = path == "./rows.jsonl"
    with pytest.raises(DataError, match=re.escape(path)) as said:
        plan_again(Request(model=local))
    assert ("--files DIR" in said.value.fix) == inside
    (tmp_path / "rows.jsonl").write_bytes(world.row_files["train.jsonl"])
    (tmp_path / "files").mkdir()
    with pytest.raises(DataError, match=re.escape(path)):
        plan_again(Request(model=local, files=tmp_path / "files"))


def test_another_revision_and_what_no_run_published(as_alice: HubServer, whole: Whole, world: World) -> None:
    weights_only = as_alice.history(whole.repo)[1].sha
    assert read_published(f"{whole.repo}@{weights_only}").lock.recipe == "tiny", "recipe.yaml and lock.json do as well"
    with pytest.raises(ResolutionError, match=r"there is no lock.json and no recipe.yaml"):
        plan_again(Request(model=world.base))
    with pytest.raises(ResolutionError, match="alice/nothing"):
        plan_again(Request(model="alice/nothing"))


def test_an_output_folder_of_another_run_is_left_alone(as_alice: HubServer, whole: Whole, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    lock = json.loads((whole.machine.output() / "lock.json").read_text(encoding="utf-8"))
    text = json.dumps({**lock, "recipe_sha256": "0" * 64, "recipe": "mine"})
    (output / "lock.json").write_text(text, encoding="utf-8")
    exit_code = main(["reproduce", whole.repo, "--output", str(output)])
    assert exit_code == 2
    assert (output / "lock.json").read_text(encoding="utf-8") == text


def test_differences_are_those_of_the_last_lines() -> None:
    train = [{"step": 2, "split": "train", "loss": 9.0}, {"step": 4, "split": "train", "loss": 0.5, "lr": 0.0}]
    heldout = {"step": 4, "split": "heldout", "loss": 200.0}
    assert compare_metrics([*train, heldout], [train[1], heldout]) == []
    (loss,) = compare_metrics([*train, heldout], [{**train[1], "loss": 0.52}, heldout])
    assert (loss.split, loss.metric, loss.published, loss.here) == ("train", "loss", 0.5, 0.52)
    assert loss.size == pytest.approx(0.02), "absolute where numbers are small"
    (far,) = compare_metrics([heldout], [{**heldout, "loss": 220.0}])
    assert far.size == pytest.approx(0.1), "relative where they are large"
    sizes = [each.size for each in compare_metrics([heldout], [{**heldout, "step": 5}])]
    assert sizes == [float("inf")], "another step"
    (missing,) = compare_metrics([heldout], [{**heldout, "new": 1.0}])
    assert (missing.metric, missing.to_dict()["size"]) == ("new", None)
    (broken,) = compare_metrics([heldout], [{**heldout, "loss": float("nan")}])
    assert broken.size == float("inf")
