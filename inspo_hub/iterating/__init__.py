"""`inspo-hub iterate`: rounds of sample → judge → pairs → train, on answers of the policy that each round starts from.

`rounds` writes the recipe of a round, `sampling` makes and judges the answers, `pairing` turns them into pairs,
`datasets` keeps those, `pinning` fixes what a recipe names for all rounds, `course` carries the rounds out and goes on
after a cut, `comparing` measures them. A round trains through the ordinary workflow, in a folder of its own.
"""

from __future__ import annotations

from inspo_hub.iterating.course import iterate, iterate_recipe, results
from inspo_hub.iterating.rounds import round_name

__all__ = ["iterate", "iterate_recipe", "results", "round_name"]
