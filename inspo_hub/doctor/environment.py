"""Findings about this machine: versions, what computes the attention, access and disk."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from inspo_hub import hub
from inspo_hub.doctor.findings import Finding
from inspo_hub.plan import package_versions

if TYPE_CHECKING:
    from inspo_hub.errors import InspoError
    from inspo_hub.recipe import Recipe

_EXTRAS = {"trackio": "track", "tensorboard": "", "wandb": "", "peft": "peft", "bitsandbytes": "qlora"}
"""Library -> the extra of this package that brings it; empty: its own name on the package index."""


def environment_findings(recipes: Sequence[Recipe], device: torch.device) -> list[Finding]:
    """Versions, libraries that the recipe needs and that are not there, attention, token."""
    return [_versions(recipes), _attention(recipes, device), _token(recipes)]


def _versions(recipes: Sequence[Recipe]) -> Finding:
    versions = package_versions()
    needed = {name: key for recipe in recipes for name, key in _needs(recipe).items()}
    missing = {name: key for name, key in needed.items() if importlib.util.find_spec(name) is None}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    if not missing:
        return Finding(check="packages", severity="ok", measured=told, means="everything the recipe needs is installed",
                       numbers={"versions": versions})  # fmt: skip
    install = sorted({f"'inspo-hub[{_EXTRAS[name]}]'" if _EXTRAS[name] else name for name in missing})
    return Finding(
        check="packages",
        severity="problem",
        measured=f"not installed: {', '.join(f'{name} (for {key})' for name, key in missing.items())}; {told}",
        means="the run would stop when it needs them",
        do=f"pip install {' '.join(install)}",
        numbers={"versions": versions, "missing": sorted(missing)},
    )


def _needs(recipe: Recipe) -> dict[str, str]:
    """Optional libraries, and the key that asks for each."""
    needs: dict[str, str] = {}
    if recipe.train.report_to != "none":
        needs[recipe.train.report_to] = f"train.report_to: {recipe.train.report_to}"
    if recipe.adapter is not None:
        needs["peft"] = "adapter"
        if recipe.adapter.quantize is not None:
            needs["bitsandbytes"] = "adapter.quantize"
    if "bit" in recipe.train.optimizer:
        needs["bitsandbytes"] = f"train.optimizer: {recipe.train.optimizer}"
    return needs


def _attention(recipes: Sequence[Recipe], device: torch.device) -> Finding:
    if device.type != "cuda":
        return Finding(
            check="attention backend",
            severity="ok",
            measured=f"{device.type}, {torch.get_num_threads()} threads of {os.cpu_count()} processors",
            means="packed rows are computed in blocks of torch's CPU kernel",
        )
    there = [
        f"{each} {'' if importlib.util.find_spec(each) else 'not '}there" for each in ("flash_attn", "liger_kernel")
    ]
    name = torch.cuda.get_device_name(device)
    measured = f"{torch.cuda.device_count()} × {name}, CUDA {torch.version.cuda}, {', '.join(there)}"
    whole = any(recipe.model.compute_dtype == "float32" for recipe in recipes)
    if whole or not torch.cuda.is_bf16_supported():
        return Finding(
            check="attention backend",
            severity="advice",
            measured=f"{measured}; computing in float32",
            means="the variable-length flash kernels take half precision only: attention runs in blocks of plain torch",
            do="set model.compute_dtype: auto on a GPU that has bfloat16",
        )
    return Finding(check="attention backend", severity="ok", measured=measured,
                   means="the run takes the fastest kernel of those that agree")  # fmt: skip


def _token(recipes: Sequence[Recipe]) -> Finding:
    """Whether there is a token, never what it is; the Hub is asked nothing here."""
    there, publishes = hub.has_token(), any(recipe.publish is not None for recipe in recipes)
    if publishes and not there:
        return Finding(
            check="token",
            severity="problem",
            measured="no token, and the recipe publishes",
            means="the run would stop before it trains",
            do="`hf auth login` with a token that may write, or HF_TOKEN",
        )
    means = "it is read at each call and written nowhere" if there else "nothing in this recipe needs one"
    return Finding(check="token", severity="ok", measured=f"a token is {'' if there else 'not '}set", means=means)


def access_findings(problems: Sequence[InspoError]) -> list[Finding]:
    """What the run's own preflight says: repositories, cards, disk."""
    if not problems:
        means = "the run's own preflight finds room on the disks, and may write where it publishes"
        return [Finding(check="preflight", severity="ok", measured="nothing stands in the way", means=means)]
    return [
        Finding(
            check="preflight",
            severity="problem",
            measured=f"{problem.where}: {problem.what}" if problem.where else problem.what,
            means="the run would stop before it trains",
            do=problem.fix or problem.expected,
        )
        for problem in problems
    ]
