"""Predicted seconds against measured ones: speeds fitted to some packed rows, other rows predicted with them.

Both kinds of rows run in the same rounds, on processor time of one thread: what else the machine does slows both down.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest
import torch

from inspo_hub.calibration import Case, calibration_cases, fit, interleaved_seconds, measure_speed, random_model, step
from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.cost import ModelShape
from inspo_hub.plan.hardware import DEVICES, VCPU
from inspo_hub.plan.memory import KEPT_BYTES
from inspo_hub.plan.timing import (
    NO_WORK,
    Speed,
    Work,
    assumed_speed,
    exchanged_bytes,
    optimizer_seconds,
    step_seconds,
)
from inspo_hub.plan.variants import Variant
from inspo_hub.recipe import load_recipe
from inspo_hub.recipe.shipped import shipped_folder
from inspo_hub.survey import survey
from tests.plan.facts import EIGHT, draw_rows, model_of

CPU = torch.device("cpu")
SMALL_HEAD = ModelShape(hidden=256, layers=2, heads=4, kv_heads=2, intermediate=768, vocab=1000, head_dim=64)
LARGE_HEAD = ModelShape(hidden=256, layers=2, heads=4, kv_heads=2, intermediate=768, vocab=8000, head_dim=64)
CONDITIONED = ("none", "one_sided", "symmetric", "averaged")
LENGTHS = {"alike": (60, 70), "long prompts": (250, 30), "short prompts": (8, 100)}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread, and no denormals, which a CPU multiplies several times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(before)


def cases_to_predict() -> dict[str, Case]:
    cases = {}
    for name, (prompt, response) in LENGTHS.items():
        lengths = [row[:3] for row in draw_rows(4, prompt=prompt, response=response, most=400)]
        for conditioning in CONDITIONED:
            kind = CONDITIONINGS[conditioning]
            cases[f"{name}, {conditioning}"] = Case(lengths, kind(name=conditioning).scores)
    return cases


def speed_of(works: Sequence[Work], seconds: Sequence[float]) -> Speed:
    """What steps that were measured say of the machine."""
    body, attention, head, constant = fit(works, seconds)
    return Speed(
        body=1 / body,
        attention=1 / (attention or body),
        head=1 / (head or body),
        per_micro_batch_s=constant,
        optimizer_bytes_per_s=1e9,
        measured=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", [SMALL_HEAD, LARGE_HEAD], ids=["small head", "large head"])
def test_seconds_are_predicted_within_15_percent(shape: ModelShape, one_thread: None) -> None:
    known, unknown = calibration_cases(1024), cases_to_predict()
    model = random_model(shape, CPU)
    steps = [partial(step, model, case.batch(shape.vocab)) for case in (*known, *unknown.values())]
    seconds = interleaved_seconds(steps, CPU, rounds=6, clock=time.process_time)
    speed = speed_of([case.work(shape) for case in known], seconds[: len(known)])
    predicted = [speed.seconds(case.work(shape)) for case in unknown.values()]
    ratios = dict(zip(unknown, np.array(predicted) / seconds[len(known) :], strict=True))
    # A run is many rows of one conditioning; a single row's seconds jump on a machine that others use too.
    for group in (*LENGTHS, *CONDITIONED):
        members = [ratio for name, ratio in ratios.items() if group in name.split(", ")]
        assert np.mean(members) == pytest.approx(1, abs=0.15), {name: f"{ratio:.2f}" for name, ratio in ratios.items()}


@pytest.mark.slow
def test_the_quickstart_s_steps_are_predicted_within_15_percent(one_thread: None) -> None:
    """Real pairs, packed as the run packs them; the speed comes from rows that have nothing to do with them."""
    variants = survey(load_recipe(shipped_folder() / "quickstart.yaml", ["data.train.0.limit=192"]))
    shape = variants[0].model.shape
    model, known = random_model(shape, CPU), calibration_cases(2048)
    rows = {variant.name: _first_micro_batches(variant, 3) for variant in variants}
    batches = [
        Case(lengths, variant.workload.packing.trained, variant.data.separator).batch(shape.vocab)
        for variant in variants
        for lengths, _ in rows[variant.name]
    ]
    steps = [partial(step, model, batch) for batch in (*(case.batch(shape.vocab) for case in known), *batches)]
    known_work = [case.work(shape) for case in known]
    for _ in range(3):  # others use the machine too: what is predicted right is so in one of three tries
        seconds = interleaved_seconds(steps, CPU, rounds=5, clock=time.process_time)
        speed = speed_of(known_work, seconds[: len(known)])
        measured = np.array(seconds[len(known) :]).reshape(len(variants), 3).sum(axis=1)
        predicted = np.array([sum(speed.seconds(work) for _, work in rows[variant.name]) for variant in variants])
        off = [*(predicted / measured), predicted[1] / predicted[0] / (measured[1] / measured[0])]
        if off == pytest.approx([1.0] * 3, abs=0.15):
            return
    pytest.fail(f"predicted ÷ measured, dpo, inspo, and their ratio: {[round(float(each), 2) for each in off]}")


def _first_micro_batches(variant: Variant, count: int) -> list[tuple[list[tuple[int, int, int]], Work]]:
    """Lengths and FLOPs of the first steps' micro-batches; one each in the quickstart."""
    workload, works = variant.workload, variant.works(kept_bytes=KEPT_BYTES["cpu"])
    found = []
    for shares in workload.dealt(processes=1, budget=8192)[:count]:
        (members,) = shares[0]
        total = NO_WORK
        for row in members:
            total = total.plus(works[row])
        found.append(([workload.rows[row][:3] for row in members], total))
    return found


