"""The quickstart's base and questions, which every test of answers here uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from inspo_hub.evaluate.prompts import Prompt, prompts_from_rows
from inspo_hub.models import load_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart"


@pytest.fixture(scope="session")
def quickstart() -> Path:
    return QUICKSTART


@pytest.fixture(scope="session")
def base() -> PreTrainedModel:
    return load_model(QUICKSTART / "base").eval()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(QUICKSTART / "base")


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    lines = (QUICKSTART / "prompts.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    return prompts_from_rows([json.loads(line) for line in lines])


@pytest.fixture(scope="session")
def moved(
    quickstart: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The base with a little noise on its weights."""
    folder = tmp_path_factory.mktemp("moved")
    model = load_model(quickstart / "base")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    load_tokenizer(quickstart / "base").save_pretrained(folder)
    return folder
