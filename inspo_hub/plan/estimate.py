"""What a run will take, from facts alone: counts, memory, hours and money. `estimate` is the whole of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.errors import RecipeError
from inspo_hub.plan.hardware import Flavour, PriceList
from inspo_hub.plan.machines import MachineEstimate, Machines, Setting
from inspo_hub.plan.memory import ENGINES, Engine
from inspo_hub.plan.results import ConditioningEstimate, Estimate, VariantEstimate
from inspo_hub.plan.timing import Speed, assumed_speed
from inspo_hub.plan.variants import Variant

PERCENTILES = (5, 50, 95, 99)
SHOWN_CONDITIONINGS = ("none", "one_sided", "symmetric", "averaged")
GPU_COUNTS = (1, 2, 4, 8)
LONGEST_AUTO_HOURS = 24.0
"""A flavour that takes longer is chosen only where every one does."""


@dataclass(frozen=True)
class Here:
    """This machine with its measured speed."""

    flavour: Flavour
    speed: Speed


def estimate(
    variants: Sequence[Variant],
    prices: PriceList,
    *,
    flavor: str | None = None,
    gpus: int | None = None,
    here: Here | None = None,
) -> Estimate:
    """The estimate of a recipe's variants, which are trained one after the other on one machine.

    Args:
        flavor: the machine to choose: a name of the price list; None or `auto`: the cheapest that is done in a day.
        gpus: consider only machines with so many GPUs, and count micro-batches for as many processes.
        here: this machine, where it was measured.

    Raises:
        RecipeError: no such flavour, or the one asked for does not fit.
    """
    machines = Machines(variants)
    shape = variants[0].model.shape
    found = []
    for flavour in _considered(prices, flavor, gpus):
        units = flavour.vcpus if not flavour.gpus else 1
        device = flavour.device
        speed = assumed_speed(device, shape, units=units, on_gpu=flavour.gpus > 0) if device else None
        found.append(machines.estimate(flavour, speed))
    return Estimate(
        model=variants[0].model,
        data=variants[0].data,
        variants=[_variant(variant, processes=max(1, gpus or 1)) for variant in variants],
        conditionings=[_conditioning(name, variants) for name in _shown(variants)],
        passes=machines.passes,
        memory=_memory_table(machines, [gpus] if gpus else GPU_COUNTS),
        disk_bytes=machines.disk_bytes,
        machines=found,
        here=machines.estimate(here.flavour, here.speed) if here else None,
        chosen=_chosen(found, flavor),
        prices=prices.source,
    )


def _considered(prices: PriceList, flavor: str | None, gpus: int | None) -> list[Flavour]:
    flavours = [flavour for flavour in prices.flavours if gpus is None or flavour.gpus == gpus]
    if flavor in (None, "auto"):
        return flavours
    names = [flavour.name for flavour in prices.flavours]
    if flavor not in names:
        raise RecipeError(
            f"no flavour {flavor!r}",
            where="--flavor",
            expected=f"auto, or one of {', '.join(names)}",
            fix="--flavor auto",
        )
    named = prices.named(flavor or "")
    assert named is not None
    if gpus is not None and named.gpus != gpus:
        raise RecipeError(
            f"{flavor} has {named.gpus} GPUs, not {gpus}",
            where="--gpus",
            fix="leave --gpus out, or choose another --flavor",
        )
    return flavours


def _chosen(machines: Sequence[MachineEstimate], flavor: str | None) -> MachineEstimate | None:
    if flavor not in (None, "auto"):
        machine = next(machine for machine in machines if machine.flavour.name == flavor)
        if machine.setting is None:
            raise RecipeError(
                f"the run does not fit on {flavor}: {machine.why_not}",
                where="--flavor",
                expected="a machine that holds the model, its gradients and its optimizer",
                fix="--flavor auto, an adapter: section, train.optimizer: adamw_8bit, or a smaller data.max_length",
            )
        return machine
    timed = [machine for machine in machines if machine.hours is not None]
    if not timed:
        return None
    in_time = [machine for machine in timed if _hours(machine) <= LONGEST_AUTO_HOURS]
    if in_time:
        return min(in_time, key=lambda machine: (round(machine.usd or 0.0, 2), _hours(machine)))
    return min(timed, key=_hours)


def _hours(machine: MachineEstimate) -> float:
    assert machine.hours is not None
    return machine.hours.total


def _variant(variant: Variant, *, processes: int) -> VariantEstimate:
    workload, recipe = variant.workload, variant.recipe
    budget = recipe.train.tokens_per_microbatch
    flops = [sum(work[1:]) for work in variant.works()]
    tokens = workload.tokens
    return VariantEstimate(
        name=variant.name,
        objective=recipe.objective.name,
        conditioning=recipe.conditioning.name,
        layout=workload.packing.layout,
        trained_parameters=variant.trained,
        steps=workload.steps,
        pairs=workload.pairs,
        tokens=round(tokens),
        tokens_per_step=tokens / workload.steps,
        processes=processes,
        tokens_per_microbatch=budget,
        micro_batches=round(workload.micro_batches(processes=processes, budget=budget)),
        largest_micro_batch=workload.largest_micro_batch(budget),
        longest_pair=workload.longest,
        flops=sum(flops) / len(flops) * workload.pairs,
        evaluations=variant.evaluations,
        checkpoints=variant.saves,
    )


def _shown(variants: Sequence[Variant]) -> list[str]:
    return list(dict.fromkeys((*SHOWN_CONDITIONINGS, *(variant.recipe.conditioning.name for variant in variants))))


def _conditioning(name: str, variants: Sequence[Variant]) -> ConditioningEstimate:
    own = next((variant for variant in variants if variant.recipe.conditioning.name == name), None)
    variant = own or variants[0]
    conditioning = own.recipe.conditioning if own else CONDITIONINGS[name](name=name)
    with_chosen = variant.recipe.objective.needs_plain_chosen
    packing = replace(
        variant.workload.packing,
        scores=conditioning.laid_out_scores(with_plain_chosen=with_chosen),
        trained=conditioning.needed_scores(with_plain_chosen=with_chosen),
    )
    overlong, shape = variant.data.by_conditioning[name], variant.model.shape
    works = [packing.pair(row) for row in overlong.lengths]
    flops = [sum(packing.work(row, shape)[1:]) for row in overlong.lengths]
    tokens = [int(work.tokens) for work in works]
    return ConditioningEstimate(
        name=name,
        mean_tokens=sum(tokens) / len(tokens),
        tokens=percentiles(tokens),
        longest_path=percentiles([int(work.longest_path) for work in works]),
        flops_per_pair=sum(flops) / len(flops),
        overlong=overlong.rows,
        rows=len(overlong.lengths),
        taken=overlong.taken,
    )


def percentiles(values: Sequence[int]) -> dict[str, int]:
    """p -> the smallest value that at least p percent of the values do not exceed; and `max`."""
    ordered = sorted(values)
    found = {str(p): ordered[max(0, math.ceil(p / 100 * len(ordered)) - 1)] for p in PERCENTILES}
    return {**found, "max": ordered[-1]}


def _memory_table(machines: Machines, counts: Sequence[int]) -> dict[int, dict[Engine, float]]:
    """Bytes of one GPU by engine and number of GPUs, at the recipe's own token budget and recomputation."""
    recipe = machines.variants[0].recipe
    recompute = recipe.train.activation_checkpointing is not False
    table: dict[int, dict[Engine, float]] = {}
    for count in counts:
        engines: list[Engine] = ["single"] if count == 1 else [engine for engine in ENGINES if engine != "single"]
        settings = [Setting(engine, count, recipe.train.tokens_per_microbatch, recompute) for engine in engines]
        table[count] = {setting.engine: machines.memory(setting, on_gpu=True).total for setting in settings}
    return table
