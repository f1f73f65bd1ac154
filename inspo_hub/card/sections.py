"""The sections of a model card that say what the model is and how it came to be; `results` holds what was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inspo_hub.card.citations import INSPO, PAPERS, arxiv_number
from inspo_hub.card.embedded import embed_lock, embed_recipe, local_files, published_yaml
from inspo_hub.card.facts import CardFacts
from inspo_hub.card.markdown import arxiv_link, code, count, fenced, number, repo_link, table, words
from inspo_hub.card.private import hide_paths, shown_name
from inspo_hub.card.results import headline
from inspo_hub.plan import RUN_SHA256

if TYPE_CHECKING:
    from inspo_hub.hub import Pinned
    from inspo_hub.recipe import Recipe

NOTATION = (
    "a and b are the log-ratios of the chosen and the rejected response to the reference, z = β(a − b), n a length in "
    "tokens, ls = log σ; x is the prompt, y_w the chosen and y_l the rejected response"
)


def introduction(facts: CardFacts) -> str:
    """What it is in two sentences, and the method in a list."""
    recipe = facts.recipe
    made = "an adapter for" if facts.is_adapter else "a version of"
    how = f"the {code(recipe.objective.name)} objective under the {code(recipe.conditioning.name)} conditioning"
    first = (
        f"This is {made} {base_name(facts)}, trained with {how} on {_pairs(facts)}"
        f" in {count(facts.summary.get('steps'))} optimizer steps with inspo_hub {facts.package_version}."
    )
    parts = [f"# {words(facts.title)}", f"{first} {headline(facts)}"]
    if recipe.description:
        parts.insert(1, f"> {words(recipe.description)}")
    parts.append("\n".join([*_method(facts), *_twin_lines(facts)]))
    return "\n\n".join(parts)


def base_name(facts: CardFacts) -> str:
    """The base with a link and its commit, or the name of its folder."""
    return code(shown_name(facts.base)) + " (a local model)" if facts.base.is_local else _pinned(facts.base)


def _pairs(facts: CardFacts) -> str:
    """How many pairs of the training set were reached; with several epochs the optimizer saw more."""
    seen, known = facts.summary.get("pairs"), (facts.data_report or {}).get("train_pairs")
    if known is None or seen is None:
        return f"{count(seen)} preference pairs, repeats counted,"
    return f"{count(min(seen, known))} preference pairs"


def _pinned(pin: Pinned) -> str:
    return repo_link(pin.id, kind=pin.kind, sha=pin.sha)


def _method(facts: CardFacts) -> list[str]:
    recipe = facts.recipe
    reference = _reference(facts)
    return [
        f"- Objective {code(recipe.objective.name)}{_settings(recipe.objective)}: {_first_line(recipe.objective)}",
        f"- Conditioning {code(recipe.conditioning.name)}{_settings(recipe.conditioning)}: "
        f"{_first_line(recipe.conditioning)}",
        *([f"- Adapter: {_adapter(facts)}"] if facts.is_adapter else []),
        *([f"- Reference: {reference}"] if reference else []),
        f"- Notation: {words(NOTATION)}.",
    ]


def _reference(facts: CardFacts) -> str:
    if not facts.recipe.objective.uses_reference:
        return ""
    which = "the policy before training"
    if facts.reference is not None:
        which = code(shown_name(facts.reference)) if facts.reference.is_local else _pinned(facts.reference)
    if not facts.conditioned:
        return f"{which}."
    contexts = {"plain": "given the prompt alone", "conditioned": "given the same alternative as the policy"}
    return f"{which}, which scores a response {contexts[facts.recipe.reference.context]}."


def _adapter(facts: CardFacts) -> str:
    """Its kind and size, or the one that training started from, and how the base was held."""
    adapter = facts.recipe.adapter
    assert adapter is not None, "asked for only where there is one"
    if facts.base_adapter is not None:
        start = facts.base_adapter
        parts = [f"goes on from {code(shown_name(start)) if start.is_local else _pinned(start)}"]
    else:
        kind = " with ".join(
            ["DoRA" if adapter.use_dora else "LoRA", *(["rsLoRA scaling"] if adapter.use_rslora else [])]
        )
        layers = ", ".join(code(name) for name in adapter.targets) if adapter.targets else "all linear layers"
        parts = [f"{kind}, rank {adapter.rank}, alpha {number(adapter.scale_numerator, 'g')}, on {layers}"]
    if adapter.quantize:
        parts.append(f"trained on the base in {code(adapter.quantize)}")
    return "; ".join(parts) + "."


def _first_line(part: Any) -> str:
    """The first line of the class's docstring: its formula and its source."""
    return words((type(part).__doc__ or "").strip().partition("\n")[0])


def _settings(part: Any) -> str:
    """The settings that are not zero."""
    dumped = part.model_dump(mode="json")
    fields = {key: value for key, value in dumped.items() if key != "name" and (value or isinstance(value, bool))}
    return f" ({', '.join(f'{key} {json.dumps(value)}' for key, value in fields.items())})" if fields else ""


def _twin_lines(facts: CardFacts) -> list[str]:
    if not facts.twins:
        return []
    names = ", ".join(repo_link(twin.repo_id) if twin.repo_id else code(twin.name) for twin in facts.twins)
    return [f"- Twins, trained on the same pairs in the same order from the same seed: {names}."]


def usage(facts: CardFacts) -> str:
    """Runnable code that needs nothing of this project, with a real prompt."""
    return (
        "## How to use\n\nThe model answers a prompt as any causal language model does; no alternative is needed.\n\n"
        + fenced(_code(facts), "python")
    )


