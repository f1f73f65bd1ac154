"""What the Space does, without its page: rounds of two blind answers, where they are from, votes and their tally.

`spaces/compare` draws it with Gradio, which no room imports. Importing the package imports neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public name -> the module that defines it, imported at first use.
_PUBLIC = {
    "Limits": "inspo_hub.space.config",
    "Round": "inspo_hub.space.rounds",
    "Service": "inspo_hub.space.service",
    "SpaceConfig": "inspo_hub.space.config",
    "VoteStore": "inspo_hub.space.votes",
    "deploy_space": "inspo_hub.space.deployment",
    "open_service": "inspo_hub.space.opening",
    "read_config": "inspo_hub.space.config",
    "space_of_output": "inspo_hub.space.outputs",
    "space_page": "inspo_hub.space.shipped",
    "update_space": "inspo_hub.space.deployment",
    "word_diff": "inspo_hub.space.diff",
    "write_config": "inspo_hub.space.config",
}
__all__ = [
    "Limits",
    "Round",
    "Service",
    "SpaceConfig",
    "VoteStore",
    "deploy_space",
    "open_service",
    "read_config",
    "space_of_output",
    "space_page",
    "update_space",
    "word_diff",
    "write_config",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
