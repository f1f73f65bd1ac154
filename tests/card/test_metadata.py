"""The YAML at the top: accepted by the Hub's rules, read back by the Hub's client, true about the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard

from inspo_hub.card import model_card
from inspo_hub.card.licenses import LICENSE_IDS
from inspo_hub.card.metadata import metadata
from inspo_hub.hub import Pinned, RepoMetadata
from tests.card.conftest import BASE_SHA, DATA_SHA, RECIPE, SUMMARY, MakeFacts
from tests.hub_server import HubServer
from tests.hub_server.cards import LICENSES, check_card


def licensed(license_id: str | None, name: str | None = None, link: str | None = None) -> RepoMetadata:
    return RepoMetadata(license_id, name, link, gated=False, private=False, card={})


def test_the_client_of_the_hub_reads_every_field_back(make_facts: MakeFacts) -> None:
    data = ModelCard(model_card(make_facts())).data
    assert data.license == "apache-2.0"
    assert data.base_model == "org/base"
    assert data.to_dict()["base_model_relation"] == "finetune"
    assert data.datasets == ["org/pairs"]
    assert data.pipeline_tag == "text-generation"
    assert data.library_name == "transformers"
    assert set(data.tags) == {
        "inspo_hub",
        "preference-optimization",
        "dpo",
        "inspo",
        "arxiv:2305.18290",
        "arxiv:2512.23126",
    }
    assert data.model_name == "fox-inspo"
    plain, conditioned, won = data.eval_results
    assert isinstance(plain, EvalResult)
    assert (plain.metric_type, plain.metric_value) == ("accuracy", 0.7)
    assert (conditioned.metric_name, conditioned.metric_value) == ("Preference accuracy, conditioned", 0.8)
    assert (plain.dataset_type, plain.dataset_revision) == ("org/pairs", DATA_SHA)
    assert (won.metric_type, won.metric_value) == ("win_rate", 0.6125)


def test_a_hub_that_checks_cards_takes_it(make_facts: MakeFacts, hub: HubServer) -> None:
    token = hub.token("alice")
    repo_id = hub.unique("card")
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.endpoint, token=token)
    api.create_repo(repo_id)
    card = ModelCard(model_card(make_facts(repo_id=repo_id)))
    card.validate()
    card.push_to_hub(repo_id, token=token)
    assert ModelCard.load(repo_id, token=token).text == card.text


variations: dict[str, dict[str, Any]] = {
    "as it is": {},
    "nothing measured": {
        "summary": {"steps": 3, "pairs": 24},
        "metrics": [],
        "evaluation": None,
        "data_report": None,
        "lock": {},
    },
    "plain dpo": {"variant": "dpo"},
    "an adapter": {"adapter": "{}"},
    "unpublished": {"repo_id": None},
    "license unknown": {"base_metadata": licensed(None)},
    "no base metadata": {"base_metadata": None},
    "other license": {"base_metadata": licensed("other", "mistral-research", "https://mistral.ai/licenses/MRL.md")},
    "local everything": {
        "base": Pinned("model", "/home/me/base", None, None, Path("/home/me/base")),
        "train": (Pinned("dataset", "/home/me/pairs.jsonl", None, None, Path("/home/me/pairs.jsonl")),),
    },
}


@pytest.mark.parametrize("fields", variations.values(), ids=variations.keys())
def test_no_variation_breaks_a_rule_of_the_hub(make_facts: MakeFacts, fields: dict[str, Any]) -> None:
    errors, warnings = check_card(model_card(make_facts(**fields)), "model")
    assert errors == []
    assert warnings == []


def test_the_metadata_is_yaml_of_both_versions_without_surprises(make_facts: MakeFacts) -> None:
    facts = make_facts()
    front = model_card(facts).split("---\n")[1]
    assert yaml.safe_load(front) == metadata(facts)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (licensed("mit"), {"license": "mit"}),
        (licensed("llama3.1"), {"license": "llama3.1"}),
        (licensed("a-license-of-next-year"), {"license": "a-license-of-next-year"}),
        (
            licensed("other", "my-license", "LICENSE"),
            {
                "license": "other",
                "license_name": "my-license",
                "license_link": f"https://huggingface.co/org/base/blob/{BASE_SHA}/LICENSE",
            },
        ),
        (licensed("Apache License, Version 2.0"), {"license": "other", "license_name": "Apache License, Version 2.0"}),
        (licensed("mit", "ignored", "ignored"), {"license": "mit"}),
        (licensed(None), {}),
        (None, {}),
    ],
)
def test_the_license_is_the_bases(make_facts: MakeFacts, base: RepoMetadata | None, expected: dict[str, str]) -> None:
    data = metadata(make_facts(base_metadata=base))
    assert {key: value for key, value in data.items() if "licen" in key} == expected


def test_a_local_base_may_say_anything_and_only_known_ids_are_taken(make_facts: MakeFacts) -> None:
    base = Pinned("model", "/x/base", None, None, Path("/x/base"))
    for said, expected in [("Apache-2.0", ("apache-2.0", None)), ("apache2", ("other", "apache2"))]:
        data = metadata(make_facts(base=base, base_metadata=licensed(said)))
        assert (data["license"], data.get("license_name")) == expected


def test_the_license_ids_are_those_the_test_hub_accepts() -> None:
    assert LICENSE_IDS <= LICENSES


def test_local_paths_are_never_ids(make_facts: MakeFacts) -> None:
    data = metadata(make_facts(**variations["local everything"]))
    assert "base_model" not in data
    assert "base_model_relation" not in data
    assert "datasets" not in data
    (held, _) = data["model-index"][0]["results"]
    assert held["dataset"] == {"name": "Held-out pairs of pairs.jsonl", "type": "preference-pairs"}


def test_a_mixture_lists_each_data_set_once(make_facts: MakeFacts) -> None:
    pins = [Pinned("dataset", name, None, DATA_SHA, None) for name in ("a/b", "c/d", "a/b")]
    data = metadata(make_facts(train=pins, heldout=[replace(pins[0], id="e/f")]))
    assert data["datasets"] == ["a/b", "c/d", "e/f"]


def test_an_adapter_says_so(make_facts: MakeFacts) -> None:
    data = metadata(make_facts(adapter="{}"))
    assert (data["library_name"], data["base_model_relation"]) == ("peft", "adapter")


def test_what_was_not_measured_is_no_result(make_facts: MakeFacts) -> None:
    assert "model-index" not in metadata(make_facts(summary=SUMMARY | {"heldout": {}}, evaluation=None))
    only_won = metadata(make_facts(summary=SUMMARY | {"heldout": {}}))["model-index"][0]["results"]
    assert [metric["type"] for result in only_won for metric in result["metrics"]] == ["win_rate"]


def test_plain_dpo_is_not_tagged_as_inspo(make_facts: MakeFacts) -> None:
    facts = make_facts(variant="dpo")
    assert "2512.23126" not in model_card(facts), "the Hub tags a model with every paper its card links"
    assert "inspo" not in metadata(facts)["tags"]


def test_heldout_data_of_its_own_is_named_with_split_and_commit(make_facts: MakeFacts) -> None:
    text = RECIPE.replace("{fraction: 0.1}", "[{id: org/test, split: test, config: hard}]")
    facts = make_facts(text, heldout=[Pinned("dataset", "org/test", None, "c" * 40, None)])
    assert metadata(facts)["model-index"][0]["results"][0]["dataset"] == {
        "name": "Held-out pairs of org/test",
        "type": "org/test",
        "revision": "c" * 40,
        "config": "hard",
        "split": "test",
    }
