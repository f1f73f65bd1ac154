"""The benchmark itself: sides compute the same thing, the arithmetic is right, the command writes what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inspo_hub.kernels import Choice
from inspo_hub.views import SCORES
from tests.bench import growth, kernels, pipeline
from tests.bench.attention import compare
from tests.bench.case import SHAPES, Case
from tests.bench.cli import main
from tests.bench.lengths import LAWS, bench_pairs, padded_tokens, typical_step
from tests.bench.machine import describe
from tests.bench.measure import CaseResult, Disagreement, SideResult, measure_case
from tests.bench.presets import FULL, LEAST_MFU, PRESETS, TARGETS, Target
from tests.bench.report import markdown
from tests.bench.sides import ABOUT, SIDES, SideName, SideUnavailable, make_side
from tests.bench.sides.plain import Floor, ReferenceFloor
from tests.bench.workload import Workload
from tests.oracle import plain_logps

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # transformers' own deprecations, which TRL still uses
    pytest.mark.filterwarnings("ignore:.*experimental.*"),
]
TINY = Case(shape="tiny", max_length=48, pairs=4, batch=2, tokens_per_microbatch=256, separator=2)
OURS = (
    "none",
    "one_sided",
    "symmetric",
    "averaged",
    "symmetric:flat",
    "symmetric:checkpointing",
    "symmetric:recomputed",
)
PLAIN = ("naive", "naive_plain_reference", "unpadded", "floor", "floor:checkpointing", "reference_pass")
PEERS = ("trl", "trl@1", "trl:checkpointing", "trl_precomputed", "trl_best", "trl_reference_pass")


@pytest.fixture(autouse=True)
def restore_torch() -> Iterator[None]:
    """The command sets threads and denormals for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return Workload(TINY)


def expected_loss(workload: Workload, policy_scores: tuple[str, str], reference_scores: tuple[str, str]) -> float:
    """DPO's mean loss from one plain forward per path."""
    logps = {}
    with torch.no_grad():
        for owner, model in (("policy", workload.policy), ("reference", workload.reference)):
            logps[owner] = plain_logps(model, workload.pairs, SCORES, separator=workload.separator)
    chosen, rejected = (
        logps["policy"][ours] - logps["reference"][theirs]
        for ours, theirs in zip(policy_scores, reference_scores, strict=True)
    )
    return float(-F.logsigmoid(0.1 * (chosen - rejected)).mean())


PLAIN_SCORES = ("chosen", "rejected")
CONDITIONED = ("chosen_given_rejected", "rejected_given_chosen")


@pytest.mark.parametrize(
    ("side", "policy", "reference"),
    [
        ("none", PLAIN_SCORES, PLAIN_SCORES),
        ("symmetric", CONDITIONED, PLAIN_SCORES),
        ("symmetric:flat", CONDITIONED, PLAIN_SCORES),
        ("symmetric:recomputed", CONDITIONED, PLAIN_SCORES),
        ("symmetric:stopped", CONDITIONED, PLAIN_SCORES),
        ("one_sided", ("chosen_given_rejected", "rejected"), ("chosen_given_rejected", "rejected")),
        ("naive", CONDITIONED, CONDITIONED),
        ("naive@4", CONDITIONED, CONDITIONED),
        ("naive_plain_reference", CONDITIONED, PLAIN_SCORES),
        ("unpadded", CONDITIONED, PLAIN_SCORES),
    ],
)
def test_a_side_computes_what_its_name_says(
    workload: Workload, side: str, policy: tuple[str, str], reference: tuple[str, str]
) -> None:
    workload.clear_gradients()
    loss = float(make_side(side, workload).step())
    assert loss == pytest.approx(expected_loss(workload, policy, reference), abs=2e-5)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in workload.policy.parameters())
    assert all(p.grad is None for p in workload.reference.parameters())


@pytest.mark.parametrize("side", ["trl", "trl@1", "trl_precomputed"])
def test_trl_computes_dpo_on_the_same_pairs(workload: Workload, side: str) -> None:
    pytest.importorskip("trl", minversion="1.16")
    workload.clear_gradients()
    loss = float(make_side(side, workload).step())
    assert loss == pytest.approx(expected_loss(workload, PLAIN_SCORES, PLAIN_SCORES), abs=2e-5)


