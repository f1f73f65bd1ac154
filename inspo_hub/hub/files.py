"""Which files of a repository are used, where its copies may lie, and how small files are written whole."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from inspo_hub.errors import ResolutionError
from inspo_hub.hub.types import Kind

Part = Literal["all", "tokenizer", "config"]

_WEIGHTS = re.compile(r"(?:model|adapter_model)(?:-\d{5}-of-\d{5})?\.safetensors\Z")
_MODEL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "additional_chat_templates/*.jinja")
_CONFIG_FILES = ("config.json", "generation_config.json", "adapter_config.json")
_INDEX_FILES = ("model.safetensors.index.json",)
_DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".arrow", ".txt", ".zst", ".gz")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
"""Formats that can run code when they are loaded, or that hide weights we would not check. Never fetched nor pushed."""


def cache_dir() -> Path:
    """Our own folder beside the Hub's cache: `INSPO_HUB_CACHE`, else `HF_HOME/inspo_hub`."""
    from huggingface_hub import constants

    return Path(os.environ.get("INSPO_HUB_CACHE") or Path(constants.HF_HOME) / "inspo_hub").expanduser()


def check_repo_path(path: str, *, where: str) -> str:
    """The path, where it stays inside its repository on every system; else a ResolutionError."""
    parts = PurePosixPath(path).parts
    windows = PureWindowsPath(path)
    escapes = path.startswith("/") or ".." in parts or ".." in windows.parts or bool(windows.drive or windows.root)
    if escapes or not parts or "\\" in path or "\0" in path:
        raise ResolutionError(
            f"the file name {path!r} leaves the folder of its repository",
            where=where,
            expected="relative paths without `..`",
            fix="do not use this repository; report it to the Hub",
        )
    return path


def is_weight_file(path: str) -> bool:
    """Whether transformers or peft would load weights from this file."""
    return _WEIGHTS.match(path) is not None


def select(kind: Kind, paths: Iterable[str], part: Part = "all", *, code: bool = False) -> list[str]:
    """The files of a commit that we use, sorted. Models: safetensors, configuration, tokenizer, at the root only.

    Python files only with `code`, pickles never.
    """
    if kind != "model":
        chosen = [path for path in paths if path == "README.md" or path.endswith(_DATA_SUFFIXES)]
        return sorted(path for path in chosen if not any(name.startswith(".") for name in PurePosixPath(path).parts))
    patterns: tuple[str, ...] = _CONFIG_FILES if part == "config" else _MODEL_FILES
    chosen = [path for path in paths if _matches(path, patterns) and not (part != "all" and path in _INDEX_FILES)]
    if part == "all":
        chosen += [path for path in paths if is_weight_file(path)]
    if code:
        chosen += [path for path in paths if path.endswith(".py")]
    return sorted(set(chosen))


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """fnmatch, where `*` stays within one folder."""
    return any(fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns)


def require_safetensors(paths: Iterable[str], *, where: str) -> None:
    """Refuses a model without safetensors weights: pickled ones can run code and are never loaded."""
    names = list(paths)
    if any(is_weight_file(path) for path in names):
        return
    pickled = sorted(path for path in names if path.endswith(PICKLE_SUFFIXES))
    raise ResolutionError(
        f"the model has no safetensors weights{', only ' + ', '.join(pickled[:3]) if pickled else ''}",
        where=where,
        expected="model.safetensors, or model-00001-of-0000N.safetensors with their index; pickles are never loaded",
        fix="choose a revision with safetensors (on the Hub often `refs/pr/1`), or convert: "
        "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)",
    )


def local_files(folder: Path) -> list[str]:
    """Paths below a folder with forward slashes, hidden files and folders left out; one file gives its own name."""
    if folder.is_file():
        return [folder.name]
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(root).relative_to(folder)
        found += [(relative / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader, or a kill at any moment, sees the old file or the new one."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a kill at any moment, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
