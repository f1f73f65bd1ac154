"""Which machine, which engine, which budget, how long and for how much."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from inspo_hub.errors import RecipeError
from inspo_hub.hub import Hardware
from inspo_hub.plan.estimate import Here, estimate, percentiles
from inspo_hub.plan.hardware import DEVICES, FLAVOURS, Flavour, PriceList, price_list
from inspo_hub.plan.machines import BUDGETS, Machines
from inspo_hub.plan.memory import ENGINES
from inspo_hub.plan.report import to_markdown, to_text
from inspo_hub.plan.results import Estimate, OverBudget
from inspo_hub.plan.timing import Speed, assumed_speed
from tests.plan.facts import EIGHT, SMALL, data_of, draw_rows, variant_of

ROWS = draw_rows(200)
TABLE = price_list(None)


def plan(*, shape: object = EIGHT, pairs: int = 20_000, **options: object) -> Estimate:
    keys = {key: options.pop(key) for key in ("train", "adapter", "conditioning") if key in options}
    variant = variant_of(ROWS, shape=shape, pairs=pairs, heldout=50, **keys)
    return estimate([variant], TABLE, **options)


def named(found: Estimate, name: str) -> object:
    return next(machine for machine in found.machines if machine.flavour.name == name)


# --- prices


def test_the_table_has_the_hub_s_machines_with_their_date() -> None:
    assert len(TABLE.flavours) == len({flavour.name for flavour in TABLE.flavours}) == 26
    assert "2026-11-23" in TABLE.source
    assert {flavour.gpu for flavour in TABLE.flavours if flavour.gpus} <= set(DEVICES)
    assert TABLE.named("h200x8") == Flavour(
        name="h200x8", usd_per_hour=40, vcpus=184, ram_gb=2048, disk_gb=24_000, gpus=8, gpu="H200", gpu_gb=141
    )
    assert TABLE.named("h900") is None


def listed(**changes: object) -> Hardware:
    plain = Hardware(name="x", cpu="8 vCPU", ram="62 GB", disk="1 TB", usd_per_unit=0.03, unit="minute")
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("L40S", "L40S"), ("L4", "L4"), ("Nvidia A10G", "A10G"), ("A100 80GB", "A100"), ("H200", "H200"),
        ("RTX PRO 6000", "RTX PRO 6000"), ("rtx-pro-6000", "RTX PRO 6000"), ("B300", "B300"),
    ],
)  # fmt: skip
def test_the_hub_s_own_list_wins(model: str, kind: str) -> None:
    gpu = listed(name="new", accelerator=model, accelerator_type="gpu", accelerators=4, vram="192 GB")
    prices = price_list([listed(), gpu])
    assert [flavour.name for flavour in prices.flavours] == ["x", "new"]
    cpu, found = prices.flavours
    assert (cpu.usd_per_hour, cpu.vcpus, cpu.ram_gb, cpu.disk_gb, cpu.gpus) == (pytest.approx(1.8), 8, 62, 1000, 0)
    assert (found.gpus, found.gpu, found.gpu_gb) == (4, kind, 48)
    assert (found.device is None) == (kind == "B300")


def test_what_is_no_gpu_or_not_paid_by_time_is_left_out() -> None:
    neuron = listed(accelerator="Inferentia", accelerator_type="neuron", accelerators=1, vram="32 GB")
    assert price_list([neuron, listed(unit="token")]).flavours == ()


# --- what fits


def test_an_8b_model_needs_many_gpus_or_an_adapter() -> None:
    found = plan()
    assert named(found, "a100-large").setting is None
    assert "GB" in named(found, "a100-large").why_not
    assert named(found, "h200x2").setting.engine in ("zero2", "zero3", "fsdp2")
    assert named(found, "t4-small").why_not.startswith("loading takes 35 GB of main memory")
    assert found.chosen.setting.devices > 1
    small = plan(adapter={"r": 16})
    assert named(small, "a100-large").setting.engine == "single"
    assert small.chosen.usd < found.chosen.usd


def test_every_setting_that_is_chosen_fits_and_the_next_budget_does_not_help() -> None:
    variant = variant_of(ROWS, pairs=20_000)
    machines = Machines([variant])
    for flavour in FLAVOURS:
        device = flavour.device
        speed = assumed_speed(device, EIGHT, units=1 if flavour.gpus else flavour.vcpus, on_gpu=flavour.gpus > 0)
        found = machines.estimate(flavour, speed)
        if found.setting is None:
            continue
        room = machines.capacity(flavour)
        assert found.memory.total <= room
        assert found.setting.tokens_per_microbatch in BUDGETS
        for setting in machines.settings(flavour):
            if machines.memory(setting, on_gpu=flavour.gpus > 0).total <= room:
                seconds = sum(machines._training_seconds(setting, speed, flavour).values())
                assert seconds >= found.hours.seconds["training"] / 1.011


def test_ddp_is_chosen_where_a_model_fits_on_one_gpu() -> None:
    found = plan(shape=SMALL, gpus=4)
    assert {machine.flavour.gpus for machine in found.machines} == {4}
    assert {machine.setting.engine for machine in found.machines} == {"ddp"}


def test_a_recipe_s_own_recomputation_is_kept() -> None:
    for wanted in (True, False):
        found = plan(shape=SMALL, train={"activation_checkpointing": wanted})
        assert {machine.setting.checkpointing for machine in found.machines if machine.setting} == {wanted}


def test_more_gpus_take_less_time_and_fill_no_more_memory() -> None:
    found = plan()
    hours = [named(found, name).hours.seconds["training"] for name in ("h200x2", "h200x4", "h200x8")]
    assert hours == sorted(hours, reverse=True)
    assert hours[0] / hours[-1] < 4.5
    assert list(found.memory) == [1, 2, 4, 8]
    assert list(found.memory[1]) == ["single"]
    for engine in ("zero2", "zero3", "fsdp2"):
        sizes = [found.memory[count][engine] for count in (2, 4, 8)]
        assert sizes == sorted(sizes, reverse=True)


def test_a_gpu_of_unknown_speed_is_shown_without_hours() -> None:
    unknown = Flavour(name="b900", usd_per_hour=9, vcpus=8, ram_gb=500, disk_gb=5000, gpus=1, gpu="B900", gpu_gb=288)
    found = estimate([variant_of(ROWS, pairs=20_000)], PriceList([unknown], "made"))
    (machine,) = found.machines
    assert (machine.hours, machine.usd, found.chosen) == (None, None, None)
    assert machine.setting is not None
    assert "no speed is known" in machine.why_not
    assert "no flavour holds this run" in to_text("x", found)


def test_disks_that_are_too_small_are_told() -> None:
    found = plan(shape=EIGHT, train={"keep_checkpoints": 20})
    assert "GB of disk, it has 950" in named(found, "rtx-pro-6000x2").why_not


# --- choosing and paying


def test_auto_takes_the_cheapest_that_is_done_in_a_day() -> None:
    found = plan()
    in_time = [machine for machine in found.machines if machine.hours and machine.hours.total <= 24]
    assert found.chosen.usd == pytest.approx(min(machine.usd for machine in in_time), abs=0.01)
    endless = plan(pairs=50_000_000)
    timed = [machine for machine in endless.machines if machine.hours]
    assert endless.chosen.hours.total == min(machine.hours.total for machine in timed) > 24


def test_a_flavour_can_be_asked_for() -> None:
    assert plan(flavor="h200x8").chosen.flavour.name == "h200x8"
    with pytest.raises(RecipeError, match=r"no flavour 'h900'[\s\S]*h200x8"):
        plan(flavor="h900")
    with pytest.raises(RecipeError, match=r"does not fit on l4x1: (loading|needs)"):
        plan(flavor="l4x1")
    with pytest.raises(RecipeError, match="h200x8 has 8 GPUs, not 2"):
        plan(flavor="h200x8", gpus=2)


def test_max_usd_refuses_with_numbers() -> None:
    found = plan()
    found.require_at_most(found.chosen.usd + 0.01)
    with pytest.raises(OverBudget) as refused:
        found.require_at_most(0.5)
    facts = refused.value.to_dict()
    assert refused.value.exit_code == 2
    assert (facts["usd"], facts["max_usd"], facts["flavor"]) == (
        found.chosen.usd,
        0.5,
        found.chosen.flavour.name,
    )
    assert f"${found.chosen.usd:.2f}" in str(refused.value)


def test_money_is_time_and_time_has_parts() -> None:
    found = plan(flavor="h200x8")
    hours = found.chosen.hours
    assert found.chosen.usd == pytest.approx(hours.total * 40)
    assert hours.total * 3600 == pytest.approx(sum(hours.seconds.values()))
    assert {"start", "reference pass", "training", "checkpoints"} <= set(hours.seconds)
    assert found.timeout_minutes * 60 >= hours.total * 3600 * 1.5
    steps = found.variants[0].steps
    assert hours.seconds["training"] == pytest.approx(found.chosen.step_seconds["planned"] * steps)


def test_conditionings_cost_what_their_tokens_say() -> None:
    found = {one.name: one for one in plan().conditionings}
    assert list(found) == ["none", "one_sided", "symmetric", "averaged"]
    assert found["averaged"].tokens == found["symmetric"].tokens
    assert found["none"].mean_tokens < found["symmetric"].mean_tokens < 2 * found["none"].mean_tokens
    assert found["none"].flops_per_pair < found["symmetric"].flops_per_pair < found["averaged"].flops_per_pair
    whole = {name: plan(conditioning=name).variants[0] for name in ("none", "symmetric")}
    ratio = whole["symmetric"].flops / whole["none"].flops
    assert ratio == pytest.approx(found["symmetric"].flops_per_pair / found["none"].flops_per_pair)


def test_variants_add_up_and_share_the_reference_pass() -> None:
    data = data_of(ROWS, pairs=20_000)
    twins = [variant_of(ROWS, data=data, name=name, conditioning=name) for name in ("none", "symmetric")]
    both = estimate(twins, TABLE, flavor="h200x8")
    apart = [estimate([twin], TABLE, flavor="h200x8") for twin in twins]
    assert len(both.passes) == 1

    def seconds(one: Estimate, part: str) -> float:
        return one.chosen.hours.seconds[part]

    assert seconds(both, "training") == pytest.approx(sum(seconds(one, "training") for one in apart), rel=0.02)
    assert seconds(both, "reference pass") == pytest.approx(seconds(apart[0], "reference pass"), rel=0.02)
    assert both.chosen.memory.total == pytest.approx(max(one.chosen.memory.total for one in apart), rel=0.3)


def test_this_machine_where_it_was_measured() -> None:
    flavour = Flavour(name="this machine", usd_per_hour=0, vcpus=2, ram_gb=24, disk_gb=100)
    speed = Speed(
        body=5e10, attention=5e10, head=5e10, per_micro_batch_s=0.01, optimizer_bytes_per_s=5e9, measured=True
    )
    found = plan(shape=SMALL, here=Here(flavour, speed))
    assert found.here.measured
    assert "start" not in found.here.hours.seconds
    assert found.here.usd == 0
    assert "this machine" in to_text("x", found)
    assert found.chosen is not found.here, "a Job is chosen among the Hub's machines"


# --- telling


def test_percentiles_are_of_the_values() -> None:
    assert percentiles(range(1, 101)) == {"5": 5, "50": 50, "95": 95, "99": 99, "max": 100}
    assert percentiles([7]) == {"5": 7, "50": 7, "95": 7, "99": 7, "max": 7}


def test_texts_and_json_say_the_same() -> None:
    found = plan(train={"pairs_per_step": 64})
    facts = json.loads(json.dumps(found.to_dict()))
    assert facts["chosen"]["usd"] == found.chosen.usd
    assert set(facts["machines"]) == {flavour.name for flavour in TABLE.flavours}
    assert facts["variants"]["planned"]["tokens"] == found.variants[0].tokens
    assert facts["settings"] == found.settings
    assert facts["launch"] == found.launch
    assert f"--num_processes {found.chosen.setting.devices} -m inspo_hub.run" in found.launch
    profile = re.search(r"--config_file (\S+)", found.launch)
    assert profile is not None
    assert Path(profile[1]).is_file(), "the profile that the plan names is shipped"
    assert Path(profile[1]).stem == found.chosen.setting.engine
    assert plan(shape=SMALL, gpus=1).launch is None
    for text in (to_text("recipe", found), to_markdown("recipe", found)):
        assert f"{found.variants[0].tokens:,}" in text
        assert found.chosen.flavour.name in text
        assert "ASSUMED" in text
        assert "2026-11-23" in text
        for setting in found.settings:
            assert setting in text
    tables = [line for line in to_markdown("recipe", found).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables if "DDP" not in line}) >= 3
    assert all(line.endswith("|") for line in tables)


def test_every_engine_has_words() -> None:
    assert all(ENGINES.values())
