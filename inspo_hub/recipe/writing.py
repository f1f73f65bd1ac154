"""A resolved recipe -> YAML text that YAML 1.1 and YAML 1.2 readers understand alike."""

from __future__ import annotations

from typing import Any

import yaml

from inspo_hub.recipe.reading import scalar


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer, which also quotes strings that YAML 1.2 would read as something else (`1e5`)."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar(text), str) else "'"
    if any(not letter.isprintable() for letter in text.replace("\n", "")):
        style = '"'  # escapes: in other styles PyYAML writes a bare U+0085 and reads it back as a blank
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def write_yaml(plain: dict[str, Any]) -> str:
    """Block YAML of plain dicts, lists and scalars, keys in their order."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
