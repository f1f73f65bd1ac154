"""What comes before and around a step: dealing and filling, preparing data, the reference pass, the way to step 1."""

from __future__ import annotations

import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from inspo_hub.cost import pair_flops, pair_work
from inspo_hub.dealing import deal_step, pack_micro_batches
from tests.bench.case import SHAPES, Case
from tests.bench.lengths import LAWS, REAL_PAIRS
from tests.bench.measure import measure_case

ROOT = Path(__file__).parents[2]
_SYMMETRIC: Any = ("chosen_given_rejected", "rejected_given_chosen")


@dataclass(frozen=True)
class Figure:
    """One measured number beside what it should be."""

    what: str
    measured: str
    limit: str
    met: bool | None
    """None where there is no limit."""


def figures(*, rows: int, runs: int) -> Iterator[Figure]:
    """All of them, the quick ones first."""
    yield from _dealing()
    yield from _preparation(rows)
    yield _reference_pass(runs)
    yield _first_step()


def markdown(found: list[Figure]) -> str:
    verdicts = {True: "met", False: "missed", None: ""}
    rows = [f"| {each.what} | {each.measured} | {each.limit} | {verdicts[each.met]} |" for each in found]
    return "\n".join(["| what | measured | limit | |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _dealing(steps: int = 200, processes: int = 8) -> Iterator[Figure]:
    """Steps of 128 pairs on 8 processes, dealt by tokens as the trainer deals; work by the FLOPs of an 8 B model."""
    draw, law = np.random.default_rng(0), LAWS["ultrafeedback"]
    tokens_ratio, flops_ratio, wastes = [], [], []
    for _ in range(steps):
        lengths = law.draw(draw, 128, 2048)
        tokens = np.asarray(pair_work(lengths, scores=_SYMMETRIC).tokens)
        flops = np.asarray(pair_flops(SHAPES["8b"].cost, lengths, scores=_SYMMETRIC, head_recomputed=False).total)
        shares = deal_step(tokens.tolist(), processes)
        for work, ratios in ((tokens, tokens_ratio), (flops, flops_ratio)):
            loads = [float(work[share].sum()) for share in shares]
            ratios.append(max(loads) / statistics.mean(loads))
        filled = [int(tokens[members].sum()) for members in pack_micro_batches(tokens.tolist(), 8192)[:-1]]
        full = [total for total in filled if total <= 8192]
        wastes.append(1 - sum(full) / (8192 * len(full)))
    slowest, waste = statistics.mean(flops_ratio), statistics.mean(wastes)
    yield Figure(
        "slowest of 8 processes ÷ mean, tokens", f"{statistics.mean(tokens_ratio):.3f}", "≤ 1.05",
        statistics.mean(tokens_ratio) <= 1.05,
    )  # fmt: skip
    yield Figure("slowest of 8 processes ÷ mean, FLOPs of an 8 B model", f"{slowest:.3f}", "≤ 1.05", slowest <= 1.05)
    yield Figure("token budget of 8,192 left unused", f"{waste:.1%}", "≤ 2 %", waste <= 0.02)


def _preparation(count: int) -> Iterator[Figure]:
    """Processor time of one core for reading, rendering, tokenising and cutting; then once more, from the cache."""
    import datasets

    from inspo_hub.pairs import PairSource, prepare_pairs, separator_ids
    from tests.pairs.tokenizers import tokenizer_of

    tokenizer = tokenizer_of("qwen")
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        datasets.disable_progress_bars()
        path = Path(folder) / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in _rows(count)), encoding="utf-8")
        how: dict[str, Any] = {"separator": separator_ids(tokenizer), "conditioned": True, "max_length": 2048}
        seconds, grown = [], 0
        for _ in range(2):
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _processor_seconds()
            found = prepare_pairs([PairSource(id="bench", local_path=str(path))], tokenizer, seed=0, **how)
            seconds.append(_processor_seconds() - start)
            grown = max(grown, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        per_minute = 60 * count / seconds[0]
        mean = found.train.lengths.sum(axis=1).mean()
    what = f"data preparation, {count:,} pairs of {mean:.0f} tokens, one core"
    yield Figure(what, f"{per_minute:,.0f} pairs/min", "≥ 20,000", per_minute >= 20_000)
    yield Figure("the same from the cache", f"{seconds[1]:.2f} s instead of {seconds[0]:.1f} s", "", None)
    yield Figure("resident memory that it adds at its peak", f"{grown / 1024:.0f} MB", "", None)


def _processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def _rows(count: int) -> Iterator[dict[str, str]]:
    """Real pairs where they lie beside the checkout, over and over under other prompts; made ones elsewhere."""
    if REAL_PAIRS.is_file():
        with gzip.open(REAL_PAIRS, "rt", encoding="utf-8") as lines:
            real = [json.loads(line) for line in lines]
        texts = [(row["instruction"], row["chosen"], row["rejected"]) for row in real]
    else:
        texts = [("What is a river?", "A river is water that flows. " * 20, "It is wet. " * 40)]
    for number in range(count):
        prompt, chosen, rejected = texts[number % len(texts)]
        yield {"prompt": f"{number}. {prompt}", "chosen": chosen, "rejected": rejected}


def _reference_pass(runs: int) -> Figure:
    """Our forward over the plain tree against a plain causal forward over as many tokens, head on scored positions."""
    case = Case(shape="3m", pairs=4)
    result = measure_case(case, ["reference_pass", "reference_floor"], runs=runs, memory=False)
    ratio = result.ratio("reference_pass", "reference_floor")
    return Figure("reference pass ÷ its floor", f"{ratio:.2f}", "≤ 1.05", ratio <= 1.05)


def _first_step() -> Figure:
    """The quickstart from its command to the first line of a training step: processor time and wall clock."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "inspo_hub.run", str(ROOT / "recipes" / "quickstart.yaml"), "--output", folder]
        command += ["--set", "train.log_every=1", "--set", "train.max_steps=2"]
        start = time.perf_counter()
        process = psutil.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        used = 0.0
        try:
            while not any('"split": "train"' in log.read_text() for log in Path(folder).rglob("metrics.jsonl")):
                if process.poll() is not None:
                    raise RuntimeError(f"the quickstart ended with {process.returncode} before its first step")
                times = process.cpu_times()
                used = times.user + times.system
                time.sleep(0.05)
            wall = time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
    return Figure(
        "quickstart, command to first step", f"{used:.1f} s of processor time ({wall:.0f} s on this busy machine)",
        "< 10 s", used < 10,
    )  # fmt: skip