def _code(facts: CardFacts) -> str:
    remote = ", trust_remote_code=True" if facts.recipe.model.trust_remote_code else ""
    package, model_class = ("peft", "AutoPeftModelForCausalLM") if facts.is_adapter else ("transformers", "")
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if model_class:
        imports = f"from {package} import {model_class}\nfrom transformers import AutoTokenizer"
    where = (
        f"model_id = {json.dumps(facts.repo_id)}" if facts.repo_id else 'model_id = "."  # the folder of this README.md'
    )
    return (
        f"{imports}\n\n{where}\n"
        f"tokenizer = AutoTokenizer.from_pretrained(model_id{remote})\n"
        f"model = {model_class or 'AutoModelForCausalLM'}.from_pretrained(model_id{remote})\n\n"
        f"{_prompt_code(facts)}\n"
        "output = model.generate(**inputs, max_new_tokens=256)\n"
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))\n'
    )


def _prompt_code(facts: CardFacts) -> str:
    if isinstance(facts.example, str):
        return f'inputs = tokenizer({_python(facts.example)}, return_tensors="pt")'
    messages = facts.example or [{"role": "user", "content": "What can you help me with?"}]
    lines = ",\n".join(f"    {_python(dict(message))}" for message in messages)
    return (
        f"messages = [\n{lines},\n]\n"
        "inputs = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n)'
    )


def _python(value: Any) -> str:
    """A Python literal; JSON of texts, lists and dicts of texts is one."""
    return hide_paths(json.dumps(value, ensure_ascii=False))


def cost(facts: CardFacts) -> str:
    """Steps, pairs, tokens, seconds and the device, as they were counted."""
    summary = facts.summary
    per_step, steps = summary.get("seconds_per_step"), summary.get("steps")
    total = per_step * steps if per_step is not None and steps is not None else None
    rows = [
        ["optimizer steps", count(steps)],
        ["pairs trained on, epochs counted", count(summary.get("pairs"))],
        ["tokens through the model, forward", count(summary.get("tokens"))],
        ["tokens per step", count(summary.get("tokens_per_step"))],
        ["seconds per step, median", number(per_step, ".3g")],
        ["training time, median × steps", duration(total)],
        ["device", _device(summary)],
        ["compute precision", code(str(summary.get("compute_dtype", "unknown")))],
        ["packing of a pair", code(str(summary.get("layout", "unknown")))],
    ]
    if summary.get("peak_memory_bytes"):
        rows.append(["peak memory of a device", f"{summary['peak_memory_bytes'] / 2**30:.2f} GiB"])
    note = "Scoring the reference, evaluating and saving come on top; energy was not measured."
    return f"## Cost\n\n{table(['', ''], rows)}\n\n{note}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return number(None)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _device(summary: Any) -> str:
    name = words(str(summary.get("device_name") or summary.get("device") or "unknown"))
    return f"{summary.get('processes', 1)} × {name}"


def recipe_and_lock(facts: CardFacts) -> str:
    """Both, in blocks that `recipe_and_lock_from_card` reads."""
    text = published_yaml(facts.recipe)
    sha, run_sha = facts.recipe.sha256(), str(facts.lock.get("extra", {}).get(RUN_SHA256) or "")
    hashes = f"The hash of the recipe as it was run is {code(sha)}"
    hashes += f"; it is a variant of the recipe {code(run_sha)}." if run_sha not in ("", sha) else "."
    return "\n\n".join(
        [
            f"## Recipe and lock\n\n{hashes}",
            embed_recipe(text),
            embed_lock(facts.lock),
        ]
    )


def reproduction(facts: CardFacts) -> str:
    """The commands that train this model again."""
    processes = int(facts.summary.get("processes") or 1)
    launch = f"accelerate launch {f'--num_processes {processes} ' if processes > 1 else ''}-m inspo_hub.run recipe.yaml"
    parts = ["## How to reproduce"]
    start = f"With inspo_hub {facts.package_version} installed"
    if facts.repo_id:
        parts.append(f"{start},")
        parts.append(fenced(f"inspo-hub reproduce {facts.repo_id}", "bash"))
        parts.append("runs the recipe above from the commits in the lock. Or save the recipe as `recipe.yaml` and run")
    else:
        parts.append(f"{start}, save the recipe above as `recipe.yaml` and run")
    parts += [fenced(launch, "bash"), *missing_files(facts.recipe)]
    return "\n\n".join(parts)


def missing_files(recipe: Recipe) -> list[str]:
    """What a reader must have beside the recipe; empty where all of it is on the Hub."""
    names = ", ".join(code(name) for name in local_files(recipe))
    return [f"Local files are no part of this card and have to lie beside the recipe: {names}."] if names else []


def citations(facts: CardFacts) -> str:
    """InSPO where its conditioning was trained, and the objective's paper."""
    return citations_of([facts])


def papers_of(variants: Sequence[CardFacts]) -> dict[str, str]:
    """arXiv number -> what it stands for: InSPO where its conditioning was trained, and the objectives' papers."""
    cited = {INSPO.arxiv: "InSPO"} if any(facts.conditioned for facts in variants) else {}
    for facts in variants:
        objective = facts.recipe.objective
        arxiv = arxiv_number(objective.paper)
        if arxiv:
            cited.setdefault(arxiv, code(objective.name))
    return cited


def citations_of(variants: Sequence[CardFacts]) -> str:
    """The papers of all variants, each once, as a section."""
    parts = ["## Citations"]
    for arxiv, name in papers_of(variants).items():
        paper = PAPERS.get(arxiv)
        parts.append(f"{name}: {arxiv_link(arxiv)}" + (f"\n\n{fenced(paper.bibtex(), 'bibtex')}" if paper else ""))
    return "\n\n".join(parts)
