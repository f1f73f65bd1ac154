"""A recipe's `evaluate:` section, carried out: base and variants answer the same prompts, the judge decides.

One model is in memory at a time: each variant answers and scores its own answers, the base comes last and scores all.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from inspo_hub.errors import RecipeError
from inspo_hub.evaluate.generation import Generation, PromptEncoder, Sampling, generate
from inspo_hub.evaluate.judge import Judge, load_judge
from inspo_hub.evaluate.likelihood import response_logps
from inspo_hub.evaluate.prompts import Prompt, prompts_from_rows, read_prompts
from inspo_hub.evaluate.result import BASE, EvaluationResult, SystemAnswers, compare_table
from inspo_hub.evaluate.systems import System, Systems
from inspo_hub.models import load_tokenizer
from inspo_hub.pairs.types import TextFormat
from inspo_hub.recipe import is_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with (system, answers done, answers in all) after every batch."""


class PromptsLike(Protocol):
    """Where the prompts are, as a recipe says it."""

    @property
    def id(self) -> str: ...
    @property
    def column(self) -> str: ...


class JudgeLike(Protocol):
    """Who judges, as a recipe says it."""

    @property
    def python(self) -> str: ...


class EvaluateLike(Protocol):
    """What this room reads of a recipe's `evaluate:` section."""

    @property
    def prompts(self) -> PromptsLike: ...
    @property
    def judge(self) -> JudgeLike: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def samples_per_prompt(self) -> int: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def bootstrap(self) -> int: ...


@dataclass(slots=True)
class _Answered:
    """What one system wrote: the answers that are judged, the answers behind its KL, and their log-probabilities."""

    answers: list[Generation]
    own_samples: list[Generation]
    logps: Sequence[float] | None = None
    base_logps: Sequence[float] | None = None


