"""`inspo-hub evaluate`: a run's output or a published model, against whom and on what the user says."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub import hub
from inspo_hub.adapters import is_adapter_folder, read_config
from inspo_hub.describing import variants_in
from inspo_hub.errors import DataError, RecipeError
from inspo_hub.evaluate import System, evaluate_variants
from inspo_hub.evaluate.answering import answers_of
from inspo_hub.evaluate.benchmarks import Benchmark, read_benchmark
from inspo_hub.evaluate.result import BASE
from inspo_hub.evaluate.variants import section_prompts
from inspo_hub.finishing import training_numbers
from inspo_hub.pairs import PairSource, load_rows
from inspo_hub.recipe.evaluation import evaluation_section
from inspo_hub.recipe.prompt_sets import PROMPT_SETS, prompts_repository
from inspo_hub.recipe.reading import read_tree

if TYPE_CHECKING:
    from inspo_hub.evaluate import EvaluationResult
    from inspo_hub.recipe import EvaluateSection

log = logging.getLogger(__name__)

NO_BASE = "none"
_OURS = ("base", "baseline")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for."""

    target: str
    against: Sequence[str] = ()
    overrides: Sequence[str] = ()
    output: Path | None = None
    base: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is evaluated, all of it on this machine."""

    name: str
    systems: Mapping[str, System]
    base: Path | None
    tokenizer: Path
    section: Mapping[str, Any] | None
    """The recipe's own `evaluate:`, where it has one that can be used here."""
    output: Path
    training: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """How prompts are read: chat template, text format, seed."""


def evaluate_target(request: Request) -> tuple[EvaluationResult, Path]:
    """Evaluates what the request names; the result, and the folder whose `report/` has it.

    Raises:
        RecipeError: the evaluation is not whole: no prompts, no judge, nobody to compare with.
        ResolutionError: something cannot be found or reached.
        JudgeError: the judge cannot be reached, or fails too often.
    """
    subject = _from_run(Path(request.target), request) if _is_run(request.target) else _from_model(request)
    section = evaluation_section(subject.section, [*request.overrides, *_against(request)])
    output = request.output or subject.output
    asked = _prompts(section)
    prompts = section_prompts(section, Path(), asked.get("rows"), asked.get("benchmark"))
    rivals = {}
    for rival in [each for each in request.against if each not in _OURS]:
        name, texts = _rival(rival, prompts, section, output, int(subject.options.get("seed", 0)))
        rivals[name] = texts
    result = evaluate_variants(
        section,
        subject.base,
        subject.systems,
        subject.tokenizer,
        output,
        subject.training,
        rivals=rivals,
        judge_path=_judge_path(section),
        **asked,
        **subject.options,
    )
    return result, output


def _against(request: Request) -> list[str]:
    """The recipe key of what `--against` says about the base and a benchmark's baseline."""
    named = [each for each in request.against if each in _OURS]
    return [f"evaluate.against={'both' if len(set(named)) == 2 else named[0]}"] if named else []


# --- what is evaluated


def _is_run(target: str) -> bool:
    return Path(target).is_dir() and bool(variants_in(Path(target)))


def _from_run(output: Path, request: Request) -> _Subject:
    """The trained variants of an output folder."""
    variants = {name: each for name, each in variants_in(output).items() if each.summary is not None}
    if not variants:
        raise RecipeError(
            "no variant was trained to the end", where=str(output), fix="run the recipe again: it goes on"
        )
    first = next(iter(variants.values()))
    recipe = first.recipe
    base = hub.fetch(first.plan.model, code=recipe.model.trust_remote_code)
    systems = {}
    for name, each in variants.items():
        adapter = each.recipe.adapter
        systems[name] = (
            System(model=each.folder)
            if adapter is None
            else System(model=base, adapter=each.folder, quantized=adapter.quantize is not None)
        )
    return _Subject(
        name=output.name,
        systems=systems,
        base=None if request.base == NO_BASE else base,
        tokenizer=first.folder,
        section=None if recipe.evaluate is None else recipe.evaluate.model_dump(mode="json"),
        output=output / "evaluation",
        training={name: training_numbers(each.summary or {}) for name, each in variants.items()},
        options={
            "chat_template": Path(recipe.model.chat_template) if recipe.model.chat_template else None,
            "chat_template_kwargs": recipe.data.chat_template_kwargs,
            "text_format": recipe.data.text_format,
            "seed": recipe.seed,
        },
    )


