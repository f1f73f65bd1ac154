"""Two answers word by word: what they share and what only one of them says."""

from __future__ import annotations

import difflib
import re

Part = tuple[str, bool]
"""A stretch of text, and whether the other answer has it too."""

LONGEST = 4000
"""Words beyond which the comparison would take seconds; longer answers are shown without one."""
_WORDS = re.compile(r"\s+|[^\s\w]|\w+")


def word_diff(first: str, second: str) -> tuple[list[Part], list[Part]]:
    """The parts of either answer, in order; joined they are the answers again. Longest common runs by difflib."""
    ours, theirs = _WORDS.findall(first), _WORDS.findall(second)
    if max(len(ours), len(theirs)) > LONGEST:
        return [(first, True)], [(second, True)]
    left: list[Part] = []
    right: list[Part] = []
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        same = kind == "equal"
        if b > a:
            left.append(("".join(ours[a:b]), same))
        if d > c:
            right.append(("".join(theirs[c:d]), same))
    return _joined(left), _joined(right)


def _joined(parts: list[Part]) -> list[Part]:
    """Blanks between two differing words differ with them: one mark instead of many."""
    joined: list[Part] = []
    for number, (text, same) in enumerate(parts):
        between = 0 < number < len(parts) - 1 and not text.strip()
        same = same and not between
        if joined and joined[-1][1] == same:
            joined[-1] = (joined[-1][0] + text, same)
        else:
            joined.append((text, same))
    return joined
