"""The benchmark: what one step costs, ours against the others', side by side in one process.

python -m tests.bench                      # the quick preset; on a GPU, where there is one, the gpu preset
python -m tests.bench --preset cpu         # the model of docs/speed.md; --list shows all presets and sides
python -m tests.bench --sides symmetric,trl,floor --lengths long_prompts --runs 5 --json speed.json --markdown speed.md

A step is laying out, forward, loss and backward of the same pairs with the same weights, without an optimizer. Sides
run interleaved, A B C B C A C A B, and a ratio is the median of the rounds' own ratios, so that a machine that gets
slower while it is measured makes both sides slower.
"""

from __future__ import annotations
