"""`train.compile`: decoder layers compiled once for all layers and all packed rows, with the numbers of plain ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch._dynamo.utils import counters

from inspo_hub.errors import RecipeError
from inspo_hub.logprobs import prepare_model, tree_logps
from inspo_hub.models import compile_layers
from inspo_hub.packing import PackedBatch, pack_pairs
from inspo_hub.views import Score
from tests.architectures import Architecture, pairs_of_different_lengths
from tests.test_logprobs import checkpoint_activations
from tests.training.conftest import Project, make_project

pytestmark = [
    pytest.mark.slow,  # a C++ compiler at work
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),  # torch's own, of what its compiler looks at
]

CONDITIONED: tuple[Score, ...] = ("chosen_given_rejected", "rejected_given_chosen")
LAYERS = 10
"""More than torch compiles graphs for one function before it gives up."""


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def batches(gradient: Any) -> list[PackedBatch]:
    pairs = [*pairs_of_different_lengths(), *pairs_of_different_lengths(seed=1)]
    rows = (pairs[:2], pairs[1:], pairs[:5], pairs[2:4], pairs[3:])
    return [pack_pairs(some, CONDITIONED, separator=(3, 4), alternative_gradient=gradient) for some in rows]


def step(model: Any, batch: PackedBatch) -> list[Tensor]:
    """Log-probabilities, and the gradients of their sum."""
    logps = [tree_logps(model, batch).get(score) for score in CONDITIONED]
    model.zero_grad()
    torch.cat(logps).sum().backward()
    return [*(x.detach() for x in logps), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("gradient", ["full", "stopped"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_graphs_serve_every_layer_and_every_row(gradient: str, checkpointing: bool) -> None:
    options = {"num_hidden_layers": LAYERS}
    model: Any = prepare_model(Architecture(name="Llama", family="Llama", options=options).build(torch.float32))
    if checkpointing:
        checkpoint_activations(model)
    model.train()
    rows = batches(gradient)
    expected = [step(model, batch) for batch in rows]
    assert compile_layers(model) == LAYERS
    graphs = []
    for batch, wanted in zip(rows, expected, strict=True):
        for a, e in zip(step(model, batch), wanted, strict=True):
            torch.testing.assert_close(a, e, rtol=0, atol=2e-5 * float(e.abs().max()))
        graphs.append(counters["stats"]["unique_graphs"])
    assert len(set(graphs[1:])) == 1, f"a row made layers compile again: {graphs}"
    if gradient == "full" and not checkpointing:
        assert graphs == [1] * len(rows), "layers are alike: one graph"
        assert not counters["graph_break"]


def test_a_compiled_run_is_the_plain_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    project: Project = make_project(tmp_path_factory.mktemp("compiled"), rows=18)
    project.run(output="plain")
    told = project.run("--set", "train.compile=true", output="compiled").stderr
    assert "2 layers are compiled in the first steps" in told
    names, finals = [], []
    for output in ("plain", "compiled"):
        with safe_open(project.folder / output / "model.safetensors", "pt") as file:
            names.append(sorted(file.keys()))
        finals.append([record["loss"] for record in project.records(output) if "loss" in record])
        trained = json.loads((project.folder / output / "trained.json").read_text(encoding="utf-8"))
        assert trained["layout"] == "tree"
    assert names[0] == names[1]
    assert finals[0]
    np.testing.assert_allclose(finals[1], finals[0], rtol=1e-4)


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="Linear has no decoder layers"):
        compile_layers(torch.nn.Linear(2, 2))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RecipeError, match="needs a C\\+\\+ compiler") as refusal:
        compile_layers(torch.nn.Linear(2, 2))
    assert refusal.value.where == "train.compile"


@pytest.mark.gpu
def test_graphs_serve_every_row_on_a_gpu() -> None:
    options = {"num_hidden_layers": LAYERS}
    model: Any = prepare_model(Architecture(name="Llama", family="Llama", options=options).build(torch.bfloat16).cuda())
    rows = [batch.to("cuda") for batch in batches("full")]
    expected = [step(model, batch) for batch in rows]
    compile_layers(model)
    for batch, wanted in zip(rows, expected, strict=True):
        for a, e in zip(step(model, batch), wanted, strict=True):
            torch.testing.assert_close(a.float(), e.float(), rtol=0, atol=5e-2 * float(e.abs().max()))
    assert counters["stats"]["unique_graphs"] <= 2
