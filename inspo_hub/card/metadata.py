"""The YAML at the top of a card: what the Hub indexes. Nothing the Hub would refuse, nothing that is not known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from inspo_hub.card.citations import INSPO, arxiv_number
from inspo_hub.card.facts import CardFacts, heldout_measures, opponent_of, win_rate_of
from inspo_hub.card.licenses import LICENSE_IDS
from inspo_hub.card.private import hide_paths, shown_name
from inspo_hub.recipe.writing import write_yaml

_LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_REPO_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
PREFERENCE_TASK = {"type": "text-generation", "name": "Preference pairs"}


def front_matter(facts: CardFacts) -> str:
    """The metadata block with its two `---` lines."""
    return f"---\n{write_yaml(metadata(facts))}---\n"


def metadata(facts: CardFacts) -> dict[str, Any]:
    """The metadata as plain data, in the order in which it is written."""
    data: dict[str, Any] = {**_license(facts), **_base(facts)}
    if facts.hub_datasets:
        data["datasets"] = facts.hub_datasets
    data["pipeline_tag"] = "text-generation"
    data["library_name"] = "peft" if facts.is_adapter else "transformers"
    data["tags"] = tags(facts)
    results = _results(facts)
    if results:
        data["model-index"] = [{"name": facts.title, "results": results}]
    return data


def tags(facts: CardFacts) -> list[str]:
    """What the model can be found by; the InSPO paper only where its conditioning was trained."""
    objective = facts.recipe.objective
    found = ["inspo_hub", "preference-optimization", objective.name]
    papers = [arxiv_number(objective.paper)]
    if facts.conditioned:
        found.append("inspo")
        papers.append(INSPO.arxiv)
    return [*dict.fromkeys(found), *(f"arxiv:{number}" for number in dict.fromkeys(papers) if number)]


def _license(facts: CardFacts) -> dict[str, str]:
    """The base's license: an id as it stands, a text that is no id as `other` with its name, nothing where unknown."""
    base = facts.base_metadata
    if base is None or not base.license:
        return {}
    license_id = base.license.strip().lower()
    # The Hub has checked what a Hub repository says; a local folder may say anything.
    known = license_id in LICENSE_IDS or (not facts.base.is_local and bool(_LICENSE_ID.fullmatch(license_id)))
    data = {"license": license_id if known else "other"}
    name = base.license_name or (None if known else base.license)
    if data["license"] == "other" and name:
        data["license_name"] = name
    if data["license"] == "other" and base.license_link:
        data["license_link"] = _absolute_link(base.license_link, facts)
    return data


def _absolute_link(link: str, facts: CardFacts) -> str:
    """A link into the base's repository, such as `LICENSE`, as one that leads there from another repository."""
    if "://" in link or facts.base.is_local:
        return hide_paths(link)
    return f"https://huggingface.co/{facts.base.id}/blob/{facts.base.sha}/{link.lstrip('./')}"


def _base(facts: CardFacts) -> dict[str, str]:
    if facts.base.is_local or not _REPO_ID.fullmatch(facts.base.id):
        return {}
    return {"base_model": facts.base.id, "base_model_relation": "adapter" if facts.is_adapter else "finetune"}


def _results(facts: CardFacts) -> list[dict[str, Any]]:
    """Our own measurements for `model-index`: held-out preference accuracies, and the judged win rate."""
    found = []
    _, after = heldout_measures(facts.summary)
    accuracies = [
        _metric("accuracy", after.get(f"{side}_accuracy"), f"Preference accuracy, {side}")
        for side in ("plain", "conditioned")
    ]
    measured = [metric for metric in accuracies if metric]
    if measured:
        found.append({"task": PREFERENCE_TASK, "dataset": _heldout_data(facts), "metrics": measured})
    rate = win_rate_of(facts.evaluation, facts.variant) or {}
    against = opponent_of(facts.evaluation)
    name = f"Win rate against {'the base model' if against == 'base' else against}"
    won = _metric("win_rate", rate.get("value"), name)
    if won and facts.evaluation is not None:
        judge = hide_paths(str(facts.evaluation.get("judge", "")))
        data = {"type": _prompts_id(facts), "name": f"{facts.evaluation.get('prompts')} prompts, judged by {judge}"}
        found.append({"task": {"type": "text-generation", "name": "Answers"}, "dataset": data, "metrics": [won]})
    return found


def _prompts_id(facts: CardFacts) -> str:
    """The Hub id of the prompts that were answered, or a word where they are a local file."""
    section = facts.recipe.evaluate
    return "prompts" if section is None or not _REPO_ID.fullmatch(section.prompts.id) else section.prompts.id


def _metric(kind: str, value: float | None, name: str) -> dict[str, Any] | None:
    return None if value is None else {"type": kind, "value": round(float(value), 4), "name": name}


def _heldout_data(facts: CardFacts) -> dict[str, Any]:
    """The held-out pairs as a `dataset` of a result: the Hub's id, split and commit where it is one data set."""
    pins, sources = facts.heldout, facts.recipe.data.heldout
    split_off = not pins
    if split_off:
        pins, sources = facts.train, facts.recipe.data.train
    names = ", ".join(dict.fromkeys(shown_name(pin) for pin in pins)) or "unnamed"
    data: dict[str, Any] = {"name": f"Held-out pairs of {names}", "type": "preference-pairs"}
    if len(pins) == 1 and not pins[0].is_local:
        data |= {"type": pins[0].id, "revision": pins[0].sha}
        if isinstance(sources, tuple) and not split_off:
            data |= _present({"config": sources[0].config, "split": sources[0].split})
    return data


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