def _from_model(request: Request) -> _Subject:
    """A model or adapter of the Hub, or a folder that no run of ours noted."""
    folder, pinned = _fetch_model(request.target)
    name = request.target.rstrip("/").split("/")[-1].partition("@")[0]
    adapter = is_adapter_folder(folder)
    base = _base_of(folder, pinned, request.base, adapter=adapter)
    if adapter and base is None:
        raise RecipeError(
            "an adapter answers on its base only", where=request.target, expected="its base", fix="name it with --base"
        )
    system = System(model=folder)
    if adapter:
        assert base is not None
        system = System(model=base, adapter=folder)
    return _Subject(
        name=name,
        systems={name: system},
        base=None if request.base == NO_BASE else base,
        tokenizer=folder,
        section=_published_section(folder, pinned),
        output=Path("outputs") / f"{name}-evaluation",
    )


def _fetch_model(name: str) -> tuple[Path, hub.Pinned]:
    id, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
    pinned = hub.resolve("model", str(Path(name).resolve()) if Path(name).exists() else id, revision or None)
    return hub.fetch(pinned), pinned


def _base_of(folder: Path, pinned: hub.Pinned, given: str | None, *, adapter: bool) -> Path | None:
    """The base on this machine: the one that is named, else that of the adapter or of the model's card."""
    if given == NO_BASE:
        return None
    named: Any = given
    if named is None and adapter:
        named = read_config(folder).get("base_model_name_or_path")
    if named is None:
        named = hub.metadata(pinned).card.get("base_model")
        named = named[0] if isinstance(named, list) and len(named) == 1 else named
    if not isinstance(named, str) or not named:
        log.warning("%s names no base: there is no KL, and no win rate against it", pinned)
        return None
    return _fetch_model(named)[0]


def _published_section(folder: Path, pinned: hub.Pinned) -> dict[str, Any] | None:
    """What a published recipe evaluates with, less what is not here, is somebody else's code, or would call with a key
    of this user whom the card names."""
    file = folder / "recipe.yaml"
    if pinned.path is None and "recipe.yaml" in [each.path for each in hub.list_files(pinned)]:
        file = hub.fetch_run(pinned) / "recipe.yaml"
    if not file.is_file():
        return None
    section = dict(read_tree(file.read_text(encoding="utf-8"), str(file)).plain().get("evaluate") or {})
    if str((section.get("prompts") or {}).get("id", "")).startswith((".", "/", "~")):
        section.pop("prompts")
    judge = section.get("judge") or {}
    if any(judge.get(key) is not None for key in ("python", "endpoint", "template")):
        section.pop("judge")
    return section


# --- prompts, judge, rivals


def _prompts(section: EvaluateSection) -> dict[str, Any]:
    """As `evaluate_variants` takes them: a benchmark, or the rows of a data set."""
    source = section.prompts
    id, revision, files = prompts_repository(source)
    pinned = hub.resolve("dataset", id, revision)
    folder = hub.fetch(pinned, patterns=files)
    if source.id in PROMPT_SETS:
        found: Benchmark = read_benchmark(source.id, folder, str(pinned))
        return {"benchmark": found}
    rows = load_rows(PairSource(id=source.id, local_path=str(folder), config=source.config, split=source.split))
    return {"rows": rows}


def _judge_path(section: EvaluateSection) -> Path | None:
    model = section.judge.model or section.judge.reward_model
    return None if model is None else hub.fetch(hub.resolve("model", model.id, model.revision))


def _rival(
    rival: str, prompts: Sequence[Any], section: EvaluateSection, output: Path, seed: int
) -> tuple[str, list[str]]:
    """(name, answer to each prompt) of a file of answers, or of a model that answers now."""
    file = Path(rival)
    if file.is_file():
        return _answers_in(file, prompts)
    folder, _ = _fetch_model(rival)
    name = rival.rstrip("/").split("/")[-1].partition("@")[0]
    name = f"{name}-rival" if name == BASE else name
    return name, answers_of(System(model=folder), folder, name, prompts, section, seed=seed, output=output)


def _answers_in(file: Path, prompts: Sequence[Any]) -> tuple[str, list[str]]:
    """A file in the form of AlpacaEval's model_outputs.json: its generator, and its answers by instruction."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        by_instruction = {row["instruction"]: str(row["output"]) for row in rows}
        name = str(rows[0].get("generator") or file.stem)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"no file of answers: {type(error).__name__}: {error}",
            where=str(file),
            expected="a JSON list of {instruction, output, generator}, as report/model_outputs/ has them",
        ) from error
    missing = [prompt.row_id for prompt in prompts if prompt.text not in by_instruction]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(prompts)} prompts have no answer, {missing[0]} among them",
            where=str(file),
            expected="an answer to every prompt of this evaluation, by its words",
            fix="set evaluate.prompts or evaluate.limit to what the file answers",
        )
    return name, [by_instruction[prompt.text] for prompt in prompts]
