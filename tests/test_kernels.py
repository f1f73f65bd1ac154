"""Kernels chosen by measuring: the fastest that agrees, said with numbers, the same again next time.

On a CPU one kernel computes each thing, so stand-ins take the places of those that a GPU has.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inspo_hub import kernels
from inspo_hub.attention import AttentionShape, TreeLayout, backends, choosing, gather_keys, lay_out, segments_of
from inspo_hub.attention.blockwise import Scoring
from inspo_hub.attention.varlen import Bounds, PackedSaved
from inspo_hub.kernels import Candidate, Choice, choose, remembered
from inspo_hub.logprobs import ModelKernels, measure_kernels, prepare_model, softmax, tree_logps
from inspo_hub.logprobs.chunks import HeadTransform, token_logps
from inspo_hub.packing import pack_pairs
from inspo_hub.views import SCORES
from tests.architectures import Architecture, pairs_of_different_lengths
from tests.test_attention import ROW, PlainVarlen

CPU = torch.device("cpu")
SHAPE = AttentionShape("cpu", torch.float64, 4, 2, 8, 8, Scoring(0.3, 0.0, 0))


# --- choosing ------------------------------------------------------------------------------------------------------


def candidate(
    name: str, *, milliseconds: float = 0.0, value: float = 1.0, log: Counter[str] | None = None
) -> Candidate:
    def run() -> tuple[Tensor, ...]:
        time.sleep(milliseconds / 1000)
        if log is not None:
            log[name] += 1
        return torch.zeros(2), torch.full((3,), value)

    return Candidate(name=name, run=run)


def test_the_fastest_is_chosen_and_told_with_the_others() -> None:
    choice = choose(
        [candidate("plain", milliseconds=12), candidate("quick", milliseconds=4)], tolerance=1e-3, device=CPU
    )
    assert choice.name == "quick"
    assert choice.milliseconds["plain"] > 2 * choice.milliseconds["quick"] > 6
    assert str(choice).startswith("quick, ")
    assert "plain " in str(choice)
    assert "times as long" in str(choice)


def test_one_that_computes_something_else_is_refused_however_fast() -> None:
    close, wrong, infinite = (candidate(n, value=v) for n, v in (("close", 1.0005), ("wrong", 1.2), ("nan", torch.nan)))
    choice = choose([candidate("plain", milliseconds=5), close, wrong, infinite], tolerance=1e-3, device=CPU)
    assert choice.name == "close"
    assert choice.refused == {
        "wrong": "it differs by 2.0e-01, 1e-03 allowed",
        "nan": "it differs by nan, 1e-03 allowed",
    }
    assert set(choice.milliseconds) == {"plain", "close"}
    assert "wrong refused: it differs by 2.0e-01" in str(choice)


def test_one_that_fails_is_refused_with_its_reason() -> None:
    def fail() -> Any:
        raise RuntimeError("no kernel image is available\nCUDA_LAUNCH_BLOCKING=1")

    choice = choose([candidate("plain"), Candidate(name="broken", run=fail)], tolerance=1e-3, device=CPU)
    assert choice.name == "plain"
    assert choice.refused == {"broken": "RuntimeError: no kernel image is available"}


def test_a_hopeless_one_is_not_timed_again() -> None:
    runs: Counter[str] = Counter()
    choose(
        [candidate("slow", milliseconds=60, log=runs), candidate("a", milliseconds=2, log=runs)],
        tolerance=1e-3,
        device=CPU,
    )
    assert runs["slow"] == 2  # what all must agree on, and one timing
    assert runs["a"] == 2


def test_what_is_prepared_for_several_runs_counts_for_its_share() -> None:
    masked = replace(candidate("masked"), prepare=lambda: time.sleep(0.040), runs_per_prepare=4)
    choice = choose([candidate("plain", milliseconds=4), masked], tolerance=1e-3, device=CPU)
    assert choice.name == "plain"
    assert 8 < choice.milliseconds["masked"] < 30
    cheap = replace(masked, runs_per_prepare=400)
    assert choose([candidate("plain", milliseconds=4), cheap], tolerance=1e-3, device=CPU).name == "masked"


def test_a_lone_candidate_is_not_run() -> None:
    runs: Counter[str] = Counter()
    assert str(choose([candidate("plain", log=runs)], tolerance=0, device=CPU)) == "plain"
    assert not runs


# --- remembering ---------------------------------------------------------------------------------------------------


def test_a_choice_is_kept_by_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(name: str) -> Callable[[], Choice]:
        def run() -> Choice:
            measured.append(name)
            return Choice(name=name, milliseconds={name: 1.5, "other": 3.0}, refused={"third": "it fails"})

        return run

    first = remembered({"tokens": 8}, measure("a"), device=CPU, folder=tmp_path)
    assert remembered({"tokens": 8}, measure("b"), device=CPU, folder=tmp_path) == first
    assert remembered({"tokens": 16}, measure("c"), device=CPU, folder=tmp_path).name == "c"
    assert remembered({"tokens": 8}, measure("d"), device=CPU, folder=None).name == "d"
    monkeypatch.setattr(kernels.importlib.metadata, "version", lambda _package: "99.0")
    assert remembered({"tokens": 8}, measure("e"), device=CPU, folder=tmp_path).name == "e"
    assert measured == ["a", "c", "d", "e"]
    kept = [json.loads(file.read_text()) for file in tmp_path.iterdir()]
    assert {record["choice"]["name"] for record in kept} == {"a", "c", "e"}
    assert all(record["of"]["device"] == "cpu" for record in kept)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"choice": {"name": "a", "unknown": 1}}', '{"of": {}}'])
def test_a_file_that_says_nothing_is_measured_anew(content: str, tmp_path: Path) -> None:
    remembered({}, lambda: Choice(name="a"), device=CPU, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert remembered({}, lambda: Choice(name="b"), device=CPU, folder=tmp_path).name == "b"
    assert remembered({}, lambda: Choice(name="c"), device=CPU, folder=tmp_path).name == "b"


# --- attention -----------------------------------------------------------------------------------------------------


class WrongVarlen(PlainVarlen):
    """Right scores, and a gradient that is not theirs."""

    def backward(self, grad_out: Tensor, saved: PackedSaved, bounds: Bounds, scoring: Scoring) -> tuple[Tensor, ...]:
        dq, dk, dv = super().backward(grad_out, saved, bounds, scoring)
        return dq, dk * 1.1, dv


class AbsentVarlen(PlainVarlen):
    def forward(self, *_: Any) -> Any:
        raise ImportError("flash_attn was built for another torch")


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts kernels in the places of those that a GPU has, and has rows carry what such kernels read."""

    def put(**named: PlainVarlen) -> None:
        def among(_shape: AttentionShape) -> tuple[str, ...]:
            return ("blocks", *named)

        monkeypatch.setattr(backends, "_KERNELS", named)
        monkeypatch.setattr(backends, "_measured", {})
        for module in (backends, choosing):
            monkeypatch.setattr(module, "backends_for", among)

    def with_gather(self: TreeLayout, _device: Any) -> TreeLayout:
        return replace(self, gather=gather_keys(segments_of(self.plan), before=self.before))

    monkeypatch.setattr(TreeLayout, "to", with_gather)
    return put


