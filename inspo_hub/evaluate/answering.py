"""Every system answers the same prompts, one model in memory at a time; the base comes last and scores all answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub import hub
from inspo_hub.evaluate.calls import CallCache
from inspo_hub.evaluate.generation import Generation, PromptEncoder, Sampling, generate
from inspo_hub.evaluate.kept import KeptAnswers
from inspo_hub.evaluate.likelihood import response_logps
from inspo_hub.evaluate.prompts import Prompt
from inspo_hub.evaluate.result import BASE
from inspo_hub.evaluate.systems import System, Systems
from inspo_hub.models import load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from inspo_hub.pairs.types import TextFormat
    from inspo_hub.recipe import EvaluateSection

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with (system, answers done, answers in all) after every batch."""

KEPT = ".evaluation"
"""In an output folder: answers and verdicts row by row; hidden, so that no push takes it along."""


@dataclass(slots=True)
class Answered:
    """What one system wrote: the answers that are judged, the answers behind its KL, and their log-probabilities."""

    answers: list[Generation]
    own_samples: list[Generation]
    logps: Sequence[float] | None = None
    base_logps: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """Everything that is the same for all systems."""

    systems: Systems
    encoder: PromptEncoder
    prompts: Sequence[Prompt]
    sampling: Sampling
    batch_size: int
    progress: Progress
    kept: Path
    """Folder of the answers that were generated before."""

    def answers(self, model: PreTrainedModel, name: str, identity: str, sampling: Sampling) -> list[Generation]:
        return generate(
            model,
            self.encoder.tokenizer,
            self.prompts,
            sampling,
            batch_size=self.batch_size,
            encoder=self.encoder,
            progress=partial(self.progress, name),
            kept=KeptAnswers(CallCache(self.kept / f"answers-{name}.jsonl"), identity),
        )

    def identity(self, system: System) -> str:
        """What a system's answers depend on beside prompts and sampling: its weights and its arithmetic."""
        folders = [system.model] if system.adapter is None else [system.model, system.adapter]
        weights = [hub.weights_identity(hub.Pinned("model", str(each), None, None, each)) for each in folders]
        how = {"dtype": str(self.systems.dtype), "device": self.systems.device.type, "nf4": str(system.quantized)}
        return hub.digest({**{f"weights{i}": each for i, each in enumerate(weights)}, **how})


def answer_all(answering: Answering, base: System | None, variants: Mapping[str, System]) -> dict[str, Answered]:
    """Answers of the base (first in the result) and of every variant, whose own samples get both log-probabilities."""
    answered: dict[str, Answered] = {}
    sampling = answering.sampling
    for name, system in [*variants.items(), *([(BASE, base)] if base is not None else [])]:
        started, identity = time.perf_counter(), answering.identity(system)
        with answering.systems.open(system) as model:
            answers = answering.answers(model, name, identity, sampling)
            own = answers
            if name != BASE and base is not None and not sampling.is_plain:
                own = answering.answers(model, name, identity, replace(sampling, temperature=1.0, top_p=1.0))
            answered[name] = Answered(answers, own)
            if base is not None and name != BASE:
                answered[name].logps = _logps(model, own)
            elif name == BASE:
                for variant in variants:
                    answered[variant].base_logps = _logps(model, answered[variant].own_samples)
        del model  # before the next one is loaded
        log.info("%s: %d answers in %.1f s", name, len(answers), time.perf_counter() - started)
    return {**({BASE: answered.pop(BASE)} if base is not None else {}), **answered}


def _logps(model: PreTrainedModel, answers: Sequence[Generation]) -> list[float]:
    prompts, responses = [answer.prompt_ids for answer in answers], [answer.response_ids for answer in answers]
    return response_logps(model, prompts, responses).tolist()


def answers_of(
    system: System,
    tokenizer_path: Path,
    name: str,
    prompts: Sequence[Prompt],
    section: EvaluateSection,
    *,
    seed: int,
    output: Path,
    device: torch.device | str | None = None,
) -> list[str]:
    """One answer to each prompt of a model that is no variant, with its own tokenizer and chat template."""
    systems, encoder = Systems(device=device), encoder_of(load_tokenizer(tokenizer_path), None, "auto")
    answering = answering_of(section, systems, encoder, prompts, seed=seed, kept=output / KEPT, progress=None)
    sampling = replace(answering.sampling, samples_per_prompt=1)
    with systems.open(system) as model:
        found = answering.answers(model, name, answering.identity(system), sampling)
    return [answer.text for answer in found]


def answering_of(
    section: EvaluateSection,
    systems: Systems,
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    *,
    seed: int,
    kept: Path,
    progress: Progress | None,
) -> Answering:
    """How a recipe's section has prompts answered."""
    return Answering(
        systems=systems,
        encoder=encoder,
        prompts=prompts,
        sampling=Sampling(
            max_new_tokens=section.max_new_tokens,
            temperature=section.temperature,
            top_p=section.top_p,
            samples_per_prompt=section.samples_per_prompt,
            seed=seed,
        ),
        batch_size=section.batch_size,
        progress=progress or SaidProgress(),
        kept=kept,
    )


def encoder_of(
    tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any] | None, text_format: TextFormat
) -> PromptEncoder:
    """The encoder of prompts that training would use."""
    chat = text_format == "chat" or (text_format == "auto" and bool(getattr(tokenizer, "chat_template", None)))
    return PromptEncoder(tokenizer, chat, template_kwargs or {})


class SaidProgress:
    """Says how far a generation is, every half a minute: a log that is read later has no bar."""

    def __init__(self, every_s: float = 30.0) -> None:
        self.every_s, self._last = every_s, time.monotonic()

    def __call__(self, name: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= self.every_s:
            self._last = time.monotonic()
            log.info("%s: %d of %d answers", name, done, total)