def test_the_floor_reads_exactly_the_tokens_that_symmetric_lays_out(workload: Workload) -> None:
    floor = make_side("floor", workload)
    assert isinstance(floor, Floor)
    members = list(range(TINY.pairs))
    packed = workload.pack(members, CONDITIONED, "tree")
    row = floor._row(members)
    assert sum(row.lengths) == packed.tokens
    assert sorted(row.ids[0].tolist()) == sorted(packed.input_ids[0].tolist())
    assert len(row.targets) == sum(len(packed.scored[score].targets) for score in CONDITIONED)
    for pair in workload.pairs:
        assert list(pair.chosen) != list(pair.rejected)


def test_the_floor_is_a_plain_causal_model(workload: Workload) -> None:
    """Its loss and gradient are those of one ordinary forward per run."""
    workload.clear_gradients()
    floor = make_side("floor", workload)
    loss = float(floor.step())
    gradient = workload.policy.model.embed_tokens.weight.grad.clone()
    workload.clear_gradients()
    total = torch.zeros(())
    for members in floor.micro_batches:
        pairs = [workload.pairs[member] for member in members]
        scored = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
        for pair in pairs:
            x, w, y = list(pair.prompt), list(pair.chosen), list(pair.rejected)
            for run, target in ((x + y + workload.separator + w, w), (w + workload.separator + y, y)):
                logits = workload.policy(input_ids=torch.tensor([run])).logits[0, -len(target) - 1 : -1]
                total = total + F.cross_entropy(logits, torch.tensor(target), reduction="sum") / scored
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    torch.testing.assert_close(gradient, workload.policy.model.embed_tokens.weight.grad, rtol=1e-3, atol=1e-6)


