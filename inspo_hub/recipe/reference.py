"""The recipe format as a page for people, generated from the schema: docs/recipe.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from inspo_hub.conditioning import CONDITIONINGS
from inspo_hub.objectives import OBJECTIVES
from inspo_hub.recipe.checks import NOT_IN_VARIANTS
from inspo_hub.recipe.export import EXTENDS
from inspo_hub.recipe.keys import Key, all_keys
from inspo_hub.recipe.merging import UNIONS
from inspo_hub.recipe.schema import HOW_NOT_WHAT
from inspo_hub.recipe.sweeping import MAX_VARIANTS, SWEPT

_INTRODUCTION = """\
# Recipe reference

Generated from the code by `inspo-hub schema --format markdown --output docs/recipe.md`; do not edit.

A recipe is one YAML file that says what is trained on what, how, and how it is evaluated. The smallest one:

```yaml
# yaml-language-server: $schema=recipe.schema.json
version: 1
name: my-first-run
model: {id: HuggingFaceTB/SmolLM2-135M-Instruct}
data:
  train:
    - id: trl-lib/ultrafeedback_binarized
train: {lr: 5e-7}
```

`inspo-hub validate recipe.yaml` checks it on any machine, offline, in well under a second. Every problem is told at
once with its file, line and dotted key; an unknown key is an error and comes with the key that was probably meant.

- **Values** are read by the rules of YAML 1.2: `5e-7` and `1e5` are numbers, `no`, `on` and `2026-01-01` are texts.
  They are never converted: `true` is no number, `12.7` no integer. A key that is written twice is an error.
- **Overrides**: `--set train.lr=1e-6`, `--set data.train.0.limit=100`, `--set 'objective={name: ipo, beta: 0.2}'`. The
  value is a YAML scalar, `[list]` or `{mapping}` and is checked like the file. Paths start from the working directory.
- **`extends: base.yaml`**: %(extends)s Mappings are merged key by key, lists and single values replaced.
- **Local paths** start from the folder of the file that holds them, and must exist; an absolute path may belong to
  another machine and is not looked up.
- **`objective` and `conditioning`** may be written as a name (`objective: dpo`). Naming another one replaces the
  section; the settings of the former do not carry over.
- **`variants`** turn one recipe into twins. Each is the recipe with its keys merged over it; `%(frozen)s`
  are the whole recipe's and no variant can change them, so that twins see the same pairs in the same order.
- **`sweep`** lists values for dotted keys: every combination is trained, each as a variant named by its values
  (`beta0.1_seed0`), and with `variants` every combination of each (`inspo_beta0.1_seed0`). It may change `%(swept)s`
  and what is below them, %(most)d trainings at most. Combinations of one seed share the order of the pairs, all share
  the reference cache. `sweep: {objective: {beta: [..]}}` says the same as `sweep: {objective.beta: [..]}`.
- **The hash** of a recipe covers every resolved key but `root` and, of `train`, `%(machine)s`,
  which change nothing of the result; it is the same however the recipe is launched, on whatever machine, and split into
  files. Cards, locks and the labels of Jobs carry it.
"""
_TABLE = ("| key | value | default | meaning |", "|---|---|---|---|")


def reference_page() -> str:
    """Markdown of every key: value, default, meaning; then the objectives and the conditionings with theirs."""
    frozen = "`, `".join(key for key in NOT_IN_VARIANTS if key not in ("variants", "sweep"))
    words = {"extends": EXTENDS, "frozen": frozen, "swept": "`, `".join(SWEPT), "most": MAX_VARIANTS}
    words |= {"machine": "`, `".join(HOW_NOT_WHAT)}
    parts = [_INTRODUCTION % words, "## Top level\n"]
    keys = [key for key in all_keys() if key.path.split(".")[0] not in UNIONS or "." not in key.path]
    parts.append(_table(key for key in keys if "." not in key.path))
    tables = {section: _table(key for key in keys if key.parent == section) for section in _parents(keys)}
    for table in dict.fromkeys(tables.values()):
        sections = [f"`{section}`" for section in tables if tables[section] == table]
        parts += [f"## {', '.join(sections)}\n", table]
    for title, section, kinds in (
        ("Objectives", "objective", OBJECTIVES),
        ("Conditionings", "conditioning", CONDITIONINGS),
    ):
        parts += [f"## {title}\n", _kinds(section, kinds)]
    return "\n".join(parts)


def _kinds(section: str, table: Mapping[str, type]) -> str:
    """One heading per kind: its formula from the docstring's first line, and its own keys."""
    parts = []
    for name, kind in table.items():
        first_line = (kind.__doc__ or "").partition("\n")[0]
        own = [key for key in all_keys() if key.parent == section and key.kind == name and key.leaf != "name"]
        parts += [f"### `{section}: {name}`\n", f"{_escaped(first_line)}\n"]
        if own:
            parts.append(_table(own))
    return "\n".join(parts)


def _table(keys: Iterable[Key]) -> str:
    rows = [f"| `{key.leaf}` | {_value(key.schema)} | {_default(key)} | {_escaped(key.description)} |" for key in keys]
    return "\n".join([*_TABLE, *rows]) + "\n"


def _parents(keys: Iterable[Key]) -> list[str]:
    return [parent for parent in dict.fromkeys(key.parent for key in keys) if parent]


def _default(key: Key) -> str:
    if key.required:
        return "required"
    if "default" not in key.schema:
        return ""
    default = key.schema["default"]
    if isinstance(default, dict) and default:
        return f"`{default['name']}`" if "name" in default else "see below"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _value(schema: dict[str, Any]) -> str:
    """What a key takes, in words."""
    if "anyOf" in schema or "oneOf" in schema:
        options = [_value(option) for option in schema.get("anyOf") or schema["oneOf"]]
        return " or ".join(dict.fromkeys(option for option in options if option))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        shown = schema["enum"] if len(schema["enum"]) <= 12 else ["a name"]
        return ", ".join(f"`{value}`" if value != "a name" else value for value in shown)
    if "$ref" in schema:
        return "mapping"
    names = {"string": "text", "boolean": "`true`, `false`", "array": "list", "object": "mapping", "null": "`null`"}
    kind = schema.get("type", "")
    return " ".join([names.get(kind, kind), *_bounds(schema)])


def _bounds(schema: dict[str, Any]) -> list[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    return [", ".join(bounds)] if bounds else []


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
