"""What a recipe's names come to in numbers, found out without downloading weights or whole data sets.

Importing it imports neither torch nor the libraries that read data; looking at rows needs the latter, never torch.
"""

from __future__ import annotations

from inspo_hub.survey.model import model_facts
from inspo_hub.survey.variants import DEFAULT_SAMPLE, survey

__all__ = ["DEFAULT_SAMPLE", "model_facts", "survey"]
