"""Peak memory of one step: torch's allocator on a GPU, the kernel's own high-water mark of a fresh process on a CPU.

On a CPU the process is a new one whose allocator hands every larger block straight back to the system, so that what is
resident is what is allocated; Linux resets the mark before each step. Elsewhere it is not measured.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tests.bench.case import Case
from tests.bench.sides import Side, SideUnavailable, make_side
from tests.bench.workload import Workload

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_memory(workload: Workload, sides: Mapping[str, Side]) -> dict[str, int]:
    """Peak bytes of a step of each side, above the policy's weights; gradients included."""
    case = workload.case
    if case.device == "cuda":
        return {name: _peak_of_step(workload, side) for name, side in sides.items()}
    if not _RESET.exists():
        return {}
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.bench.memory"],
        input=json.dumps({"case": case.to_json(), "names": list(sides), "threads": torch.get_num_threads()}),
        env=os.environ | _ALLOCATOR,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    peaks: dict[str, int] = json.loads(child.stdout.splitlines()[-1])
    return peaks


def _peaks_here(case: Case, names: Sequence[str]) -> dict[str, int]:
    """The child's part: every side by itself, one after the other."""
    workload = Workload(case)
    peaks: dict[str, int] = {}
    for name in names:
        try:
            side = make_side(name, workload)
        except SideUnavailable:
            continue
        peaks[name] = _peak_of_step(workload, side)
    return peaks


def _peak_of_step(workload: Workload, side: Side) -> int:
    workload.clear_gradients()
    gc.collect()
    if workload.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(workload.device)
        before = torch.cuda.memory_allocated(workload.device)
        side.step()
        peak = torch.cuda.max_memory_allocated(workload.device)
    else:
        ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5")
        before = _resident("VmRSS")
        side.step()
        peak = _resident("VmHWM")
    workload.clear_gradients()
    if side.holds_reference:
        peak += sum(p.numel() * p.element_size() for p in workload.reference.parameters())
    return peak - before


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None, f"no {field} in {_STATUS}"
    return 1024 * int(found.group(1))


if __name__ == "__main__":
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    print(json.dumps(_peaks_here(Case(**request["case"]), request["names"])))