@pytest.mark.parametrize("before", [0, 40])
def test_backends_that_disagree_or_fail_are_refused(stand_ins: Callable[..., None], before: int) -> None:
    stand_ins(torch_flash=WrongVarlen(), flash_attn=AbsentVarlen())
    layout = lay_out(ROW) if not before else lay_out((replace(ROW[0]), replace(ROW[1])), before=before)
    choice = choosing.measure_backends(SHAPE, layout, device=CPU)
    assert choice.name == "blocks"
    assert choice.refused["torch_flash"].startswith("it differs by ")
    assert choice.refused["flash_attn"] == "ImportError: flash_attn was built for another torch"


def test_measuring_leaves_the_runs_random_numbers_and_backends_alone(stand_ins: Callable[..., None]) -> None:
    stand_ins(torch_flash=PlainVarlen())
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    choosing.measure_backends(SHAPE, lay_out(ROW), device=CPU)
    assert torch.equal(torch.rand(2), expected)
    assert backends.backend_for(SHAPE) == "torch_flash"  # by rule: a flash kernel before blocks


def test_the_rule_without_a_measurement() -> None:
    half = SHAPE._replace(device="cuda", dtype=torch.bfloat16)
    capped = half._replace(scoring=Scoring(0.3, 30.0, 0))
    assert backends.backends_for(SHAPE) == ("blocks",)
    assert backends.backends_for(half._replace(dtype=torch.float32)) == ("blocks",)
    assert backends.backend_for(half) == "torch_flash"
    assert "torch_flash" not in backends.backends_for(capped)
    assert backends.backends_for(half._replace(value_size=512)) == ("blocks", "flex")
    assert backends.kernel_for(half._replace(value_size=512)) is None


def test_a_model_takes_what_was_measured(stand_ins: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    class Counting(PlainVarlen):
        def forward(self, *args: Any) -> Any:
            calls["forward"] += 1
            return super().forward(*args)

        def backward(self, *args: Any) -> Any:
            calls["backward"] += 1
            return super().backward(*args)

    stand_ins(torch_flash=Counting())
    monkeypatch.setattr(softmax, "_measured", {})
    model: Any = prepare_model(Architecture(name="Llama", family="Llama", options={"num_hidden_layers": 3}).build())
    batch = pack_pairs(pairs_of_different_lengths(), SCORES)
    assert batch.layout is not None
    batch = replace(batch, layout=batch.layout.to("cpu"))
    config = model.config
    shape = AttentionShape(
        "cpu", torch.float64, config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.head_dim,
        Scoring(config.head_dim**-0.5, 0.0, 0),
    )  # fmt: skip

    def score(backend: str) -> tuple[Tensor, Tensor]:
        chosen = ModelKernels(attention={shape: Choice(name=backend)}, softmax=Choice(name="torch"), vocab=1)
        chosen.use(CPU)
        logps = torch.cat(list(vars(tree_logps(model, batch)).values()))
        model.zero_grad()
        logps.sum().backward()
        return logps.detach(), model.get_input_embeddings().weight.grad.clone()

    expected = score("blocks")
    assert not calls
    actual = score("torch_flash")
    assert calls == {"forward": 3, "backward": 3}
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-9)
    found = measure_kernels(model, {shape: 3}, batch.layout, device=CPU)
    assert set(found.attention[shape].milliseconds) == {"blocks", "torch_flash"}
    assert found.softmax == Choice(name="torch")
    assert json.loads(json.dumps(found.to_json()))["attention"][0]["shape"]["dtype"] == "float64"


