"""Recipe -> Estimate: what its names come to is found out, then what the run takes on the machines that can be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspo_hub import hub
from inspo_hub.plan.estimate import estimate
from inspo_hub.plan.hardware import price_list
from inspo_hub.survey import DEFAULT_SAMPLE, survey

if TYPE_CHECKING:
    from inspo_hub.plan.results import Estimate
    from inspo_hub.recipe import Recipe


def plan_recipe(
    recipe: Recipe,
    *,
    flavor: str = "auto",
    gpus: int | None = None,
    sample_rows: int = DEFAULT_SAMPLE,
    calibrate: bool = False,
) -> Estimate:
    """The estimate of a recipe on the machines that the Hub lists now, or on those of the dated table.

    Args:
        flavor: the machine to choose; `auto`: the cheapest that holds the run and is done in a day.
        gpus: consider only machines with so many GPUs.
        sample_rows: rows that are tokenised at most; data with no more of them are counted exactly.
        calibrate: measure this machine too, with torch.

    Raises:
        InspoError: something cannot be found or used, or the flavour asked for does not fit.
    """
    variants = survey(recipe, sample_rows=sample_rows)
    here = None
    if calibrate:
        from inspo_hub.calibration import measure_here

        here = measure_here(variants)
    return estimate(variants, price_list(hub.hardware()), flavor=flavor, gpus=gpus, here=here)
