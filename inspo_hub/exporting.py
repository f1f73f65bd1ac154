"""A trained adapter and its base as one whole model: what `inspo-hub merge` does."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from inspo_hub import hub
from inspo_hub.adapters import existing_adapter, is_adapter_folder, load_nf4, merge_adapter, read_config, unpack_nf4
from inspo_hub.describing import variants_in
from inspo_hub.errors import InspoError, RecipeError, ResolutionError
from inspo_hub.models import load_model
from inspo_hub.recipe.reading import read_tree

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Largest difference of a logit, merged and not, relative to the largest logit. Measured on a 2-layer Llama: 1e-6.
AGREEMENT = 1e-3


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A merged model: where it lies, what of, and how far its logits are from those of base and adapter."""

    folder: Path
    base: str
    dtype: str
    difference: float
    """Largest |difference| of a logit in float32, on a few tokens, before any rounding to another dtype."""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """An adapter on this disk, and the base that it belongs to."""

    adapter: Path
    base: Path
    base_name: str
    quantized: bool
    trust_remote_code: bool


def merge_output(
    output: str, target: Path | None = None, *, dtype: str = "float32", base: Path | None = None
) -> Merged:
    """Writes a whole model, which plain transformers loads, of an adapter and its base.

    An adapter that was trained on a base in nf4 is merged into that base's values, unpacked: those it was trained on.

    Args:
        output: the output folder of a run or of one of its variants, or a published adapter `owner/name`.
        target: a folder that is empty or not there yet; `<output>/merged` by default.
        dtype: of the weights that are written; in float32 nothing is rounded.
        base: the base model's folder, where neither the run's notes nor the adapter lead to it.

    Raises:
        RecipeError: there is no adapter, or something at the target already.
        ResolutionError: no base, or one that the adapter does not fit.
    """
    if target is None:
        if not Path(output).is_dir():
            raise RecipeError("no folder to write to", where=output, fix="name one with --output")
        target = Path(output) / "merged"
    if target.exists() and any(target.iterdir()):
        raise RecipeError("there is something already", where=str(target), fix="choose another --output")
    disable_progress_bar()
    parts = _parts(output, base)
    model = _load(parts)
    wrapped = existing_adapter(model, parts.adapter, trainable=False).eval()
    before = _logits(wrapped)
    merged = merge_adapter(wrapped)
    difference = _compare(before, _logits(merged), where=str(output))
    _write(merged.to(DTYPES[dtype]), parts.adapter, target)  # type: ignore[arg-type]
    return Merged(folder=target, base=parts.base_name, dtype=dtype, difference=difference)


def _load(parts: _Parts) -> Any:
    """The base in float32; where the adapter was trained on it in nf4, with the values that nf4 left of its weights."""
    if not parts.quantized:
        return load_model(parts.base, trust_remote_code=parts.trust_remote_code)
    device = torch.device("cpu")
    return unpack_nf4(
        load_nf4(parts.base, dtype=torch.float32, device=device, trust_remote_code=parts.trust_remote_code)
    )


# --- what is merged


def _parts(output: str, base: Path | None) -> _Parts:
    adapter = Path(output)
    if not adapter.is_dir():
        pinned = hub.resolve("model", output)
        adapter = hub.fetch(pinned)
        if "recipe.yaml" in [file.path for file in hub.list_files(pinned)]:
            adapter = hub.fetch_run(pinned)
    if not is_adapter_folder(adapter):
        raise RecipeError(_no_adapter(adapter), where=output, fix="name the folder that holds adapter_config.json")
    noted = next(iter(variants_in(adapter).values()), None)
    # Code of a repository is run where this user's own recipe said so, and not because a downloaded file does.
    trust = noted is not None and noted.recipe.model.trust_remote_code
    quantized = _is_quantized(adapter)
    if base is not None:
        return _Parts(adapter=adapter, base=base, base_name=str(base), quantized=quantized, trust_remote_code=trust)
    pinned = noted.plan.model if noted is not None else _named_base(adapter)
    path = hub.fetch(pinned, code=trust)
    return _Parts(adapter=adapter, base=path, base_name=str(pinned), quantized=quantized, trust_remote_code=trust)


def _is_quantized(adapter: Path) -> bool:
    """Whether the adapter was trained on a base in nf4; its own configuration does not say."""
    recipe = adapter / "recipe.yaml"
    if not recipe.is_file():
        return False
    section = read_tree(recipe.read_text(encoding="utf-8"), str(recipe)).plain().get("adapter") or {}
    return section.get("quantize") is not None


def _no_adapter(folder: Path) -> str:
    variants = [str(variant.folder) for variant in variants_in(folder).values() if variant.folder != folder]
    if variants:
        return f"holds no adapter itself; its variants are {', '.join(variants)}"
    whole = any(hub.is_weight_file(path.name) for path in folder.glob("*.safetensors"))
    return "this is a whole model already" if whole else "holds no adapter"


def _named_base(adapter: Path) -> hub.Pinned:
    """What adapter_config.json says: a Hub id and commit, or a path from the adapter's folder."""
    config = read_config(adapter)
    name, revision = str(config.get("base_model_name_or_path") or ""), config.get("revision")
    local = adapter / name
    if name and local.is_dir():
        return hub.Pinned("model", str(local), None, None, local.resolve())
    try:
        return hub.resolve("model", name, revision)
    except ResolutionError as error:
        raise ResolutionError(
            f"the adapter's base {name!r} cannot be found: {error.what}",
            where=str(adapter / "adapter_config.json"),
            expected="base_model_name_or_path: a Hub id, or a path from the adapter's folder",
            fix="name the base's folder with --base",
        ) from error


# --- merging


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    rows = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(1, 65).remainder(rows)[None]
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float()


def _compare(before: torch.Tensor, after: torch.Tensor, *, where: str) -> float:
    difference = float((before - after).abs().max())
    if not difference <= AGREEMENT * float(before.abs().max()):
        raise InspoError(
            f"merged, a logit differs by {difference:.3g} from that of base and adapter",
            where=where,
            expected=f"at most {AGREEMENT:g} of the largest, {float(before.abs().max()):.3g}",
            fix="use the adapter unmerged, and report this with its adapter_config.json",
        )
    return difference


def _write(model: Any, adapter: Path, target: Path) -> None:
    """The model and the adapter's tokenizer, in place all at once."""
    staging = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        model.save_pretrained(staging)
        AutoTokenizer.from_pretrained(adapter).save_pretrained(staging)
        if target.exists():
            target.rmdir()
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
