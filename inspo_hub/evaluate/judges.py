"""The judge that a recipe names, ready to decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inspo_hub import hub
from inspo_hub.evaluate.calls import CallCache, call_key
from inspo_hub.evaluate.endpoint import EndpointJudge, Prices
from inspo_hub.evaluate.judge import Judge, load_judge
from inspo_hub.evaluate.wording import ARENA_TEMPLATE, PAIR_TEMPLATE, read_template

if TYPE_CHECKING:
    import torch

    from inspo_hub.evaluate.local_judges import CausalJudge, RewardJudge
    from inspo_hub.recipe import JudgeSection
    from inspo_hub.recipe.judges import EndpointSection

    AnyJudge = Judge | EndpointJudge | CausalJudge | RewardJudge

ARENA_TOKENS = 4096


def judge_of(
    section: JudgeSection,
    *,
    folder: Path,
    kept: Path,
    model_path: Path | None = None,
    device: torch.device | str | None = None,
) -> AnyJudge:
    """The one judge of the section.

    Args:
        folder: where the path of a Python function starts.
        kept: folder for the answers of an endpoint, so that none is asked for twice.
        model_path: where the judge's model lies, for those on this machine.
    """
    if section.python is not None:
        return load_judge(section.python, folder=folder)
    if section.endpoint is not None:
        return _endpoint(section, section.endpoint, kept)
    from inspo_hub.evaluate.local_judges import CausalJudge, RewardJudge

    assert model_path is not None, "a judge on this machine lies somewhere"
    if section.reward_model is not None:
        return RewardJudge.load(model_path, name=_shown(section.reward_model.id), device=device)
    assert section.model is not None, "the recipe names one judge"
    template = read_template(Path(section.template) if section.template else None)
    return CausalJudge.load(model_path, template, name=_shown(section.model.id), device=device)


def _shown(id: str) -> str:
    """The name for others to read: a local folder's own, and not where it lies."""
    return Path(id).name if Path(id).is_absolute() else id


def _endpoint(section: JudgeSection, endpoint: EndpointSection, kept: Path) -> EndpointJudge:
    arena = section.verdict == "arena_hard"
    template = read_template(
        Path(section.template) if section.template else None, default=ARENA_TEMPLATE if arena else PAIR_TEMPLATE
    )
    chat = hub.ChatEndpoint(
        endpoint.model,
        base_url=endpoint.base_url,
        provider=endpoint.provider,
        key_variable=endpoint.api_key_env,
        bill_to=endpoint.bill_to,
        timeout_s=endpoint.timeout_s,
        patience=hub.Patience(attempts=endpoint.attempts, ceiling_s=60.0, jitter=0.5),
    )
    # A file of its own for each judge: what it cost is what its file holds.
    key = call_key(model=chat.model, server=chat.place, template=template.sha256)[:12]
    return EndpointJudge(
        chat=chat,
        template=template,
        cache=CallCache(kept / f"judge-{key}.jsonl"),
        verdict=section.verdict,
        logprobs=endpoint.logprobs,
        max_tokens=endpoint.max_tokens or (ARENA_TOKENS if arena else 1),
        temperature=endpoint.temperature,
        concurrency=endpoint.concurrency,
        prices=Prices(
            usd_per_million_input=endpoint.usd_per_million_input or 0.0,
            usd_per_million_output=endpoint.usd_per_million_output or 0.0,
            max_usd=endpoint.max_usd,
        ),
    )
