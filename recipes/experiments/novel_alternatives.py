"""What conditioned models answer when shown alternatives that training did not show: quality by the exact judge.

The models are those of `conditioning` on separable preferences, with their base and DPO beside them: a gain that DPO
has too was not learned from alternatives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import judge
import make
from estimates import mean_and_error, table
from language import ATTRIBUTES, LENGTHS, TONES, WORLD, Answer, Fact, parse_question, render
from pretrain import TURN_TEXT
from series import Outcome, Series, World

from inspo_hub.evaluate import Prompt, Sampling, generate
from inspo_hub.models import load_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SYSTEMS = ("base", "dpo", "symmetric", "averaged")
PROMPTS = 64


def perfect(question: str, *, right: bool) -> str:
    """The answer with everything right, or with every fact, the tone and the length wrong."""
    asked = parse_question(question)
    assert asked is not None
    tone = asked.tone if right else TONES[(TONES.index(asked.tone) + 1) % len(TONES)]
    wanted = LENGTHS[asked.length]
    remarks = wanted.start if right else (0 if wanted.start > 0 else 3)
    knowledge = WORLD[asked.subject]
    values = [knowledge[name].right if right else knowledge[name].mistake for name in ATTRIBUTES]
    facts = tuple(Fact(name, value, 0) for name, value in zip(ATTRIBUTES, values, strict=True))
    return render(Answer(asked.subject, (tone, 0), facts, tuple(range(remarks)), (tone, 0)))


def _shuffled(text: str) -> str:
    words = text.split()
    Random(text).shuffle(words)
    return " ".join(words)


def _half(text: str) -> str:
    words = text.split()
    return " ".join(words[: len(words) // 2])


Alternatives = Callable[[Sequence[str], Mapping[str, Sequence[str]]], Sequence[str]]
KINDS: Mapping[str, Alternatives] = {
    "the base's sample, as in training": lambda asked, samples: samples["base"],
    "its own sample": lambda asked, samples: samples["own"],
    "a perfect answer": lambda asked, samples: [perfect(question, right=True) for question in asked],
    "an answer with everything wrong": lambda asked, samples: [perfect(question, right=False) for question in asked],
    "an answer to another question": lambda asked, samples: [*samples["base"][1:], samples["base"][0]],
    "half of an answer": lambda asked, samples: [_half(text) for text in samples["base"]],
    "its words shuffled": lambda asked, samples: [_shuffled(text) for text in samples["base"]],
    "nothing": lambda asked, samples: [""] * len(asked),
}
"""Name -> alternatives for the questions, given the base's and the system's own plain answers."""


def experiment(series: Series, seeds: Sequence[int]) -> tuple[str, Mapping[str, str]]:
    """(Markdown, file name -> SVG: none)."""
    found = [measured(series, series.outcome("conditioning", World(seed=seed))) for seed in seeds]
    parts = []
    for figure, title in (("quality", "Quality, 0 to 8"), ("well_formed", "Well-formed, %")):
        rows = []
        for kind in ("no alternative", *KINDS):
            values = ([each[name][kind][figure] for each in found] for name in SYSTEMS)
            rows.append([kind, *(mean_and_error(row, ".2f" if figure == "quality" else ".0f") for row in values)])
        parts.append(f"### {title}\n\n{table(['given', *SYSTEMS], rows)}")
    return "\n".join(parts), {}


def measured(series: Series, outcome: Outcome) -> dict[str, Any]:
    """System -> kind -> mean quality and share of well-formed answers, in per cent; kept on disk."""
    file = series.output / "novel_alternatives" / f"{outcome.world.name}.json"
    if not file.is_file():
        texts = _questions(series, outcome.world)[: min(PROMPTS, series.size.prompts)]
        base = series.base(outcome.world.base)
        tokenizer = load_tokenizer(base)
        folders = {name: base if name == "base" else outcome.systems[name].folder for name in SYSTEMS}
        plain = {}
        result: dict[str, Any] = {}
        for name, folder in folders.items():  # the base comes first: its answers are alternatives for the others
            model = load_model(folder)
            plain[name] = _answer(model, tokenizer, texts, None, seed=outcome.world.seed)
            result[name] = {"no alternative": _figures(texts, plain[name])}
            for kind, make_alternatives in KINDS.items():
                shown = make_alternatives(texts, {"base": plain["base"], "own": plain[name]})
                result[name][kind] = _figures(texts, _answer(model, tokenizer, texts, shown, seed=outcome.world.seed))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _questions(series: Series, world: World) -> list[str]:
    file: Path = series.data(world) / "prompts.jsonl"
    return [json.loads(line)["prompt"] for line in file.read_text(encoding="utf-8").splitlines()]


def _answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    alternatives: Sequence[str] | None,
    *,
    seed: int,
) -> list[str]:
    """Answers to the questions, each after its alternative where there are some, as training lays them out."""
    prompts = []
    for index, text in enumerate(texts):
        messages = [{"role": "user", "content": text}]
        if alternatives is not None:
            messages += [{"role": "assistant", "content": alternatives[index]}, {"role": "user", "content": TURN_TEXT}]
        prompts.append(Prompt(tuple(messages), f"question/{index}"))
    # Other random numbers than the evaluation's, so that the model's own sample is not the answer it is shown to.
    sampling = Sampling(max_new_tokens=make.MAX_NEW_TOKENS, seed=seed + (500_000 if alternatives is not None else 0))
    return [answer.text for answer in generate(model, tokenizer, prompts, sampling)]


def _figures(texts: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    rows = list(zip(texts, answers, strict=True))
    return {
        "quality": sum(judge.score(text, answer) for text, answer in rows) / len(rows),
        "well_formed": 100 * sum(judge.well_formed(text, answer) for text, answer in rows) / len(rows),
    }
