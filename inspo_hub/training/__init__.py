"""Training: a transformers.Trainer whose batch is one optimizer step of a fixed number of pairs."""

from inspo_hub.training.parts import TrainerParts
from inspo_hub.training.trainer import PreferenceTrainer

__all__ = ["PreferenceTrainer", "TrainerParts"]
