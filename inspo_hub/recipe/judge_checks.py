"""Which values of a judge do not go together, and with whom an evaluation compares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from inspo_hub.recipe.conflicts import Conflict
from inspo_hub.recipe.paths import is_path
from inspo_hub.recipe.prompt_sets import PROMPT_SETS

if TYPE_CHECKING:
    from inspo_hub.recipe.judges import EndpointSection, JudgeSection
    from inspo_hub.recipe.running import EvaluateSection

KINDS = ("python", "endpoint", "model", "reward_model")


def judge_conflicts(judge: JudgeSection, key: tuple[str, ...]) -> Iterator[Conflict]:
    """Everything about the judge at a key of the recipe."""
    named = [kind for kind in KINDS if getattr(judge, kind) is not None]
    if len(named) != 1:
        what = f"names {' and '.join(named)}" if named else "names no judge"
        yield Conflict(key, what, f"one of {', '.join(KINDS)}")
    if judge.endpoint is not None:
        yield from _endpoint(judge.endpoint, (*key, "endpoint"))
    for kind in ("model", "reward_model"):
        found = getattr(judge, kind)
        if found is not None and found.revision is not None and is_path(found.id):
            what = f"{found.revision!r} would be ignored: a local path has no revisions"
            yield Conflict((*key, kind, "revision"), what, "null", "delete the key")
    if len(named) == 1:
        yield from _ignored(judge, named[0], key)


def opponent_conflicts(evaluate: EvaluateSection) -> Iterator[Conflict]:
    """Whom the evaluation compares with."""
    if evaluate.against in ("baseline", "both") and evaluate.prompts.id not in PROMPT_SETS:
        what = f"{evaluate.prompts.id!r} comes with no answers to compete with"
        yield Conflict(("evaluate", "against"), what, f"base, or one of the benchmarks {', '.join(PROMPT_SETS)}")


def _endpoint(endpoint: EndpointSection, key: tuple[str, ...]) -> Iterator[Conflict]:
    if endpoint.base_url is not None:
        for name in ("provider", "bill_to"):
            value = getattr(endpoint, name)
            if value is not None:
                yield Conflict((*key, name), f"{value!r} would be ignored: base_url says who answers", "null")
    prices = (endpoint.usd_per_million_input, endpoint.usd_per_million_output)
    if endpoint.max_usd is not None and None in prices:
        what = f"{endpoint.max_usd} $ cannot be held without prices"
        yield Conflict((*key, "max_usd"), what, "usd_per_million_input and usd_per_million_output beside it")


def _ignored(judge: JudgeSection, kind: str, key: tuple[str, ...]) -> Iterator[Conflict]:
    scores = kind in ("python", "reward_model")
    if scores and judge.order != "both":
        yield Conflict((*key, "order"), f"{judge.order!r} would be ignored: {kind} scores one answer at a time", "both")
    if scores and judge.template is not None:
        yield Conflict((*key, "template"), f"would be ignored: {kind} is asked no question", "null")
    if kind != "endpoint" and judge.verdict != "label":
        yield Conflict((*key, "verdict"), f"{judge.verdict!r} needs a judge that writes", "label, or an endpoint")