def test_a_fit_finds_the_rates_that_made_the_seconds() -> None:
    draw = np.random.default_rng(0)
    works = [Work(0.0, *draw.uniform(1e9, 1e11, size=3)) for _ in range(7)]
    rates = (2e-11, 5e-11, 1e-11, 3e-3)
    seconds = [sum(a * b for a, b in zip((*work[1:], 1.0), rates, strict=True)) for work in works]
    assert fit(works, seconds) == pytest.approx(rates, rel=1e-6)


def test_a_fit_gives_no_negative_rate() -> None:
    works = [Work(0.0, size, size / 3, size / 5) for size in (1e9, 2e9, 4e9, 8e9)]
    seconds = [work.body * 1e-11 for work in works]  # the parts cannot be told apart
    found = fit(works, seconds)
    assert min(found) >= 0
    assert [sum(a * b for a, b in zip((*work[1:], 1.0), found, strict=True)) for work in works] == pytest.approx(
        seconds
    )


def test_a_machine_is_measured(one_thread: None) -> None:
    tiny = ModelShape(hidden=32, layers=2, heads=2, kv_heads=2, intermediate=64, vocab=64, head_dim=16)
    speed = measure_speed(tiny, device=CPU, rounds=1, clock=time.process_time)
    assert speed.measured
    assert 1e7 < speed.body < 1e14
    assert speed.optimizer_bytes_per_s > 1e6


def test_assumed_speeds_grow_with_hidden_size_and_peak() -> None:
    small, large = SMALL_HEAD, EIGHT
    assert assumed_speed(DEVICES["H100"], large).body == DEVICES["H100"].peak * DEVICES["H100"].share
    assert assumed_speed(DEVICES["H100"], small).body < assumed_speed(DEVICES["H100"], large).body
    assert assumed_speed(DEVICES["L4"], large).body < assumed_speed(DEVICES["A100"], large).body
    assert assumed_speed(VCPU, small, units=8, on_gpu=False).body == 8 * VCPU.peak * VCPU.share
    assert not assumed_speed(DEVICES["H100"], large).measured


def test_a_gpu_waits_for_its_launches() -> None:
    speed = assumed_speed(DEVICES["H100"], EIGHT)
    assert speed.seconds(NO_WORK) >= EIGHT.layers * 1e-3
    assert speed.seconds(Work(0, 1e16, 0, 0)) == pytest.approx(1e16 / speed.body + speed.per_micro_batch_s)


def test_exchange_hides_behind_products_until_it_takes_longer() -> None:
    speed = Speed(body=1.0, attention=1.0, head=1.0, per_micro_batch_s=0.0, optimizer_bytes_per_s=1.0)
    works = [Work(0, 3, 0, 0), Work(0, 1, 0, 0)]
    assert step_seconds(works, speed, link=0.0, per_micro_batch=9, per_step=9) == 4
    assert step_seconds(works, speed, link=1.0, per_micro_batch=1, per_step=0) == 4
    assert step_seconds(works, speed, link=1.0, per_micro_batch=2, per_step=0) == 3 + 2
    assert step_seconds(works, speed, link=1.0, per_micro_batch=0, per_step=2) == 4 + 1.5


def test_what_engines_exchange() -> None:
    model = model_of(EIGHT)
    size = model.parameters
    assert exchanged_bytes(model, size, "single", 1) == (0, 0)
    assert exchanged_bytes(model, size, "ddp", 2) == (0, 4 * size)
    assert exchanged_bytes(model, size, "zero3", 8) == (pytest.approx(7 / 8 * 6 * size), 0)
    gathered, reduced = exchanged_bytes(model, size, "fsdp2", 8)
    assert (gathered, reduced) == (pytest.approx(7 / 8 * 4 * size), pytest.approx(7 / 8 * 2 * size))


def test_an_optimizer_step_is_bound_by_memory() -> None:
    speed = assumed_speed(DEVICES["H200"], EIGHT)
    assert optimizer_seconds(speed, 8e9) == pytest.approx(40 * 8e9 / (0.7 * 4800e9))
