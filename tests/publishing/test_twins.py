"""Twins and all that compares them, by one command, from an output that was never published."""

from __future__ import annotations

import json

import pytest

from inspo_hub.card import recipe_and_lock_from_card
from inspo_hub.space import read_config
from tests.hub_server import Answer, HubServer
from tests.hub_server.process import run_with_hub

from .conftest import Machine, World, titles

JUDGE = "def score(prompt: str, response: str) -> float:\n    return float(len(set(response.split())))\n"
TWINS = """\
data:
  train: [{{id: {rows}}}]
  heldout: [{{id: {rows}, split: test}}]
  max_length: 90
evaluate:
  prompts: {{id: ./prompts.jsonl}}
  judge: {{python: "./judge.py:score"}}
  max_new_tokens: 8
  bootstrap: 20
variants: {{dpo: {{conditioning: none}}, inspo: {{conditioning: symmetric}}}}
"""


@pytest.mark.slow
def test_one_command_publishes_twins_their_comparison_and_a_collection(
    hub: HubServer, machine: Machine, world: World
) -> None:
    """Trained without a Hub account; pairs are cut for both twins alike, and one of them is reproduced alone."""
    _write_project(machine, world)
    machine.run("--set", "train.max_steps=4", HF_TOKEN="")
    name = hub.unique("twins", "alice")
    output = str(machine.output())
    told = machine.cli("publish", output, expect=5)
    assert (told["what"], told["ok"]) == ("it is not known where to publish", False)
    assert f"inspo-hub publish {output} --repo owner/name" in told["fix"]

    refused = hub.faults.add("POST", f"/datasets/{name}-comparison/commit/", Answer(403, "not today"), times=None)
    told = machine.cli("publish", output, "--repo", name, "--collection", expect=5)
    assert refused.hits
    assert [each["complete"] for each in told["variants"].values()] == [True, True]
    assert "not today" in told["problems"][0]
    hub.faults.clear()
    told = machine.cli("publish", output, "--repo", name, "--collection")
    assert told["comparison"]["dataset"] == f"{name}-comparison"
    _check_variants(hub, machine, name)
    _check_dataset(hub, machine, name)
    _check_collection(hub, world, name, told["comparison"]["collection_url"])
    _check_space(machine, name)
    commits = [titles(hub, f"{name}-dpo"), titles(hub, f"{name}-comparison", type="dataset")]
    assert machine.cli("publish", output, "--repo", name, "--collection") == told, "again: nothing new"
    assert [titles(hub, f"{name}-dpo"), titles(hub, f"{name}-comparison", type="dataset")] == commits
    assert machine.token not in "".join(machine.said)
    _reproduce_alone(hub, machine, name)


def _check_space(machine: Machine, name: str) -> None:
    """publish leaves the configuration of a Space that names both variants at their commits."""
    config = read_config(machine.output() / "space.json")
    assert config.names == ("dpo", "inspo")
    assert [str(system.model).split("@")[0] for system in config.systems] == [f"{name}-dpo", f"{name}-inspo"]


def _write_project(machine: Machine, world: World) -> None:
    head, _, rest = world.recipe.partition("data:")
    machine.write_recipe(head + TWINS.format(rows=world.rows) + rest[rest.index("alternative:") :])
    (machine.home / "judge.py").write_text(JUDGE, encoding="utf-8")
    prompts = [{"prompt": "the cat sat"}, {"prompt": "rain fell"}, {"prompt": "old songs"}]
    text = "".join(json.dumps(row) + "\n" for row in prompts)
    (machine.home / "prompts.jsonl").write_text(text, encoding="utf-8")


def _check_variants(hub: HubServer, machine: Machine, name: str) -> None:
    for variant, other in (("dpo", "inspo"), ("inspo", "dpo")):
        repo = f"{name}-{variant}"
        assert hub.repo(repo).private
        files = hub.files(repo)
        assert files["model.safetensors"] == machine.weights(f"out/{variant}")
        card = files["README.md"].decode()
        assert f"inspo-hub reproduce {repo}" in card, "written again with the repository's name"
        assert f"{name}-{other}" in card, "and with that of its twin"
        assert "win rate" in card


def _check_dataset(hub: HubServer, machine: Machine, name: str) -> None:
    """The answers and the curves as rows that `datasets` reads, under the comparison's card."""
    repo = f"{name}-comparison"
    assert hub.repo(repo, "dataset").private
    files = hub.files(repo, type="dataset")
    assert set(files) == {
        "README.md", "generations.jsonl", "metrics.jsonl", "report/comparison.json", "report/curves.svg",
        "report/frontier.svg", "report/budget.svg",
    }  # fmt: skip
    home = str(machine.home).encode()
    assert not [path for path, content in files.items() if home in content]
    card = files["README.md"].decode()
    assert "`dpo` against `inspo`" in card
    assert f"huggingface.co/{name}-inspo" in card
    recipe, _ = recipe_and_lock_from_card(card)
    assert "inspo:" in recipe
    code = f"""
        import json
        from datasets import load_dataset

        commit = {{"revision": "{hub.head(repo, type="dataset")}", "split": "train"}}
        answers = load_dataset("{repo}", **commit)
        curves = load_dataset("{repo}", "metrics", **commit)
        print(json.dumps([answers.to_list(), sorted(set(curves["variant"])), len(curves)]))
    """
    done = run_with_hub(hub, code, home=machine.home, token=machine.token)
    answers, variants, lines = json.loads(done.stdout)
    assert [set(row["responses"]) for row in answers] == [{"base", "dpo", "inspo"}] * 3
    assert [row["row_id"] for row in answers] == [f"prompts.jsonl/{number}" for number in range(3)]
    assert variants == ["dpo", "inspo"]
    assert lines == sum(len(machine.records(f"out/{variant}")) for variant in variants)


def _check_collection(hub: HubServer, world: World, name: str, url: str) -> None:
    (made,) = [one for one in hub.collections.values() if url.endswith(one["slug"])]
    assert made["private"]
    assert [(item["type"], item["id"]) for item in made["items"]] == [
        ("model", f"{name}-dpo"),
        ("model", f"{name}-inspo"),
        ("dataset", f"{name}-comparison"),
        ("model", world.base),
        ("dataset", world.rows),
        ("paper", "2512.23126"),
        ("paper", "2305.18290"),
    ]


def _reproduce_alone(hub: HubServer, machine: Machine, name: str) -> None:
    """The twin that sees no alternative was cut to leave room for one: it gets the same pairs when it is alone."""
    report = json.loads(hub.files(f"{name}-dpo")["report/data.json"])
    assert report["truncated"]["count"] > 0, "or this test shows nothing"
    assert report["conditioned"]
    told = machine.cli("reproduce", f"{name}-dpo", "--plan-only", expect=2)
    assert told["error"] == "DataError"
    assert "./judge.py, ./prompts.jsonl" in told["what"]
    files = ["--files", str(machine.home), "--output", "again"]
    told = machine.cli("reproduce", f"{name}-dpo", *files, "--plan-only", expect=2)
    assert "judge.py:score (evaluate.judge.python)" in told["what"]
    told = machine.cli("reproduce", f"{name}-dpo", *files, "--trust-code")
    assert told["equal"]
    assert told["differences"] == []
    assert told["same_weights"]
    assert (machine.home / "again" / "report" / "comparison.json").is_file()