def test_sides_share_weights_and_gradients_but_not_their_patches(workload: Workload) -> None:
    first, second = workload.fresh_policy(), workload.fresh_policy(checkpointing=True)
    assert all(a is b for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first.config is not second.config
    assert second.is_gradient_checkpointing
    assert not first.is_gradient_checkpointing


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_measures_every_side_and_writes_both_files(tmp_path: Path) -> None:
    pytest.importorskip("trl", minversion="1.16")
    sides = (*OURS, *PLAIN, *PEERS)
    written = tmp_path / "speed.json", tmp_path / "speed.md"
    arguments = ["--shape", "tiny", "--max-length", "48", "--pairs", "4", "--batch", "2", "--runs", "2", "--no-memory"]
    arguments += [
        "--device",
        "cpu",
        "--sides",
        ",".join(sides),
        "--json",
        str(written[0]),
        "--markdown",
        str(written[1]),
    ]
    assert main(arguments) == 0
    record = json.loads(written[0].read_text())
    (case,) = record["cases"]
    assert set(case["sides"]) == set(sides)
    for name, side in case["sides"].items():
        assert not side["unavailable"], (name, side["unavailable"])
        assert len(side["wall"]) == len(side["cpu"]) == 2
        assert min(side["wall"]) > 0
    assert case["clock"] == "cpu"
    assert {"cpu", "versions", "threads", "load_average"} <= set(record["machine"])
    text = written[1].read_text()
    assert text.startswith("`python -m tests.bench --shape tiny")
    assert "| ÷ trl |" in text
    assert "Our reference pass ÷ TRL's: **" in text
    assert "precomputed reference, per-device batch" in text


def test_sides_that_should_agree_and_do_not_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.bench.sides import plain

    monkeypatch.setattr(plain, "_BETA", 0.2)
    with pytest.raises(Disagreement, match=r"unpadded has loss .*, symmetric "):
        measure_case(TINY, ["symmetric", "unpadded"], runs=1, memory=False)


def test_a_side_that_cannot_run_is_reported_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.bench.sides import plain

    monkeypatch.setattr(plain, "_MOST_LOGITS", 0.0)
    result = measure_case(TINY, ["symmetric", "naive"], runs=1, memory=False)
    assert not result.measured("naive")
    text = markdown([result], {"versions": {}, **dict.fromkeys(MACHINE, 0), "load_average": [0]}, "command")
    assert "not run: full logits would take" in text


MACHINE = ("gpu", "cpu", "threads", "cores", "memory_gb", "system", "python", "commit")


@pytest.mark.slow
def test_peak_memory_is_measured_in_a_process_of_its_own() -> None:
    """A step with gradients takes more than the reference pass, and at least the gradients."""
    case = Case(shape="3m", max_length=256, pairs=4, batch=4)
    result = measure_case(case, ["symmetric", "floor", "naive", "reference_pass"], runs=1, memory=True)
    peaks = {name: side.peak_bytes for name, side in result.sides.items()}
    if peaks["symmetric"] is None:
        pytest.skip("this system does not reset its high-water mark")
    weights = 4 * (case.model.body_params + 2 * case.model.head_params)
    assert peaks["symmetric"] > weights
    assert peaks["reference_pass"] < peaks["symmetric"]
    assert peaks["naive"] > peaks["symmetric"] + weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sides", "symetric"], "unknown side 'symetric'; known are none"),
        (["--sides", "symmetric:fast"], "unknown option"),
        (["--lengths", "huge"], "unknown lengths or shape"),
        (["--pairs", "6", "--batch", "4"], "not a multiple"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(arguments)


def test_the_list_names_every_preset_and_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    for name in (*PRESETS, "full", "attention", "pipeline", *(f"`{side}`" for side in SIDES)):
        assert name in printed
    assert set(ABOUT) == set(SIDES)


def test_presets_are_runnable_as_written() -> None:
    assert set(FULL) <= set(PRESETS)
    for name, preset in PRESETS.items():
        assert preset.cases, name
        assert {SideName.parse(side).name for side in preset.sides} <= set(SIDES)
        for case in preset.cases:
            assert case.shape in SHAPES
            assert case.pairs % case.batch == 0, (name, case)


def test_targets_speak_of_the_cases_that_the_presets_measure() -> None:
    here = [case for preset in PRESETS.values() for case in preset.cases]
    cases = here + [case.on(torch.device("cuda")) for case in PRESETS["gpu"].cases]
    assert {case.shape for case in cases} >= set(LEAST_MFU)
    for target in TARGETS:
        assert any(target.applies(case) for case in cases), target
    assert not Target("symmetric", "trl", 0.6).applies(Case(batch=1))


def test_a_side_that_does_not_fit_is_reported_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.bench.sides import plain

    def run_out(*_args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(plain.UnpaddedStep, "step", run_out)
    result = measure_case(TINY, ["symmetric", "unpadded"], runs=1, memory=False)
    assert result.sides["unpadded"].unavailable == "out of memory"
    assert len(result.sides["symmetric"].wall) == 1
    assert "| unpadded | not run: out of memory |" in markdown([result], describe(), "")


def test_what_a_gpu_did_of_what_it_could_is_held_against_its_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.report.peak_flops", lambda: 1e15)
    sides = {"symmetric": SideResult(wall=[2.0, 2.0, 4.0], model_flops=9e14), "floor": SideResult(wall=[1.5, 1.9, 3.9])}
    case = Case(shape="8b").on(torch.device("cuda"))
    text = markdown([CaseResult(case=case, clock="wall", lengths=[(1, 1, 1)], sides=sides)], describe(), "")
    assert "| symmetric, MFU | ≥ 50% | 45.0% | missed by 10% |" in text
    assert "| symmetric ÷ floor | ≤ 1.10 | 1.053 | met |" in text
    assert "| symmetric | 2.00 | 2.00–4.00 |  | 45.0% MFU |" in text


def test_kernels_are_listed_with_their_times_and_with_why_not() -> None:
    (attention, capped, softmax) = kernels.measure(("tiny",), pairs=2, device=torch.device("cpu"))
    assert attention.choice.name == capped.choice.name == "blocks"
    choice = Choice(name="a", milliseconds={"a": 1.0, "b": 2.5}, refused={"c": "RuntimeError: no"})
    text = kernels.markdown([replace(softmax, choice=choice), attention])
    assert "| tiny | softmax, 512 tokens | **a** | a 1.00, b 2.50 | c: RuntimeError: no |" in text
    assert "| **blocks** | the only one there is |" in text


# --- its arithmetic ---------------------------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    """The machine got three times slower in the last round; the sides' ratio did not change."""
    ours, theirs = SideResult(cpu=[1.0, 2.0, 6.0]), SideResult(cpu=[2.0, 4.1, 12.0])
    result = CaseResult(case=TINY, clock="cpu", lengths=[(1, 1, 1)], sides={"symmetric": ours, "trl": theirs})
    assert result.ratio("symmetric", "trl") == pytest.approx(0.5)
    assert result.ratios("symmetric", "trl") == pytest.approx([0.5, 2 / 4.1, 0.5])


def test_padding_is_counted_batch_by_batch() -> None:
    rows = np.array([[[3, 5], [2, 2], [9, 1], [4, 4]]])
    assert padded_tokens(rows, 2).tolist() == [4 * 5 + 4 * 9]
    assert padded_tokens(rows, 1).tolist() == [2 * (5 + 2 + 9 + 4)]
    assert padded_tokens(rows, 4).tolist() == [8 * 9]


def test_the_typical_step_is_near_the_average_of_many() -> None:
    lengths = LAWS["ultrafeedback"].draw(np.random.default_rng(3), 8 * 400, 2048).reshape(400, 8, 3)
    step = lengths[typical_step(lengths, 4)]
    tokens = (lengths[..., 0] + 2 * lengths[..., 1:].sum(-1)).sum(-1)
    rows = lengths[..., :1] + lengths[..., 1:]
    assert (step[:, 0] + 2 * step[:, 1:].sum(-1)).sum() == pytest.approx(tokens.mean(), rel=0.05)
    assert padded_tokens((step[:, :1] + step[:, 1:])[None], 4)[0] == pytest.approx(
        padded_tokens(rows, 4).mean(), rel=0.05
    )


MEANS = {"ultrafeedback": (186, 365), "long_prompts": (951, 241), "short_prompts": (48, 480)}


@pytest.mark.parametrize("law", sorted(MEANS))
def test_lengths_have_the_means_that_the_tables_speak_of(law: str) -> None:
    means = MEANS[law]
    lengths = LAWS[law].draw(np.random.default_rng(0), 100_000, 2048)
    assert lengths[:, 0].mean() == pytest.approx(means[0], rel=0.04)
    assert lengths[:, 1:].mean() == pytest.approx(means[1], rel=0.04)
    assert (lengths[:, :1] + lengths[:, 1:]).max() <= 2048
    assert lengths.min() >= 1


@pytest.mark.parametrize("law", sorted(set(LAWS) - set(MEANS)))
def test_filled_pairs_are_as_long_as_they_may_be_and_of_the_shape_that_they_say(law: str) -> None:
    share = int(law.rpartition("_")[2]) / 100
    lengths = LAWS[law].draw(np.random.default_rng(0), 1000, 1024)
    assert lengths[:, 0].mean() == pytest.approx((1 - share) * 1024, abs=1)
    assert lengths[:, 1:].mean() == pytest.approx(0.9 * share * 1024, rel=0.02)
    longest = lengths[:, 0] + lengths[:, 1:].max(axis=1)
    assert 0.8 * 1024 < longest.min() <= longest.max() <= 1025


def test_pairs_are_drawn_alike_every_time_and_end_in_the_end_token() -> None:
    options = {"pairs": 4, "max_length": 96, "vocab": 50, "batch": 2}
    first, again = (bench_pairs("ultrafeedback", seed=5, **options) for _ in range(2))
    assert first == again != bench_pairs("ultrafeedback", seed=6, **options)
    for pair in first:
        assert pair.chosen[-1] == pair.rejected[-1] == 1
        assert max(*pair.prompt, *pair.chosen, *pair.rejected) < 50


def test_growth_is_drawn_from_the_commands_json(tmp_path: Path) -> None:
    """Theory beside measurement: a machine of one FLOP/s per second gives equal curves."""
    results = []
    for case in growth.CASES:
        lengths = LAWS[case.lengths].draw(np.random.default_rng(0), case.pairs, case.max_length).tolist()
        result = {"case": case.to_json(), "clock": "cpu", "lengths": lengths}
        sides = {
            side: {"cpu": [growth.step_flops(result, side)] * 3, "wall": [], "peak_bytes": 10**6 * case.pairs}
            for side in growth.SIDES
        }
        results.append(result | {"sides": sides})
    drawn = growth.charts(results)
    seconds = {series.name: series.points for series in drawn[0].series}
    assert [x for x, _ in seconds["symmetric"]] == list(growth.PAIRS)
    for (_, measured), (_, theory) in zip(seconds["symmetric"], seconds["symmetric, by its FLOPs"], strict=True):
        assert measured == pytest.approx(theory)
    ratios = {series.name: dict(series.points) for series in drawn[4].series}
    assert ratios["measured"] == pytest.approx(ratios["by FLOPs"])
    # x + 2w + 2l tokens against x + w + l: nearly twice where all is response, little more where all is prompt.
    assert ratios["by tokens"][0.95] == pytest.approx((0.05 + 4 * 0.855) / (0.05 + 2 * 0.855), rel=0.02)
    assert 1 < ratios["by tokens"][0.2] < 1.4
    (tmp_path / "growth.json").write_text(json.dumps({"cases": results}))
    assert growth.main([str(tmp_path / "growth.json"), "--output", str(tmp_path / "growth.svg")]) == 0
    picture = (tmp_path / "growth.svg").read_text()
    assert picture.startswith("<svg")
    assert "symmetric ÷ TRL" in picture


def test_the_reference_floor_reads_the_tokens_of_the_reference_pass(workload: Workload) -> None:
    floor = make_side("reference_floor", workload)
    assert isinstance(floor, ReferenceFloor)
    members = list(range(TINY.pairs))
    packed = workload.pack(members, PLAIN_SCORES, "tree")
    row = floor._row(members)
    assert sum(row.lengths) == packed.tokens
    assert sorted(row.ids[0].tolist()) == sorted(packed.input_ids[0].tolist())
    pair = workload.pairs[0]
    path = list(pair.prompt) + list(pair.chosen)
    with torch.no_grad():
        logits = workload.policy(input_ids=torch.tensor([path])).logits[0, len(pair.prompt) - 1 : -1]
        expected = logits.log_softmax(1).gather(1, torch.tensor(pair.chosen)[:, None]).sum()
        hidden = floor._hidden(row)[row.positions[: len(pair.chosen)]]
        logps = (hidden @ workload.policy.lm_head.weight.mT).log_softmax(1)
    got = logps.gather(1, row.targets[: len(pair.chosen), None]).sum()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert float(floor.step()) < 0


def test_what_surrounds_a_step_is_measured() -> None:
    balance, flops, waste = pipeline._dealing(steps=3)
    assert 1 <= float(balance.measured) < 1.2
    assert 1 <= float(flops.measured) < 1.2
    assert waste.measured.endswith("%")
    prepared, cached, memory = pipeline._preparation(12)
    assert prepared.what.startswith("data preparation, 12 pairs")
    assert "instead of" in cached.measured
    assert memory.measured.endswith("MB")
    text = pipeline.markdown([balance, pipeline.Figure("slow", "3", "≤ 2", False)])
    assert "| slow | 3 | ≤ 2 | missed |" in text


def test_unknown_side_options_are_refused() -> None:
    assert SideName.parse("trl@16:checkpointing") == SideName(name="trl", batch=16, checkpointing=True)
    with pytest.raises(ValueError, match="unknown option"):
        SideName.parse("trl:quick")
    assert issubclass(SideUnavailable, Exception)


def test_attention_is_compared_on_every_shape_of_heads() -> None:
    comparison = compare(runs=2, max_length=64, laws=("ultrafeedback",))
    assert len(comparison.seconds) == 3
    for key, sides in comparison.seconds.items():
        assert set(sides) == {"tree", "separate", "runs"}
        assert comparison.ratio(key, "separate") > 0
    assert comparison.markdown().count("\n| ultrafeedback |") == 3


@pytest.mark.gpu
def test_the_gpu_sides_run_and_agree() -> None:
    result = measure_case(
        TINY.on(torch.device("cuda")), ["symmetric", "none", "trl", "naive", "floor"], runs=1, memory=True
    )
    assert all(side.peak_bytes for side in result.sides.values())
    assert result.clock == "wall"
