"""The text of a card: figures of this run and no others, nothing of this machine, code that runs."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from inspo_hub.card import Twin, model_card, write_model_card
from inspo_hub.card.private import hide_paths
from inspo_hub.card.results import _HELDOUT_ROWS
from inspo_hub.card.training_curves import training_charts
from inspo_hub.hub import Pinned
from tests.card.conftest import BASE_SHA, BEFORE, DATA_SHA, EVALUATION, HELDOUT, METRICS, RECIPE, REPORT, SUMMARY
from tests.card.conftest import MakeFacts as Make

SECTIONS = [
    "How to use",
    "Results",
    "Training curves",
    "Data",
    "Cost",
    "Recipe and lock",
    "How to reproduce",
    "Limits",
    "Citations",
]


def section(card: str, name: str) -> str:
    return card.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def cells(text: str) -> list[list[str]]:
    """The rows of every table, cells stripped."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_the_sections_stand_in_order(make_facts: Make) -> None:
    card = model_card(make_facts())
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == SECTIONS
    assert card.startswith("---\n")
    assert "\n# fox-inspo\n" in card


def test_the_first_screen_says_what_it_is_with_its_figures(make_facts: Make) -> None:
    card = model_card(make_facts())
    intro = card.partition("\n# ")[2].partition("\n## ")[0]
    assert f"[org/base](https://huggingface.co/org/base/tree/{BASE_SHA})" in intro
    assert "880 preference pairs" in intro
    assert "It prefers the chosen answer in 70.0% ± 4.6% of 100 held-out pairs;" in intro
    assert "61.3% [56.2%, 66.3%] against the base at a KL of 1.25 [1.20, 1.30] nats (inspo is better)" in intro
    assert "`dpo` (beta 0.3)" in intro
    assert "(1-w)·L_symmetric + w·L_none" in intro


def test_heldout_figures_stand_before_and_after_with_their_errors(make_facts: Make) -> None:
    rows = {row[0]: row[1:] for row in cells(section(model_card(make_facts()), "Results"))}
    assert rows["preference accuracy, plain"] == ["tie", "70.0% ± 4.6%"], "√(0.7·0.3/100)"
    assert rows["reward margin, conditioned"] == ["0.900 ± 0.200", "0.900 ± 0.200"]
    assert rows["log-probability of the rejected response, nats per token"] == ["−1.750", "−1.750"]


def test_a_tie_by_construction_is_no_measurement(make_facts: Make) -> None:
    noise = BEFORE | {"plain_accuracy": 0.52, "plain_margin": 3e-8, "plain_margin_std": 4e-7}
    card = model_card(make_facts(summary=SUMMARY | {"heldout_before": noise}))
    rows = {row[0]: row[1:] for row in cells(section(card, "Results"))}
    assert rows["preference accuracy, plain"][0] == "tie"
    assert rows["reward margin, plain"][0] == "0"
    assert "52.0%" not in card


def test_without_reference_the_start_is_a_measurement(make_facts: Make) -> None:
    text = RECIPE.replace("{name: dpo, beta: 0.3}", "simpo")
    card = model_card(make_facts(text, summary=SUMMARY | {"heldout_before": BEFORE | {"plain_accuracy": 0.52}}))
    assert "in 70.0% ± 4.6% of 100 held-out pairs, 52.0% before training" in card


def test_a_measurement_before_training_is_not_one_after_it(make_facts: Make) -> None:
    card = model_card(make_facts(summary=SUMMARY | {"heldout": BEFORE}, evaluation=None))
    assert "Nothing was measured on held-out data" in card
    assert "model-index" not in card


def test_win_rate_stands_beside_kl_and_no_difference_in_words(make_facts: Make) -> None:
    rows = {row[0]: row[1:] for row in cells(section(model_card(make_facts()), "Results"))}
    assert rows["`inspo`"][:2] == ["61.3% [56.2%, 66.3%]", "1.25 [1.20, 1.30]"]
    assert rows["`dpo` against `inspo`"][-1] == "no difference"
    assert "`dpo` against `base`" not in rows, "the twin's own card says that"


def test_every_metric_that_is_shown_is_one_that_is_logged() -> None:
    from inspo_hub.metrics import METRICS as logged

    assert set(_HELDOUT_ROWS) <= set(logged)
    record = {name: 0.5 for name in logged}
    records = [{"step": 1, "split": split, **record} for split in ("train", "heldout")]
    assert len(training_charts(records)) == 6


