"""Offsets against plain forwards; the margin and the gate against their definitions, on numbers made for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from inspo_hub.doctor.conditioned import MARGIN_SPREAD, gate_finding, margin_findings, offset_finding
from inspo_hub.doctor.offsets import Offsets, Scorer, measure_offsets
from inspo_hub.logprobs import prepare_model
from inspo_hub.pairs import PreferencePair
from inspo_hub.recipe import Recipe, parse_recipe
from tests.oracle import plain_logps

RECIPE = """\
version: 1
name: r
model: {{id: owner/model}}
data: {{train: [{{id: owner/pairs}}]}}
train: {{lr: 5e-7}}
{}
"""


def recipe(text: str = "") -> Recipe:
    return parse_recipe(RECIPE.format(text))


def ids(count: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(5, 60, size=count)]


PAIRS = [
    PreferencePair(prompt=ids(3 + n, n), chosen=ids(4 + n % 3, 20 + n), rejected=ids(5 + n % 4, 40 + n))
    for n in range(5)
]
SEPARATOR = (3, 4)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=256, **sizes)).eval()


@pytest.mark.parametrize(("layout", "limit", "max_length"), [("tree", None, 200), ("flat", 3, 200), ("tree", None, 19)])
def test_offsets_are_differences_of_plain_forwards(model: Any, layout: Any, limit: int | None, max_length: int) -> None:
    scorer = Scorer(
        model=prepare_model(model, layout=layout),
        layout=layout,
        tokens_per_microbatch=60,  # several micro-batches
        max_length=max_length,
        max_alternative_tokens=limit,
        compute_dtype=torch.float32,
    )
    found = measure_offsets(scorer, PAIRS, SEPARATOR)

    def given(alternatives: list[list[int]]) -> np.ndarray:
        pairs = [
            replace(
                pair,
                rejected=other,
                max_alternative_tokens=max(0, max_length - len(pair.prompt) - 2 - len(pair.chosen)),
            )
            for pair, other in zip(PAIRS, alternatives, strict=True)
        ]
        scores = plain_logps(
            model, pairs, ("chosen_given_rejected",), separator=SEPARATOR, max_alternative_tokens=limit
        )
        return scores["chosen_given_rejected"].detach().double().numpy()

    plain = plain_logps(model, PAIRS, ("chosen",))["chosen"].detach().double().numpy()
    np.testing.assert_allclose(found.itself, given([list(p.chosen) for p in PAIRS]) - plain, atol=1e-5)
    strangers = [list(PAIRS[(n + 1) % 5].rejected) for n in range(5)]
    np.testing.assert_allclose(found.foreign, given(strangers) - plain, atol=1e-5)
    partner = plain_logps(model, PAIRS, ("chosen_given_rejected",), separator=SEPARATOR, max_alternative_tokens=limit)
    np.testing.assert_allclose(
        found.partner, partner["chosen_given_rejected"].detach().double().numpy() - plain, atol=1e-5
    )


def made(
    partner: float = -2.0, itself: float = 4.0, foreign: float = -8.0, *, spread: float = 1.0, pairs: int = 400
) -> Offsets:
    """Offsets with these means; each response has ten tokens and -15 nats."""
    draw = np.random.default_rng(0)

    def around(mean: float) -> np.ndarray:
        noise = draw.normal(size=pairs)
        return mean + spread * (noise - noise.mean()) / noise.std()

    plain = {"chosen": np.full(pairs, -15.0), "rejected": np.full(pairs, -17.0)}
    return Offsets(
        scores={
            "chosen": plain["chosen"],
            "rejected": plain["rejected"],
            "chosen_given_rejected": plain["chosen"] + around(partner),
            "rejected_given_chosen": plain["rejected"] + partner,
        },
        given_itself=plain["chosen"] + around(itself),
        given_foreign=plain["chosen"] + foreign,
        chosen_tokens=np.full(pairs, 10),
        rejected_tokens=np.full(pairs, 10),
    )


@pytest.mark.parametrize(
    ("text", "expected", "severity"),
    [
        ("objective: {name: dpo, beta: 0.2}", 0.2, "ok"),
        ("objective: {name: dpo, beta: 0.4}", 0.4, "warning"),
        ("objective: {name: sigmoid_norm, beta: 2.0}", 0.2, "ok"),  # of means over ten tokens
        ("objective: {name: dpo, beta: 0.4}\nreference: {context: conditioned}", 0.0, "ok"),
        ("objective: {name: dpo, beta: 0.4}\nconditioning: averaged", 0.4, "warning"),
    ],
)
def test_the_margin_is_that_of_the_recipes_own_reward(text: str, expected: float, severity: str) -> None:
    line = text if "conditioning" in text else f"{text}\nconditioning: symmetric"
    (finding,) = margin_findings({"inspo": recipe(line)}, made(spread=1.0), None)
    context = "conditioned" if expected == 0 else "plain"
    assert finding.numbers[context]["std"] == pytest.approx(expected, abs=1e-5)
    assert finding.numbers["conditioned"]["mean"] == 0
    assert finding.severity == severity
    assert (expected > MARGIN_SPREAD) == ("set reference.context: conditioned" in finding.do)
    assert finding.variants == ("inspo",)


def test_the_loss_at_step_0_is_that_of_the_margins() -> None:
    (finding,) = margin_findings({"inspo": recipe("objective: {name: dpo, beta: 0.4}")}, made(), None)
    margins = 0.4 * (made().scores["chosen_given_rejected"] + 15 - (-2))
    assert finding.numbers["plain"]["loss"] == pytest.approx(np.logaddexp(0, -margins).mean(), abs=1e-6)
    assert finding.numbers["conditioned"]["loss"] == pytest.approx(np.log(2))


def test_another_reference_moves_the_margin() -> None:
    shifted = made()
    shifted.scores["chosen"] -= 5
    (finding,) = margin_findings({"inspo": recipe()}, made(), shifted)
    (own,) = margin_findings({"inspo": recipe()}, made(), None)
    assert finding.numbers["plain"]["mean"] == pytest.approx(own.numbers["plain"]["mean"] + 0.1 * 5)


def test_variants_that_start_alike_are_told_together_and_those_without_a_reference_not_at_all() -> None:
    variants = {
        "a": recipe(),
        "b": recipe(),
        "simpo": recipe("objective: simpo"),
        "c": recipe("objective: {name: dpo, beta: 1.0}"),
    }
    assert [finding.variants for finding in margin_findings(variants, made(), None)] == [("a", "b"), ("c",)]


@pytest.mark.parametrize(
    ("offsets", "conditioning", "severity", "told"),
    [
        (made(), "symmetric", "ok", "can reach"),
        (made(-9, 3, -14), "symmetric", "advice", "strange text"),  # reads, in a format that costs it much
        (made(-26, -25.5, -25.8), "symmetric", "warning", "does not read"),
        (made(-26, -25.5, -25.8), "averaged", "advice", "does not read"),
    ],
)
def test_the_gate_tells_who_reads(offsets: Offsets, conditioning: str, severity: str, told: str) -> None:
    finding = gate_finding(offsets, {"inspo": recipe(f"conditioning: {conditioning}")})
    assert finding.severity == severity
    assert told in finding.means
    assert ("averaged or annealed" in finding.do) == (severity == "warning")
    assert finding.numbers["reading"]["mean"] == pytest.approx(offsets.itself.mean() - offsets.foreign.mean())


def test_a_better_format_is_named() -> None:
    strange, familiar = made(-40, -38, -44), made()
    found = offset_finding({"concat": strange, "turn": familiar}, "concat")
    assert found.severity == "advice"
    assert "set alternative.format: turn, which costs 13% of a response's nats" in found.do
    assert "partner -40.0" in found.measured
    assert offset_finding({"concat": strange, "turn": familiar}, "turn").severity == "ok"
    alone = offset_finding({"turn": strange}, "turn")
    assert "reference.context: conditioned" in alone.do
    assert "alternative.turn_text" in alone.do
