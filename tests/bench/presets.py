"""What is worth measuring together: cases, sides and rounds under a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tests.bench import growth
from tests.bench.case import Case
from tests.bench.lengths import REAL_PAIRS

OURS = ("none", "symmetric", "averaged")
PEERS = ("trl", "trl_precomputed", "naive")


@dataclass(frozen=True, kw_only=True)
class Preset:
    about: str
    cases: tuple[Case, ...]
    sides: tuple[str, ...]
    runs: int = 3


_QUICK = Case(shape="3m")
_FOUR = Case(shape="3m", pairs=4)
_CPU = Case(shape="24m")
_LAWS = ("ultrafeedback", "long_prompts", "short_prompts")
_ALL_OURS = ("none", "one_sided", "symmetric", "averaged")
_EVERY_BATCH = tuple(f"{name}@{batch}" for batch in (1, 4, 16) for name in ("trl", "trl_precomputed"))


def _checkpointed(sides: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{side}:checkpointing" for side in sides)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "quick": Preset(
            about="one case of the targets on a small model: about three minutes on one core",
            cases=(_QUICK,),
            sides=(*OURS, *PEERS, "floor"),
        ),
        "cpu": Preset(
            about="every side on UltraFeedback-like lengths, body eleven times the head",
            cases=(_CPU,),
            sides=(
                *_ALL_OURS, "symmetric:flat", "averaged:flat", *PEERS, "naive_plain_reference", "trl_best", "unpadded",
                "floor", "reference_pass", "trl_reference_pass",
            ),
            runs=5,
        ),
        "lengths": Preset(
            about="short, long and UltraFeedback-like lengths, MaxLen 2048 and 4096, and the real pairs where they are",
            cases=(
                *(replace(_FOUR, lengths=law) for law in _LAWS),
                replace(_FOUR, max_length=4096),
                *((replace(_FOUR, lengths="real"),) if REAL_PAIRS.is_file() else ()),
            ),
            sides=(*OURS, *PEERS, "floor"),
        ),
        "batches": Preset(
            about="the padded sides at 1, 4 and 16 pairs per device batch",
            cases=(replace(_QUICK, pairs=16),),
            sides=("none", "symmetric", *_EVERY_BATCH, "floor"),
            runs=2,
        ),
        "head": Preset(
            about="a head as large as the body, and five times as large",
            cases=(replace(_FOUR, shape="3m-6k"), replace(_FOUR, shape="3m-32k")),
            sides=("symmetric", "averaged", "symmetric:recomputed", "trl", "trl_precomputed", "floor"),
        ),
        "vocabularies": Preset(
            about="vocabularies of 32k, 128k and 151k tokens: there the head is the work; short pairs, for full logits",
            cases=tuple(
                replace(_FOUR, shape=f"3m-{size}", max_length=512, batch=2) for size in ("32k", "128k", "151k")
            ),
            sides=("symmetric", "averaged", "trl_precomputed", "floor"),
            runs=2,
        ),
        "checkpointing": Preset(
            about="all sides with gradient checkpointing, TRL's true default",
            cases=(_FOUR,),
            sides=(*_checkpointed(OURS), *_checkpointed(PEERS), "floor:checkpointing", "symmetric"),
        ),
        "stopped": Preset(
            about="the gradient stopped at prompt and alternative against the exact one, checkpointing off and on",
            cases=(_FOUR,),
            sides=("symmetric", "symmetric:stopped", "none", *_checkpointed(("symmetric", "symmetric:stopped"))),
        ),
        "growth": Preset(
            about="how time and memory grow with pairs, MaxLen, the shape of the pairs and what is logged beside",
            cases=growth.CASES,
            sides=("none", "symmetric", "symmetric:observed", "trl"),
            runs=2,
        ),
        "gpu": Preset(
            about="0.5 B, 1.5 B and 8 B shapes on one GPU, checkpointing off and on",
            cases=tuple(
                Case(shape=shape, pairs=pairs, batch=batch, tokens_per_microbatch=tokens)
                # The last without checkpointing as well: rows of 4,096 tokens are what 80 GB hold of its activations.
                for shape, pairs, batch, tokens in (
                    ("0.5b", 32, 4, 16_384), ("1.5b", 16, 4, 16_384), ("8b", 8, 4, 16_384), ("8b", 8, 1, 4096)
                )
            ),
            sides=(
                *_checkpointed(("none", "symmetric", "averaged", "trl", "trl_precomputed", "floor")),
                "symmetric", "symmetric:stopped", "trl", "floor",
            ),
            runs=7,
        ),
    }
)  # fmt: skip
FULL = ("cpu", "lengths", "batches", "checkpointing", "head", "vocabularies")


@dataclass(frozen=True)
class Target:
    """A ratio that a step should not exceed, from the issue that asked for the benchmark."""

    side: str
    baseline: str
    limit: float
    lengths: str = "ultrafeedback"
    shape: str | None = None
    """Of this shape on a GPU; None: of any on a CPU."""
    large_head: bool = False
    memory: bool = False
    """Of peak memory above the weights, not of time."""

    def applies(self, case: Case) -> bool:
        """Whether the case is one that the target speaks of."""
        if self.shape is not None:
            return case.device == "cuda" and case.shape == self.shape
        head_is_large = case.model.head_params >= case.model.body_params
        head_is_small = case.model.body_params >= 10 * case.model.head_params
        right_head = head_is_large if self.large_head else head_is_small
        return case.lengths == self.lengths and case.batch == 4 and case.device == "cpu" and right_head


TARGETS = (
    Target("symmetric", "trl", 0.60),
    Target("symmetric", "trl_precomputed", 0.80),
    Target("symmetric", "naive", 0.34),
    Target("symmetric", "floor", 1.05),
    Target("none", "trl", 0.34),
    Target("averaged", "symmetric", 1.06),
    Target("symmetric", "trl", 0.37, lengths="long_prompts"),
    Target("symmetric", "trl", 0.75, lengths="short_prompts"),
    Target("symmetric", "floor", 1.05, large_head=True),
    Target("symmetric:stopped", "symmetric", 0.70),
    Target("symmetric:stopped", "symmetric", 0.55, memory=True),
    Target("symmetric", "floor", 1.10, shape="8b"),
    Target("symmetric:checkpointing", "floor:checkpointing", 1.10, shape="8b"),
)
LEAST_MFU = {"8b": 0.50}
"""Model-FLOP utilisation that a symmetric step on a GPU should reach, by shape."""