def test_what_was_not_measured_is_not_claimed(make_facts: Make) -> None:
    bare: dict[str, Any] = {
        "summary": {"steps": 3, "pairs": 24},
        "metrics": [],
        "evaluation": None,
        "data_report": None,
        "base_metadata": None,
        "train": (),
        "lock": {},
    }
    card = model_card(make_facts(**bare))
    assert "Nothing was measured on held-out data" in card
    assert "## Training curves" not in card
    assert "curves.svg" not in card
    limits = section(card, "Limits")
    assert "Preferences were not measured" in limits
    assert "no win rate, and the KL from the base is unknown" in limits
    assert "license of the base is not known" in limits
    outside = re.sub(r"<details>.*?</details>", "", card.partition("\n# ")[2], flags=re.DOTALL)
    assert "%" not in outside.replace("±", ""), "no share without a measurement"
    assert not re.search(r"\b(None|nan|inf)\b", outside)


@pytest.mark.parametrize("name", [name for name, value in HELDOUT.items() if isinstance(value, float)])
def test_a_number_that_is_none_is_not_shown(make_facts: Make, name: str) -> None:
    summary = SUMMARY | {"heldout": HELDOUT | {"step": 110, name: math.nan}}
    card = model_card(
        make_facts(summary=summary, metrics=[*METRICS, {"step": 111, "split": "heldout", name: math.nan}])
    )
    assert not re.search(r"(?<![\w.])\.?nan\b", card, re.IGNORECASE)


def test_the_data_report_and_the_limits_it_implies(make_facts: Make) -> None:
    card = model_card(make_facts())
    data = section(card, "Data")
    assert f"[org/pairs](https://huggingface.co/datasets/org/pairs/tree/{DATA_SHA})" in data
    assert "880 training pairs and 100 held out; 20 rows were left out." in data
    rows = {row[0]: row[1] for row in cells(data)}
    assert rows["left out: empty response"] == "10"
    assert rows["truncated"] == "17"
    assert rows["tokens cut from: alternative"] == "1,234"
    assert "equal to an earlier row, kept" not in rows
    assert "- a note with a \\* star" in data
    limits = section(card, "Limits")
    assert "100 held-out pairs are few" in limits
    assert "± 10.0 points" in limits
    assert "17 pairs were truncated to 512 tokens" in limits
    assert "2 held-out prompts are also training prompts" in limits
    assert "longer ones in 75% of the pairs" in limits


def test_cost(make_facts: Make) -> None:
    rows = {row[0]: row[1] for row in cells(section(model_card(make_facts()), "Cost"))}
    assert rows["optimizer steps"] == "110"
    assert rows["tokens through the model, forward"] == "123,456"
    assert rows["training time, median × steps"] == "55 s"
    assert rows["device"] == "2 × cpu"


def test_how_to_reproduce(make_facts: Make) -> None:
    published = section(model_card(make_facts()), "How to reproduce")
    assert "```bash\ninspo-hub reproduce user/fox-inspo\n```" in published
    assert "accelerate launch --num_processes 2 -m inspo_hub.run recipe.yaml" in published
    unpublished = section(model_card(make_facts(repo_id=None)), "How to reproduce")
    assert "inspo-hub reproduce" not in unpublished


def test_remote_code_is_named_with_its_commit(make_facts: Make) -> None:
    facts = make_facts(RECIPE.replace("{id: org/base}", "{id: org/base, trust_remote_code: true}"))
    card = model_card(facts)
    assert f"`trust_remote_code` was on: loading it runs Python code from `org/base` at commit `{BASE_SHA}`" in card
    assert "from_pretrained(model_id, trust_remote_code=True)" in section(card, "How to use")


def test_cautions_of_the_recipe_are_limits(make_facts: Make) -> None:
    text = RECIPE.replace("inspo: {conditioning: averaged}", "inspo: {conditioning: rejected_only}")
    assert "is an ablation" in section(model_card(make_facts(text)), "Limits")


def test_texts_of_people_are_shown_as_they_stand(make_facts: Make) -> None:
    card = model_card(make_facts())
    assert "> a small | try \\*of\\* things &lt;b&gt;" in card


def test_twins_are_linked_where_they_are_published(make_facts: Make) -> None:
    twins = [Twin(name="dpo", summary={}, repo_id="user/fox-dpo"), Twin(name="other", summary={})]
    card = model_card(make_facts(twins=twins))
    assert "[user/fox-dpo](https://huggingface.co/user/fox-dpo), `other`" in card


def test_citations_are_of_what_was_used(make_facts: Make) -> None:
    cited = section(model_card(make_facts()), "Citations")
    assert "Li, Yu and Lan, Tian and Qi, Zhengling" in cited
    assert "Rafailov, Rafael" in cited
    other = section(model_card(make_facts(RECIPE.replace("{name: dpo, beta: 0.3}", "apo_zero"))), "Citations")
    assert "https://arxiv.org/abs/2408.06266" in other
    assert "Rafailov" not in other


# --- nothing of this machine ----------------------------------------------------------------------------------------


