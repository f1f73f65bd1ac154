"""The static comparison of two models finds what differs; the timing harness gives what it is fed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from inspo_hub.evaluate import LatencyWorkload, System, measure_latency
from inspo_hub.evaluate import latency as module
from inspo_hub.evaluate.latency import Spread
from inspo_hub.models import load_model

SHORT = LatencyWorkload(prompt_tokens=5, new_tokens=3, rounds=6)


def saved(quickstart: Path, folder: Path, *, dtype: torch.dtype = torch.float32) -> System:
    load_model(quickstart / "base").to(dtype).save_pretrained(folder)
    return System(model=folder)


def test_a_trained_copy_is_the_same_model(quickstart: Path, tmp_path: Path) -> None:
    base = System(model=quickstart / "base")
    result = measure_latency(base, {"copy": saved(quickstart, tmp_path)}, SHORT)
    assert result.differences == {"copy": ()}
    parameters = sum(weight.numel() for weight in load_model(base.model).parameters())
    assert result.base.parameters == result.footprints["copy"].parameters == parameters
    assert (result.base.dtypes, result.base.weight_bytes) == ({"F32": parameters}, 4 * parameters)
    facts = json.loads(json.dumps(result.to_dict(), allow_nan=False))["variants"]["copy"]
    assert facts["token_s"]["median"] > 0
    assert facts["peak_bytes"] is None
    assert facts["verdict"] in ("no difference", "slower than the base", "faster than the base")


def test_what_differs_is_named(quickstart: Path, tmp_path: Path) -> None:
    base = System(model=quickstart / "base")
    half = saved(quickstart, tmp_path / "half", dtype=torch.bfloat16)
    config = load_model(quickstart / "base").config
    config.num_hidden_layers -= 1
    type(load_model(quickstart / "base"))(config).save_pretrained(tmp_path / "small")
    small = System(model=tmp_path / "small")
    found = measure_latency(base, {"half": half, "small": small}, SHORT).differences
    assert found["half"] == ("stored as BF16, the base as F32",)
    assert any(line.startswith("config.json: num_hidden_layers is") for line in found["small"])
    assert any("parameters, in the base" in line for line in found["small"])


def test_ratios_are_paired_by_round(quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes a tenth longer is found slower although rounds differ by far more."""
    noise = iter([1.0, 9.0, 2.0, 7.0, 3.0, 8.0, 1.5, 6.0, 2.5] * 2)
    current: list[float] = []
    calls: list[str] = []

    def seconds(model: torch.nn.Module, prompts: torch.Tensor, new_tokens: int) -> float:
        name = "base" if model is models[0] else "model"
        calls.append(f"{name} {new_tokens}")
        if len(calls) % 4 == 1:
            current[:] = [next(noise)]
        return current[0] * new_tokens * (1.1 if name == "model" else 1.0)

    models = [load_model(quickstart / "base"), load_model(saved(quickstart, tmp_path).model)]
    monkeypatch.setattr(module, "_seconds", seconds)
    timing = module._time(*models, LatencyWorkload(prompt_tokens=2, new_tokens=3, rounds=8), 0)
    assert calls[:8] == ["base 1", "base 3", "model 1", "model 3", "model 1", "model 3", "base 1", "base 3"]
    for ratio in (timing.first_token_ratio, timing.token_ratio):
        assert (ratio.low, ratio.median, ratio.high) == pytest.approx((1.1, 1.1, 1.1))
    assert timing.verdict == "slower than the base"
    assert timing.token_s.median == pytest.approx(1.1 * 4.5)


@pytest.mark.parametrize("count", [2, 5, 6, 9, 10, 25])
def test_the_medians_interval_holds_it_as_often_as_it_says(count: int) -> None:
    """Exactly: over all ways in which values fall below and above the true median."""
    spread = Spread.of_the_median(list(range(count)))
    low, high = int(spread.low), int(spread.high)
    # The median lies under `low` where at most `low` values are below it, and over `high` likewise.
    outside = sum(math.comb(count, below) for below in range(count + 1) if below <= low or below > high)
    if count >= 6:
        assert outside / 2**count <= 0.05
        wider = sum(math.comb(count, below) for below in range(count + 1) if below <= low + 1 or below > high - 1)
        assert wider / 2**count > 0.05
    else:
        assert (low, high) == (0, count - 1)
    assert spread.median == (count - 1) / 2
