"""Optimizer, scheduler and random state as safetensors instead of pickles, and back: nobody loads a pickle of the Hub.

Equivalent to `torch.load(path, weights_only=True)` and `torch.save(value, path)`, there and back, bit for bit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from inspo_hub.errors import PublishError

_PICKLED = (".pt", ".pth")
_PORTABLE = ".safetensors"
_STRUCTURE = "structure"


def is_state_pickle(name: str) -> bool:
    """Whether a file of a checkpoint is a pickled state that has a portable form."""
    return name.endswith(_PICKLED)


def make_portable(folder: Path) -> list[str]:
    """Replaces every pickled state below a folder by its portable form; returns the new names."""
    made = []
    for path in sorted(path for path in folder.rglob("*") if is_state_pickle(path.name)):
        with torch.serialization.safe_globals(_numpy_globals()):
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        target = path.with_name(path.name + _PORTABLE)
        write_state(value, target)
        del value
        path.unlink()
        made.append(target.relative_to(folder).as_posix())
    return made


def make_native(folder: Path) -> list[str]:
    """The way back, after a download: the files that the Trainer reads, written by this process."""
    made = []
    portable = [path for path in folder.rglob("*") if path.name.endswith(tuple(end + _PORTABLE for end in _PICKLED))]
    for path in sorted(portable):
        target = path.with_name(path.name.removesuffix(_PORTABLE))
        torch.save(read_state(path), target)
        path.unlink()
        made.append(target.relative_to(folder).as_posix())
    return made


def write_state(value: Any, path: Path) -> None:
    """Writes a nest of dicts, lists, tuples, numbers, texts, tensors and numpy arrays as one safetensors file."""
    writer = _Writer()
    structure = writer.encode(value, where="")
    save_file(writer.tensors, path, metadata={_STRUCTURE: json.dumps(structure)})


def read_state(path: Path) -> Any:
    """The value that `write_state` wrote."""
    with safe_open(path, framework="pt") as file:
        structure = json.loads(file.metadata()[_STRUCTURE])
        return _decode(structure, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping


class _Writer:
    """Turns a value into JSON that names tensors, and gathers the tensors; one that occurs twice is stored once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}

    def encode(self, value: Any, *, where: str) -> Any:
        if value is None or (isinstance(value, bool | int | float | str) and type(value).__module__ == "builtins"):
            return value
        if isinstance(value, Tensor):
            return {"tensor": self._store(value)}
        if isinstance(value, np.ndarray):
            return {"array": self._store(torch.from_numpy(np.ascontiguousarray(value)))}
        if isinstance(value, np.generic):
            return self.encode(value.item(), where=where)
        if isinstance(value, dict):
            pairs = [[self.encode(k, where=where), self.encode(v, where=f"{where}.{k}")] for k, v in value.items()]
            return {"dict": pairs}
        if isinstance(value, tuple | list):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [self.encode(each, where=f"{where}.{i}") for i, each in enumerate(value)]}
        raise PublishError(
            f"a {type(value).__name__} has no form that is safe to publish",
            where=where.lstrip(".") or "state",
            expected="numbers, texts, tensors, and dicts, lists and tuples of them",
            fix="set publish.strategy: every_save, which publishes the weights alone",
        )

    def _store(self, tensor: Tensor) -> str:
        tensor = tensor.detach()
        key = (
            (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype) if tensor.numel() else (id(tensor),)
        )
        if key not in self._names:
            self._names[key] = f"t{len(self.tensors)}"
            # safetensors stores whole memories: a view of a part of one becomes a memory of its own.
            whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
            self.tensors[self._names[key]] = tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
        return self._names[key]


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {_decode(key, tensors): _decode(each, tensors) for key, each in content}
    items = [_decode(each, tensors) for each in content]
    return tuple(items) if kind == "tuple" else items


def _numpy_globals() -> list[Any]:
    """What unpickling the numpy part of a random state needs; nothing of it runs code of the file."""
    reconstruct = np.ndarray.__reduce__(np.zeros(1))[0]
    return [reconstruct, np.ndarray, np.dtype, *{type(np.dtype(each)) for each in (np.uint32, np.int64, np.float64)}]
