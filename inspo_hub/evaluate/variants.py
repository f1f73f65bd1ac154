"""A recipe's `evaluate:` section, carried out: base and variants answer the same prompts, the judge decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inspo_hub.errors import RecipeError
from inspo_hub.evaluate.answering import KEPT, Answered, Answering, Progress, answer_all, answering_of, encoder_of
from inspo_hub.evaluate.benchmarks import Benchmark
from inspo_hub.evaluate.comparing import Answers, Judged, adjusted_readings, judge_answers, opponents_of
from inspo_hub.evaluate.judges import judge_of
from inspo_hub.evaluate.prompts import Prompt, prompts_from_rows, read_prompts
from inspo_hub.evaluate.result import BASE, EvaluationResult, SystemAnswers, compare_table
from inspo_hub.evaluate.systems import System, Systems
from inspo_hub.evaluate.writing import write_exports, write_report
from inspo_hub.models import load_tokenizer
from inspo_hub.pairs.types import TextFormat
from inspo_hub.recipe import is_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inspo_hub.recipe import EvaluateSection


def evaluate_variants(
    section: EvaluateSection,
    base_model_path: Path | None,
    variants: Mapping[str, Path | System],
    tokenizer_path: Path,
    output_dir: Path,
    training_summary: Mapping[str, Mapping[str, float | None]],
    *,
    folder: Path = Path(),
    rows: Sequence[Mapping[str, Any]] | None = None,
    benchmark: Benchmark | None = None,
    rivals: Mapping[str, Sequence[str]] | None = None,
    judge_path: Path | None = None,
    chat_template: Path | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    text_format: TextFormat = "auto",
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """The variants against their opponents by the section's judge; writes the report, answers and exports.

    Prompts are those of the `benchmark`, else come from `rows` (a data set that somebody else loaded), else from the
    jsonl file `section.prompts.id`; that and the judge's file are relative to `folder`. Without `dtype`, models compute
    in bfloat16 on a GPU that has it and in float32 elsewhere. A variant is the folder of a whole model, or a `System`
    with an adapter; where all adapters were trained on a base in nf4, that is the base they are compared with.

    A run that was cut off goes on: answers and verdicts are kept row by row in `output_dir`.

    Args:
        base_model_path: None where nobody knows it: then there is no KL, and an opponent must be named.
        rivals: answers that others wrote to the same prompts, by their names; one for each prompt.
        judge_path: where the judge's model lies, for a judge on this machine.
    """
    found = {name: each if isinstance(each, System) else System(model=each) for name, each in variants.items()}
    benchmark = None if benchmark is None else benchmark.first(section.limit)
    prompts = section_prompts(section, folder, rows, benchmark)
    others = _others(benchmark, rivals or {}, prompts, list(variants))
    opponents = _opponents(section, [*([BASE] if base_model_path else []), *found], benchmark, list(rivals or {}))
    tokenizer = load_tokenizer(tokenizer_path, chat_template=chat_template)
    encoder, systems = encoder_of(tokenizer, chat_template_kwargs, text_format), Systems(dtype=dtype, device=device)
    answering = answering_of(section, systems, encoder, prompts, seed=seed, kept=output_dir / KEPT, progress=progress)
    answered = answer_all(answering, _base(base_model_path, found), found)
    answers = _rows(answering, answered, others, opponents)
    judge = judge_of(section.judge, folder=folder, kept=answering.kept, model_path=judge_path, device=device)
    judged = judge_answers(judge, answers, order=section.judge.order, max_failed=section.judge.max_failed, seed=seed)
    return _compare(answering, answered, answers, judged, benchmark, training_summary, section, output_dir / "report")


def _base(path: Path | None, variants: Mapping[str, System]) -> System | None:
    quantized = bool(variants) and all(system.quantized for system in variants.values())
    return None if path is None else System(model=path, quantized=quantized)


def _opponents(
    section: EvaluateSection, systems: Sequence[str], benchmark: Benchmark | None, rivals: Sequence[str]
) -> list[str]:
    found = opponents_of(section.against, systems, benchmark, rivals)
    if not found:
        raise RecipeError(
            "there is nobody to compare with",
            where="evaluate.against",
            expected="a base, a benchmark with published answers, or another model",
            fix="name one: --against user/model, or a file of answers",
        )
    return found


def _compare(
    answering: Answering,
    answered: Mapping[str, Answered],
    answers: Answers,
    judged: Judged,
    benchmark: Benchmark | None,
    training_summary: Mapping[str, Mapping[str, float | None]],
    section: EvaluateSection,
    folder: Path,
) -> EvaluationResult:
    """The comparison of what was judged, written down."""
    sampling = answering.sampling
    systems = {name: _system(name, answered.get(name), answers, judged) for name in answers.texts}
    named = {} if benchmark is None else {"benchmark": benchmark.name}
    result = compare_table(
        list(systems.values()),
        answers.clusters,
        judge=judged.name,
        settings={**asdict(sampling), **named},
        training=training_summary,
        resamples=section.bootstrap,
        seed=sampling.seed,
        opponents=answers.opponents,
        preferences=judged.preferences,
        adjusted=adjusted_readings(answers, judged, benchmark, resamples=section.bootstrap, seed=sampling.seed),
        judging=judged.facts,
    )
    samples = [sample for _ in answering.prompts for sample in range(sampling.samples_per_prompt)]
    write_report(folder, answers, systems, samples, judged, result, benchmark)
    write_exports(folder, answers, samples, answering.prompts, benchmark)
    return result


def section_prompts(
    section: EvaluateSection,
    folder: Path,
    rows: Sequence[Mapping[str, Any]] | None,
    benchmark: Benchmark | None,
) -> list[Prompt]:
    """The prompts that are answered: of the benchmark, of the rows, or of the jsonl file that the section names."""
    if benchmark is not None:
        return prompts_from_rows(benchmark.first(section.limit).rows, name=benchmark.name)
    if rows is None:
        return read_prompts(folder / section.prompts.id, column=section.prompts.column, limit=section.limit)
    kept = rows if section.limit is None else rows[: section.limit]
    # A local file's folder is nobody's business: row ids are published.
    source = section.prompts.id
    return prompts_from_rows(kept, column=section.prompts.column, name=Path(source).name if is_path(source) else source)


def _others(
    benchmark: Benchmark | None,
    rivals: Mapping[str, Sequence[str]],
    prompts: Sequence[Prompt],
    variants: Sequence[str],
) -> dict[str, Sequence[str]]:
    """Answers that no system of ours writes, by name: one for each prompt."""
    if BASE in variants:
        raise RecipeError(f"a variant is called {BASE!r}", where="variants", expected=f"any name but {BASE!r}")
    published = {} if benchmark is None else {benchmark.baseline: benchmark.baseline_answers}
    for name, texts in rivals.items():
        if name in (*variants, *published, BASE):
            raise RecipeError(f"there are two systems called {name!r}", where="--against", fix="rename one of them")
        assert len(texts) == len(prompts), "a rival has answered every prompt"
    return {**published, **rivals}


def _rows(
    answering: Answering,
    answered: Mapping[str, Answered],
    others: Mapping[str, Sequence[str]],
    opponents: Sequence[str],
) -> Answers:
    """All answers in one order of rows: every prompt with each of its samples."""
    samples = answering.sampling.samples_per_prompt
    texts = {name: [answer.text for answer in each.answers] for name, each in answered.items()}
    tokens = {name: [len(answer.response_ids) for answer in each.answers] for name, each in answered.items()}
    for name, given in others.items():
        if name not in opponents:
            continue
        texts[name] = [text for text in given for _ in range(samples)]
        counts = _token_counts(answering.encoder.tokenizer, given)
        tokens[name] = [count for count in counts for _ in range(samples)]
    prompts = [prompt for prompt in answering.prompts for _ in range(samples)]
    return Answers(prompts=prompts, texts=texts, tokens=tokens, opponents=opponents)


def _token_counts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]


def _system(name: str, answered: Answered | None, answers: Answers, judged: Judged) -> SystemAnswers:
    texts = answers.texts[name]
    return SystemAnswers(
        name=name,
        scores=None if judged.scores is None else judged.scores[name],
        tokens=answers.tokens[name],
        words=[len(text.split()) for text in texts],
        characters=[len(text) for text in texts],
        finished=[True] * len(texts) if answered is None else [answer.finished for answer in answered.answers],
        well_formed=None if judged.well_formed is None else judged.well_formed[name],
        logps=None if answered is None else answered.logps,
        reference_logps=None if answered is None else answered.base_logps,
    )
