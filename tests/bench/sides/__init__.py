"""What is compared. A side is named `name[@batch][:option]…`, for example `trl@16:checkpointing`; see `SideName`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.bench.sides.ours import OurReferencePass, OurStep
from tests.bench.sides.peer import PeerReferencePass, best_peer_step, peer_step
from tests.bench.sides.plain import Floor, NaiveStep, ReferenceFloor, UnpaddedStep
from tests.bench.sides.side import Side, SideName, SideUnavailable
from tests.bench.workload import Workload

SIDES: Mapping[str, Callable[[Workload, SideName], Side]] = MappingProxyType(
    {
        "none": OurStep,
        "one_sided": OurStep,
        "symmetric": OurStep,
        "averaged": OurStep,
        "reference_pass": OurReferencePass,
        "trl": peer_step,
        "trl_precomputed": peer_step,
        "trl_best": best_peer_step,
        "trl_reference_pass": PeerReferencePass,
        "naive": NaiveStep,
        "naive_plain_reference": NaiveStep,
        "unpadded": UnpaddedStep,
        "floor": Floor,
        "reference_floor": ReferenceFloor,
    }
)
ABOUT: Mapping[str, str] = MappingProxyType(
    {
        "none": "ours, plain DPO, reference cached",
        "one_sided": "ours, only the chosen response sees the other one",
        "symmetric": "ours, InSPO: both responses are scored given the other one, reference cached",
        "averaged": "ours, mean of `symmetric` and `none` on one tree",
        "reference_pass": "ours, the reference's plain scores once, no gradient",
        "trl": "TRL's DPOTrainer as it comes, but for gradient checkpointing: reference in the loop, padded",
        "trl_precomputed": "TRL's DPOTrainer with `precompute_ref_log_probs`",
        "trl_best": "the same at the per-device batch size that measured fastest here",
        "trl_reference_pass": "TRL's own precomputing of the reference, no gradient",
        "naive": "InSPO as two padded sequences and full logits, the reference on the same sequences in the loop",
        "naive_plain_reference": "the same with the reference on prompt and response only, as the paper writes it",
        "unpadded": "InSPO as two sequences one by one, no padding, reference cached, full logits",
        "floor": "plain causal forward and backward over exactly `symmetric`'s tokens, each run a sequence of its own, "
        "head on scored positions only: shares nothing, scores nothing, packs perfectly",
        "reference_floor": "plain causal forward over exactly `reference_pass`'s tokens, as `floor`",
    }
)

__all__ = ["ABOUT", "SIDES", "Side", "SideName", "SideUnavailable", "make_side"]


def make_side(name: str, workload: Workload) -> Side:
    """Builds a side from its name.

    Raises:
        SideUnavailable: it cannot run here, and why.
    """
    parsed = SideName.parse(name)
    return SIDES[parsed.name](workload, parsed)
