"""The model that is trained, as the recipe says: the whole of it, a new adapter on it, or an adapter that exists."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inspo_hub.adapters import existing_adapter, load_nf4, name_base, new_adapter
from inspo_hub.models import compute_dtype, load_model
from inspo_hub.training.job import VariantJob

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The initial policy, and how its weights are held: a reference made of them is another one in another form."""

    model: PreTrainedModel | PeftModel
    form: str = ""
    """`bfloat16`, `nf4` or `nf4 bfloat16` where frozen weights are not float32; empty where all are."""


def load_policy(job: VariantJob, device: torch.device) -> Policy:
    """The initial policy on its device.

    A model that is trained whole has float32 weights. Under an adapter the base never changes and needs no master
    copy: it is held in the dtype that it computes in, and in 4 bits where the recipe asks for it.
    """
    recipe = job.recipe
    trust = recipe.model.trust_remote_code
    if recipe.adapter is None:
        return Policy(model=load_model(job.model_path, trust_remote_code=trust).to(device))  # type: ignore[arg-type]
    dtype = compute_dtype(recipe.model.compute_dtype, device)
    form = [] if dtype == torch.float32 else [str(dtype).removeprefix("torch.")]
    if recipe.adapter.quantize is not None:
        form = ["nf4", *form]
        base = load_nf4(job.model_path, dtype=dtype, device=device, trust_remote_code=trust)
    else:
        base = load_model(job.model_path, dtype=dtype, trust_remote_code=trust)
    if job.adapter_path is not None:
        policy = existing_adapter(base, job.adapter_path, trainable=True)
    else:
        policy = new_adapter(base, recipe.adapter, seed=recipe.seed)
    name_base(policy, *_base_for_others(job))
    trained, total = policy.get_nb_trainable_parameters()
    log.info("%s: the adapter trains %d of %d parameters", job.name, trained, total)
    return Policy(model=policy.to(device), form=" ".join(form))


def _base_for_others(job: VariantJob) -> tuple[str, str | None]:
    """Where the adapter's file says its base is: the Hub id and commit, or the way to it from the output folder.

    A path from the output folder holds no folder names of this machine, and works where the card's code is run.
    """
    base = job.plan.model
    if not base.is_local:
        return base.id, base.sha
    try:
        return Path(os.path.relpath(job.model_path.resolve(), job.output.resolve())).as_posix(), None
    except ValueError:  # another drive has no way from here
        return str(job.model_path), None