def test_no_path_and_no_name_of_this_machine(make_facts: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home" / "zebulon k"
    monkeypatch.setenv("HOME", str(home))
    folder = home / "work"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "rows.jsonl").write_text("{}", encoding="utf-8")
    (folder / "base").mkdir()
    text = RECIPE.replace("id: org/pairs", "id: data/rows.jsonl").replace("{id: org/base}", "{id: base}")
    text = text.replace("try *of* things <b>", f"try in {folder}/notes.txt")
    rows = f"{folder}/data/rows.jsonl/train/3"
    facts = make_facts(
        text,
        folder=folder,
        base=Pinned("model", str(folder / "base"), None, None, folder / "base"),
        train=(Pinned("dataset", str(folder / "data" / "rows.jsonl"), None, None, folder / "data" / "rows.jsonl"),),
        lock={"model": str(folder / "base"), "notes": [f"read {rows}", {rows: "C:\\Users\\zebulon\\x"}]},
        data_report=REPORT | {"notes": [rows], "invalid": {f"odd row {rows}": {"count": 1, "row_ids": [rows]}}},
        evaluation=EVALUATION | {"judge": f"{folder}/judge.py:quality"},
        summary=SUMMARY | {"device": f"cpu of {home}"},
        example=f"Read {folder}/x",
    )
    card = model_card(facts)
    assert "zebulon" not in card
    assert str(tmp_path) not in card
    assert "`base` (a local model)" in card
    assert "`rows.jsonl` (a local file or folder)" in card
    assert "`./judge.py:quality`" in card
    assert "have to lie beside the recipe: `./base`, `./data/rows.jsonl`." in card


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at /home/me/x/y.txt.", "at ./y.txt."),
        ("see https://huggingface.co/a/b/tree/main", "see https://huggingface.co/a/b/tree/main"),
        ("and/or, 1/2, a/b/c", "and/or, 1/2, a/b/c"),
        ("~/models/base", "./base"),
        ("C:\\Users\\me\\base x", "./base x"),
        ("path=/srv/a", "path=./a"),
        ("`/srv/a/b`", "`./b`"),
        ("file:///srv/a", "./a"),
        ("initial policy (/srv/models/base)", "initial policy (./base)"),
        ("β/n_w·log π(y_w)", "β/n_w·log π(y_w)"),
    ],
)
def test_paths_are_hidden_and_nothing_else_is(text: str, shown: str) -> None:
    assert hide_paths(text) == shown


def test_no_token(make_facts: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, in_use = "hf_" + "A1b2C3d4" * 5, "a-very-private-token"
    monkeypatch.setenv("HF_TOKEN", in_use)
    facts = make_facts(lock={"command": f"x --token {secret}"}, example=f"my key is {in_use}")
    card = model_card(facts)
    assert secret not in card
    assert in_use not in card


# --- files and code -------------------------------------------------------------------------------------------------


def test_the_picture_is_written_beside_the_card_that_names_it(make_facts: Make, tmp_path: Path) -> None:
    write_model_card(tmp_path, make_facts())
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    (target,) = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", card)
    assert ElementTree.parse(tmp_path / target).getroot().tag.endswith("svg")


def test_without_metrics_no_picture(make_facts: Make, tmp_path: Path) -> None:
    write_model_card(tmp_path, make_facts(metrics=[]))
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_training_of_which_nothing_was_known_before_has_no_before(make_facts: Make) -> None:
    summary = SUMMARY | {"heldout_before": BEFORE | {"step": 50}}
    rows = {row[0]: row[1:] for row in cells(section(model_card(make_facts(summary=summary)), "Results"))}
    assert rows["preference accuracy, plain"] == ["–", "70.0% ± 4.6%"]


def _tiny_model(folder: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<unk>", "</s>", "user", "assistant", "why", "?"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}assistant "
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=6,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=1,
        pad_token_id=1,
        max_position_embeddings=300,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return model


def _run_usage(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    ((_, code),) = re.findall(r"^(```+)python\n(.*?)^\1$", section(card, "How to use"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(folder)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    return out.getvalue()


@pytest.mark.parametrize("example", [None, "why ?", [{"role": "user", "content": 'why "?" ``` é'}]])
def test_the_code_of_the_card_runs(
    make_facts: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: Any
) -> None:
    _tiny_model(tmp_path)
    card = model_card(make_facts(repo_id=None, example=example))
    assert _run_usage(card, tmp_path, monkeypatch).endswith("\n")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_code_of_an_adapters_card_runs(make_facts: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model = _tiny_model(base)
    model.config._name_or_path = model.name_or_path = str(base)
    peft_model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    peft_model.save_pretrained(adapter)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (adapter / file).write_bytes((base / file).read_bytes())
    saved = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["base_model_name_or_path"] == str(base)
    card = model_card(make_facts(repo_id=None, adapter="{}"))
    assert _run_usage(card, adapter, monkeypatch).endswith("\n")
