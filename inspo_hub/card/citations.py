"""BibTeX of the papers whose authors were checked, and arXiv links for the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Paper:
    """A preprint as BibTeX needs it."""

    key: str
    title: str
    authors: str
    year: int
    arxiv: str

    def bibtex(self) -> str:
        fields = {
            "title": self.title,
            "author": self.authors,
            "year": str(self.year),
            "eprint": self.arxiv,
            "archivePrefix": "arXiv",
            "url": f"https://arxiv.org/abs/{self.arxiv}",
        }
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@misc{{{self.key},\n{lines}\n}}"


INSPO = Paper(
    "li2025inspo",
    "{InSPO}: Unlocking Intrinsic Self-Reflection for {LLM} Preference Optimization",
    "Li, Yu and Lan, Tian and Qi, Zhengling",
    2025,
    "2512.23126",
)
_PAPERS = (
    INSPO,
    Paper(
        "rafailov2023direct",
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        "Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Ermon, Stefano and Manning, Christopher D. and "
        "Finn, Chelsea",
        2023,
        "2305.18290",
    ),
    Paper(
        "azar2023general",
        "A General Theoretical Paradigm to Understand Learning from Human Preferences",
        "Azar, Mohammad Gheshlaghi and Rowland, Mark and Piot, Bilal and Guo, Daniel and Calandriello, Daniele and "
        "Valko, Michal and Munos, R{\\'e}mi",
        2023,
        "2310.12036",
    ),
    Paper(
        "meng2024simpo",
        "{SimPO}: Simple Preference Optimization with a Reference-Free Reward",
        "Meng, Yu and Xia, Mengzhou and Chen, Danqi",
        2024,
        "2405.14734",
    ),
    Paper(
        "hong2024orpo",
        "{ORPO}: Monolithic Preference Optimization without Reference Model",
        "Hong, Jiwoo and Lee, Noah and Thorne, James",
        2024,
        "2403.07691",
    ),
)
PAPERS: Mapping[str, Paper] = MappingProxyType({paper.arxiv: paper for paper in _PAPERS})
"""arXiv number -> paper."""


def arxiv_number(reference: str) -> str | None:
    """The number in `arXiv:2305.18290`, or None."""
    found = re.search(r"\d{4}\.\d{4,5}", reference)
    return found[0] if found else None
