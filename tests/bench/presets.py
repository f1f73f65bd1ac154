"""What is worth measuring together: cases, sides and rounds under a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

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
_SMALL = Case()
_CPU = Case(shape="24m")
_LAWS = ("ultrafeedback", "long_prompts", "short_prompts")
_ALL_OURS = ("none", "one_sided", "symmetric", "averaged")
_EVERY_BATCH = tuple(f"{name}@{batch}" for batch in (1, 4, 16) for name in PEERS)


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
                *(replace(_SMALL, lengths=law) for law in _LAWS),
                replace(_SMALL, max_length=4096),
                *((replace(_SMALL, lengths="real"),) if REAL_PAIRS.is_file() else ()),
            ),
            sides=(*OURS, *PEERS, "floor"),
        ),
        "batches": Preset(
            about="the padded sides at 1, 4 and 16 pairs per device batch",
            cases=(replace(_SMALL, pairs=16),),
            sides=(*OURS, *_EVERY_BATCH, "trl_best", "floor"),
        ),
        "head": Preset(
            about="a head as large as the body, and larger",
            cases=(replace(_SMALL, shape="6m-12k"), replace(_SMALL, shape="6m-32k")),
            sides=(*OURS, "symmetric:recomputed", "trl", "trl_precomputed", "floor"),
        ),
        "vocabularies": Preset(
            about="vocabularies of 32k, 128k and 151k tokens",
            cases=tuple(replace(_CPU, shape=f"24m-{size}") for size in ("32k", "128k", "151k")),
            sides=(*OURS, *PEERS, "floor"),
        ),
        "checkpointing": Preset(
            about="all sides with gradient checkpointing, TRL's true default",
            cases=(_SMALL,),
            sides=(*_checkpointed(OURS), *_checkpointed(PEERS), "floor:checkpointing", "symmetric"),
        ),
        "stopped": Preset(
            about="the gradient stopped at prompt and alternative against the exact one, checkpointing off and on",
            cases=(_SMALL,),
            sides=("symmetric", "symmetric:stopped", "none", *_checkpointed(("symmetric", "symmetric:stopped"))),
        ),
        "growth": Preset(
            about="how time and memory grow with pairs, MaxLen and the shape of the pairs",
            cases=(
                *(replace(_SMALL, pairs=pairs, batch=min(4, pairs)) for pairs in (1, 2, 4, 8, 16)),
                *(replace(_SMALL, max_length=length, pairs=4) for length in (512, 1024, 2048, 4096)),
                *(replace(_SMALL, lengths=law, pairs=4) for law in _LAWS),
            ),
            sides=(*OURS, "trl", "floor"),
        ),
        "gpu": Preset(
            about="0.5 B, 1.5 B and 8 B shapes on one GPU, checkpointing off and on",
            cases=tuple(
                Case(shape=shape, pairs=pairs, tokens_per_microbatch=16_384)
                for shape, pairs in (("0.5b", 32), ("1.5b", 16), ("8b", 8))
            ),
            sides=(
                *_checkpointed(("none", "symmetric", "averaged", "trl", "trl_precomputed", "floor")),
                "symmetric", "trl", "floor",
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
    large_head: bool = False
    memory: bool = False
    """Of peak memory above the weights, not of time."""

    def applies(self, case: Case) -> bool:
        """Whether the case is one that the target speaks of."""
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
)