# --- softmax -------------------------------------------------------------------------------------------------------


class OneKernel:
    """What a fused kernel does, from the definition; counts its launches."""

    def __init__(self) -> None:
        self.launches = 0

    def logps(self, logits: Tensor, targets: Tensor, *, slopes: bool) -> Tensor:
        self.launches += 1
        log_p = logits.double().log_softmax(1)
        if slopes:
            logits.copy_(log_p.exp() - torch.nn.functional.one_hot(targets, logits.shape[1]))
        return log_p.gather(1, targets[:, None])[:, 0].to(logits.dtype)

    def slopes(self, logits: Tensor, targets: Tensor) -> None:
        self.logps(logits, targets, slopes=True)


class HalfSlopes(OneKernel):
    def logps(self, logits: Tensor, targets: Tensor, *, slopes: bool) -> Tensor:
        found = super().logps(logits, targets, slopes=slopes)
        logits.mul_(0.5)
        return found


def put_softmax(monkeypatch: pytest.MonkeyPatch, kernel: OneKernel) -> None:
    monkeypatch.setattr(softmax, "_KERNELS", {"torch": softmax.TorchSoftmax(), "liger": kernel})
    monkeypatch.setattr(softmax, "softmax_kernels", lambda _device: ("torch", "liger"))
    monkeypatch.setattr(softmax, "_measured", {})


def test_a_softmax_that_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    put_softmax(monkeypatch, HalfSlopes())
    choice = softmax.measure_softmax(50, rows=9, device=CPU)
    assert choice.name == "torch"
    assert choice.refused["liger"].startswith("it differs by 5")


@pytest.mark.parametrize("transform", [HeadTransform(), HeadTransform(scale=1.7, softcap=3.0)], ids=str)
def test_the_head_takes_the_measured_softmax_in_float32_only(
    transform: HeadTransform, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = OneKernel()
    put_softmax(monkeypatch, kernel)
    assert "liger" in softmax.measure_softmax(50, rows=9, device=CPU).milliseconds
    torch.manual_seed(0)
    exact = [torch.randn(23, 8, dtype=torch.float64), torch.randn(50, 8, dtype=torch.float64)]
    targets, grad = torch.randint(0, 50, (23,)), torch.randn(23, dtype=torch.float64)

    def score(dtype: torch.dtype) -> list[Tensor]:
        inputs = [x.to(dtype).requires_grad_() for x in exact]
        logps = token_logps(*inputs, None, targets, transform=transform, chunk_bytes=7 * 50 * 4)
        return [logps.detach(), *torch.autograd.grad(logps, inputs, grad.to(dtype))]

    softmax.use_softmax_kernel(CPU, 50, "liger")
    before = kernel.launches
    expected = score(torch.float64)
    assert kernel.launches == before
    for a, e in zip(score(torch.float32), expected, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=2e-5, atol=2e-5)
    assert kernel.launches == before + 8  # four chunks, forward and backward


def test_liger_computes_what_torch_does() -> None:
    """Where the package is installed: on a GPU, or by Triton's interpreter with TRITON_INTERPRET=1."""
    pytest.importorskip("liger_kernel")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logits, targets = torch.randn(7, 1000, device=device) * 5, torch.randint(1000, (7,), device=device)
    for slopes in (False, True):
        ours, theirs = logits.clone(), logits.clone()
        expected = softmax.TorchSoftmax().logps(ours, targets, slopes=slopes)
        actual = softmax.LigerSoftmax().logps(theirs, targets, slopes=slopes)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
        if slopes:
            torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


# --- on a GPU ------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize(
    "scoring", [Scoring(0.125, 0.0, 0), Scoring(0.125, 0.0, 300), Scoring(0.125, 30.0, 0)], ids=str
)
def test_a_gpus_backends_agree_with_blocks(scoring: Scoring, caplog: pytest.LogCaptureFixture) -> None:
    shape = AttentionShape("cuda", torch.bfloat16, 8, 2, 64, 64, scoring)
    rows = lay_out((replace(ROW[0], stop=700), replace(ROW[1], start=700, stop=1400)))
    with caplog.at_level(logging.INFO):
        choice = choosing.measure_backends(shape, rows, device=torch.device("cuda"), layers=24)
    assert not choice.refused, str(choice)
    assert set(choice.milliseconds) == set(backends.backends_for(shape))


@pytest.mark.gpu
def test_a_gpus_softmax_kernels_agree() -> None:
    choice = softmax.measure_softmax(128_256, device=torch.device("cuda"))
    assert not choice.refused, str(choice)
