"""Which files of a folder go to the Hub: the model and what explains it, the card, and a checkpoint's state."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from inspo_hub import hub

CARD = "README.md"
_MODEL = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*.safetensors.index.json",
    "*processor_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "tekken.json",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "additional_chat_templates/*.jinja",
)
_RUN = ("recipe.yaml", "lock.json", "metrics.jsonl", "report/*", ".eval_results/*.yaml")
_UNWANTED_STATE = ("training_args.bin", CARD)
"""training_args.bin is a pickle that nothing needs: the recipe says what it says."""


def published_files(names: Iterable[str]) -> list[str]:
    """The files for the model's branch, the card apart; pickles are not among them."""
    return sorted(
        name
        for name in names
        if (hub.is_weight_file(name) or _matches(name, _MODEL) or _matches(name, _RUN, deep=True))
        and not name.endswith(hub.PICKLE_SUFFIXES)
    )


def state_files(names: Iterable[str]) -> list[str]:
    """The files of a checkpoint folder that resuming needs: all of it but what nothing reads."""
    return sorted(name for name in names if name not in _UNWANTED_STATE)


def is_stale_model_file(path: str) -> bool:
    """Weights that a push replaces: left behind, shards of an earlier push would be loaded instead of the new ones."""
    return hub.is_weight_file(path) or (path.endswith(".safetensors.index.json") and "/" not in path)


def _matches(name: str, patterns: Iterable[str], *, deep: bool = False) -> bool:
    """fnmatch, where `*` stays within one folder unless `deep`."""
    return any(fnmatchcase(name, each) and (deep or name.count("/") == each.count("/")) for each in patterns)


def files_below(folder: Path) -> list[str]:
    """Paths of all files below a folder, with forward slashes; of hidden folders only .eval_results.

    Hidden folders are not looked into at all: the publisher's spool is one, and its worker removes snapshots meanwhile.
    """
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _hidden(name)]
        found += [(Path(here) / name).relative_to(folder).as_posix() for name in files if not _hidden(name)]
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".") and name != ".eval_results"