def evaluate_variants(
    section: EvaluateLike,
    base_model_path: Path,
    variants: Mapping[str, Path | System],
    tokenizer_path: Path,
    output_dir: Path,
    training_summary: Mapping[str, Mapping[str, float | None]],
    *,
    folder: Path = Path(),
    rows: Sequence[Mapping[str, Any]] | None = None,
    chat_template: Path | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    text_format: TextFormat = "auto",
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Base against variants by the section's judge; writes report/generations.jsonl, comparison.md and comparison.json.

    Prompts come from `rows` where they are given (a data set that somebody else loaded), else from the jsonl file
    `section.prompts.id`; that and the judge's file are relative to `folder`. Without `dtype`, models compute in
    bfloat16 on a GPU that has it and in float32 elsewhere. A variant is the folder of a whole model, or a `System`
    with an adapter; where all adapters were trained on a base in nf4, that is the base they are compared with.
    """
    if BASE in variants:
        raise RecipeError(f"a variant is called {BASE!r}", where="variants", expected=f"any name but {BASE!r}")
    judge = load_judge(section.judge.python, folder=folder)
    tokenizer = load_tokenizer(tokenizer_path, chat_template=chat_template)
    chat = text_format == "chat" or (text_format == "auto" and bool(getattr(tokenizer, "chat_template", None)))
    answering = _Answering(
        systems=Systems(dtype=dtype, device=device),
        tokenizer=tokenizer,
        encoder=PromptEncoder(tokenizer, chat, chat_template_kwargs or {}),
        prompts=_prompts(section, folder, rows),
        sampling=_sampling(section, seed),
        batch_size=batch_size,
        progress=progress,
    )
    found = {name: each if isinstance(each, System) else System(model=each) for name, each in variants.items()}
    quantized = bool(found) and all(system.quantized for system in found.values())
    answered = _answer_all(answering, System(model=base_model_path, quantized=quantized), found)
    return _compare(answering, answered, judge, training_summary, section.bootstrap, output_dir / "report")


def _compare(
    answering: _Answering,
    answered: Mapping[str, _Answered],
    judge: Judge,
    training_summary: Mapping[str, Mapping[str, float | None]],
    resamples: int,
    folder: Path,
) -> EvaluationResult:
    """Judges what was answered, compares, and writes it down."""
    prompts, sampling = answering.prompts, answering.sampling
    judged = {name: _judge(name, system, prompts, sampling, judge) for name, system in answered.items()}
    result = compare_table(
        list(judged.values()),
        [prompt.row_id for prompt in prompts for _ in range(sampling.samples_per_prompt)],
        judge=judge.shown_name,
        settings=asdict(sampling),
        training=training_summary,
        resamples=resamples,
        seed=sampling.seed,
    )
    _write(folder, prompts, answered, judged, result)
    return result


def _sampling(section: EvaluateLike, seed: int) -> Sampling:
    return Sampling(
        max_new_tokens=section.max_new_tokens,
        temperature=section.temperature,
        top_p=section.top_p,
        samples_per_prompt=section.samples_per_prompt,
        seed=seed,
    )


def _prompts(section: EvaluateLike, folder: Path, rows: Sequence[Mapping[str, Any]] | None) -> list[Prompt]:
    if rows is None:
        return read_prompts(folder / section.prompts.id, column=section.prompts.column, limit=section.limit)
    kept = rows if section.limit is None else rows[: section.limit]
    # A local file's folder is nobody's business: row ids are published.
    source = section.prompts.id
    return prompts_from_rows(kept, column=section.prompts.column, name=Path(source).name if is_path(source) else source)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answering:
    """Everything that is the same for all systems."""

    systems: Systems
    tokenizer: PreTrainedTokenizerBase
    encoder: PromptEncoder
    prompts: Sequence[Prompt]
    sampling: Sampling
    batch_size: int
    progress: Progress | None

    def answers(self, model: PreTrainedModel, name: str, sampling: Sampling) -> list[Generation]:
        return generate(
            model,
            self.tokenizer,
            self.prompts,
            sampling,
            batch_size=self.batch_size,
            encoder=self.encoder,
            progress=None if self.progress is None else partial(self.progress, name),
        )


def _answer_all(answering: _Answering, base: System, variants: Mapping[str, System]) -> dict[str, _Answered]:
    """Answers of the base (first in the result) and of every variant, whose own samples get both log-probabilities."""
    answered: dict[str, _Answered] = {}
    sampling = answering.sampling
    for name, system in [*variants.items(), (BASE, base)]:
        started = time.perf_counter()
        with answering.systems.open(system) as model:
            answers = answering.answers(model, name, sampling)
            own = answers
            if name != BASE and not sampling.is_plain:
                own = answering.answers(model, name, replace(sampling, temperature=1.0, top_p=1.0))
            answered[name] = _Answered(answers, own)
            if name != BASE:
                answered[name].logps = _logps(model, own)
            else:
                for variant in variants:
                    answered[variant].base_logps = _logps(model, answered[variant].own_samples)
        del model  # before the next one is loaded
        log.info("%s: %d answers in %.1f s", name, len(answers), time.perf_counter() - started)
    return {BASE: answered.pop(BASE), **answered}


def _logps(model: PreTrainedModel, answers: Sequence[Generation]) -> list[float]:
    prompts, responses = [answer.prompt_ids for answer in answers], [answer.response_ids for answer in answers]
    return response_logps(model, prompts, responses).tolist()


def _judge(name: str, system: _Answered, prompts: Sequence[Prompt], sampling: Sampling, judge: Judge) -> SystemAnswers:
    texts = [prompt.text for prompt in prompts for _ in range(sampling.samples_per_prompt)]
    rows = list(zip(texts, system.answers, strict=True))
    check = judge.well_formed
    return SystemAnswers(
        name=name,
        scores=[judge.score(text, answer.text) for text, answer in rows],
        tokens=[len(answer.response_ids) for answer in system.answers],
        words=[len(answer.text.split()) for answer in system.answers],
        finished=[answer.finished for answer in system.answers],
        well_formed=None if check is None else [check(text, answer.text) for text, answer in rows],
        logps=system.logps,
        reference_logps=system.base_logps,
    )


def _write(
    folder: Path,
    prompts: Sequence[Prompt],
    answered: Mapping[str, _Answered],
    judged: Mapping[str, SystemAnswers],
    result: EvaluationResult,
) -> None:
    """The generations, one prompt and sample per line with every system's answer, and the comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    by_row = {prompt.row_id: prompt for prompt in prompts}
    lines = []
    for index, first in enumerate(answered[BASE].answers):
        row = {
            "row_id": first.row_id,
            "sample": first.sample,
            "prompt": [dict(message) for message in by_row[first.row_id].messages],
            "responses": {name: system.answers[index].text for name, system in answered.items()},
            "scores": {name: system.scores[index] for name, system in judged.items()},
            "tokens": {name: system.tokens[index] for name, system in judged.items()},
            "finished": {name: system.finished[index] for name, system in judged.items()},
        }
        lines.append(json.dumps(row, ensure_ascii=False))
    (folder / "generations.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "comparison.md").write_text(result.to_markdown(), encoding="utf-8")
    (folder / "comparison.json").write_text(result.to_json() + "\n", encoding="utf-8")
