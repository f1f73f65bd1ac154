"""The tokenizer without torch: the rules of tokenizer.json and the chat template, as `pairs` asks for them."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from inspo_hub import hub
from inspo_hub.errors import ResolutionError
from inspo_hub.quiet import quieter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inspo_hub.plan import Plan

_NEEDED = ("transformers", "datasets", "jinja2", "numpy")
INSTALL = "pip install 'inspo-hub[plan]'"


def missing_libraries() -> list[str]:
    """What tokenising needs and this environment lacks; torch is not among it."""
    return [name for name in _NEEDED if find_spec(name) is None]


def tokenizer_of(plan: Plan) -> PreTrainedTokenizerBase | None:
    """The plan's tokenizer with the recipe's template; None where it has no tokenizer.json.

    AutoTokenizer would import torch where torch is installed. The class of the rules alone does not, and gives the
    same ids: `tests/survey` holds them against each other.
    """
    folder = hub.fetch(plan.tokenizer, "tokenizer")
    if not (folder / "tokenizer.json").is_file():
        return None
    from transformers import PreTrainedTokenizerFast

    # It would remark that the tokenizer's own class is another one.
    try:
        with quieter("transformers", logging.ERROR):
            tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ResolutionError(
            f"no tokenizer could be loaded: {str(error).splitlines()[0]}",
            where=str(plan.tokenizer),
            expected="tokenizer.json and tokenizer_config.json",
            fix="set model.tokenizer to a repository that has one",
        ) from error
    template = plan.recipe.model.chat_template
    if template is not None:
        tokenizer.chat_template = Path(template).read_text(encoding="utf-8")
    return tokenizer
