"""The pairs of all rounds as one data set: a folder, its card, and its place on the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspo_hub import hub
from inspo_hub.errors import PublishError
from inspo_hub.iterating.pairing import Pairing
from inspo_hub.iterating.rounds import round_name
from inspo_hub.recipe import Recipe, is_path


def write_pairs(folder: Path, pairing: Pairing, how: Mapping[str, Any]) -> dict[str, Any]:
    """train.jsonl, then manifest.json, whose being there says that the round's pairs are whole."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in pairing.rows).encode()
    hub.write_bytes(folder / "train.jsonl", content)
    manifest = {**pairing.counts(), **how, "sha256": hub.bytes_hash(content).sha256}
    hub.write_json(folder / "manifest.json", manifest)
    return manifest


def write_card(folder: Path, recipe: Recipe) -> None:
    """README.md with one configuration per round and what each was made of."""
    manifests = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/manifest.json")
    }
    rounds = sorted(manifests, key=lambda name: int(name.rpartition("-")[2]))
    configs = [
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train.jsonl" for name in rounds
    ]
    # Folders of this machine are nobody's business.
    model = Path(recipe.model.id).name if is_path(recipe.model.id) else f"{recipe.model.id}@{recipe.model.revision}"
    lines = ["---", "tags: [inspo_hub, preference, on-policy]", "configs:", *configs, "---"]
    lines += [
        f"# Pairs of {recipe.name}",
        "",
        f"Answers of the policy to its prompts, from {model} on: each round's of",
    ]
    lines += ["the policy that the round starts from, the best against the worst of a prompt by the judge.", ""]
    lines += ["| round | pairs | prompts | ties | unusable | mean score | judge | SHA-256 |"]
    lines += ["|---|---:|---:|---:|---:|---:|---|---|"]
    for name in rounds:
        each = manifests[name]
        counts = " | ".join(str(each[key]) for key in ("pairs", "prompts", "ties", "unusable"))
        lines.append(f"| {name} | {counts} | {each['mean_score']:.3f} | {each['judge']} | `{each['sha256'][:12]}` |")
    hub.write_bytes(folder / "README.md", ("\n".join(lines) + "\n").encode())


def publish_pairs(folder: Path, number: int, repo: str, *, private: bool | None) -> str:
    """The commit that holds a round's pairs; made where it is not known yet, and remembered beside them.

    Raises:
        PublishError: the Hub does not take them.
    """
    remembered = folder.parent / ".sampled" / round_name(number) / "published.json"
    if remembered.is_file():
        known = json.loads(remembered.read_text(encoding="utf-8"))
        if known["repo"] == repo:
            return str(known["sha"])
    try:
        commit = hub.push_folder(
            folder, repo, kind="dataset", message=f"Pairs of {round_name(number)}", private=private
        )
    except hub.HubFailure as failure:
        raise PublishError(
            f"the pairs of {round_name(number)} cannot be published: {failure}",
            where=repo,
            expected="a data set repository that this token may write to",
            fix="give the same command again, or set iterate.dataset: null",
        ) from failure
    hub.write_json(remembered, {"repo": repo, "sha": commit.sha})
    return commit.sha
