"""Recipe -> Plan: every model, tokenizer and dataset that it names becomes a commit or a path, before all else."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspo_hub import hub
from inspo_hub.errors import ResolutionError
from inspo_hub.recipe.prompt_sets import prompts_repository

if TYPE_CHECKING:
    from inspo_hub.plan.lock import Lock
    from inspo_hub.recipe import Recipe

log = logging.getLogger(__name__)

_TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json", "additional_chat_templates/*")


@dataclass(frozen=True, slots=True)
class Reference:
    """One place of a recipe that names something on the Hub or on this disk; `role` is its recipe key."""

    role: str
    kind: hub.Kind
    id: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One variant of a recipe with everything it names pinned. `pins` maps recipe keys to what they are pinned to."""

    recipe: Recipe
    pins: Mapping[str, hub.Pinned]
    chat_template_sha256: str | None

    @property
    def model(self) -> hub.Pinned:
        return self.pins["model"]

    @property
    def tokenizer(self) -> hub.Pinned:
        return self.pins["model.tokenizer"]

    @property
    def reference(self) -> hub.Pinned | None:
        """The reference model; None where it is the policy before training."""
        return self.pins.get("reference")

    @property
    def base_adapter(self) -> hub.Pinned | None:
        """The adapter that training starts from; None where there is none, or a new one."""
        return self.pins.get("adapter.base_adapter")

    @property
    def train(self) -> tuple[hub.Pinned, ...]:
        return self._numbered("data.train.")

    @property
    def heldout(self) -> tuple[hub.Pinned, ...]:
        return self._numbered("data.heldout.")

    @property
    def prompts(self) -> hub.Pinned | None:
        return self.pins.get("evaluate.prompts")

    @property
    def prompts_files(self) -> tuple[str, ...] | None:
        """The files of a benchmark's repository that are needed; None: all of them."""
        evaluate = self.recipe.evaluate
        return None if evaluate is None else prompts_repository(evaluate.prompts)[2]

    @property
    def judge(self) -> hub.Pinned | None:
        """The model that judges; None where there is none, or where it is not on this machine."""
        return self.pins.get("evaluate.judge")

    @property
    def remote_code(self) -> hub.Pinned | None:
        """Where Python code is run from, at which commit: to be named in the card. None: nowhere."""
        return self.model if self.recipe.model.trust_remote_code else None

    def _numbered(self, prefix: str) -> tuple[hub.Pinned, ...]:
        return tuple(pinned for role, pinned in self.pins.items() if role.startswith(prefix))

    def content(self, role: str) -> str:
        """What is pinned, by content: the commit, or the digest of the local files' hashes."""
        return content_of(self.pins[role])

    def data_fingerprint(self) -> str:
        """SHA-256 over the content of the data sets and over how they are read and mixed."""
        data = self.recipe.data.model_dump(mode="json")
        for role in [role for role in self.pins if role.startswith("data.")]:
            _, part, number = role.split(".")
            data[part][int(number)] |= {"id": "", "revision": None, "content": self.content(role)}
        text = json.dumps({"seed": self.recipe.seed, "data": data}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def content_of(pinned: hub.Pinned) -> str:
    if pinned.sha is not None:
        return pinned.sha
    assert pinned.path is not None
    return hub.digest(hub.local_fingerprint(pinned.path, pinned.kind))


def references(recipe: Recipe) -> Iterator[Reference]:
    """Every reference of one variant, in the order of the recipe's keys."""
    model = recipe.model
    yield Reference("model", "model", model.id, model.revision)
    own = model.tokenizer is None
    yield Reference(
        "model.tokenizer",
        "model",
        model.tokenizer or model.id,
        model.tokenizer_revision or (model.revision if own else None),
    )
    adapter = recipe.adapter
    if adapter is not None and adapter.base_adapter is not None:
        yield Reference("adapter.base_adapter", "model", adapter.base_adapter, adapter.base_adapter_revision)
    if recipe.reference.id is not None:
        yield Reference("reference", "model", recipe.reference.id, recipe.reference.revision)
    for number, source in enumerate(recipe.data.train):
        yield Reference(f"data.train.{number}", "dataset", source.id, source.revision)
    if isinstance(recipe.data.heldout, tuple):
        for number, source in enumerate(recipe.data.heldout):
            yield Reference(f"data.heldout.{number}", "dataset", source.id, source.revision)
    if recipe.evaluate is not None:
        id, revision, _ = prompts_repository(recipe.evaluate.prompts)
        yield Reference("evaluate.prompts", "dataset", id, revision)
        judge = recipe.evaluate.judge.model or recipe.evaluate.judge.reward_model
        if judge is not None:
            yield Reference("evaluate.judge", "model", judge.id, judge.revision)


def make_plan(
    recipe: Recipe,
    *,
    lock: Lock | None = None,
    from_lock: bool = False,
    patience: hub.Patience = hub.DEFAULT_PATIENCE,
) -> Plan:
    """The plan of a recipe without variants (or of one variant); see `make_plans`."""
    locks = {recipe.name: lock} if lock is not None else {}
    return next(iter(make_plans({recipe.name: recipe}, locks=locks, from_lock=from_lock, patience=patience).values()))


def make_plans(
    variants: Mapping[str, Recipe],
    *,
    locks: Mapping[str, Lock] | None = None,
    from_lock: bool = False,
    patience: hub.Patience = hub.DEFAULT_PATIENCE,
) -> dict[str, Plan]:
    """Pins every variant of a recipe; what two of them name is asked for once, so that twins cannot differ by it.

    Args:
        variants: `recipe.variant_recipes()`.
        locks: by variant, what an earlier run recorded.
        from_lock: take the commits from the lock (to go on with a run, or to reproduce one) instead of the ones that
            branches are at now. Otherwise a lock only helps where the Hub is away: its commits may be in the cache.

    Raises:
        ResolutionError: everything that cannot be resolved, in one message.
    """
    resolver = _Resolver(from_lock, patience)
    plans = {}
    for name, recipe in variants.items():
        pins = resolver.pin_all(recipe, (locks or {}).get(name))
        if pins is not None:
            template = resolver.attempt(partial(_template_hash, recipe, pins["model.tokenizer"]))
            plans[name] = Plan(recipe, pins, template)
    hub.refuse(resolver.problems)
    return plans


class _Resolver:
    """Resolves each reference once and collects what goes wrong."""

    def __init__(self, from_lock: bool, patience: hub.Patience) -> None:
        self.from_lock, self.patience = from_lock, patience
        self.known: dict[tuple[str, str, str | None, str | None], hub.Pinned | None] = {}
        self.problems: list[ResolutionError] = []

    def pin_all(self, recipe: Recipe, lock: Lock | None) -> dict[str, hub.Pinned] | None:
        """Role -> pinned for one variant; None where something could not be resolved."""
        pins: dict[str, hub.Pinned] = {}
        whole = True
        for reference in references(recipe):
            pinned = self._pin(reference, lock.sha_of(reference) if lock is not None else None)
            if pinned is None:
                whole = False
            else:
                pins[reference.role] = pinned
        return pins if whole else None

    def _pin(self, reference: Reference, locked: str | None) -> hub.Pinned | None:
        key = (reference.kind, reference.id, reference.revision, locked)
        if key not in self.known:
            self.known[key] = self.attempt(lambda: self._resolve(reference, locked))
        return self.known[key]

    def _resolve(self, reference: Reference, locked: str | None) -> hub.Pinned:
        use_lock = self.from_lock and locked is not None
        pinned = hub.resolve(
            reference.kind,
            reference.id,
            locked if use_lock else reference.revision,
            known_sha=locked,
            patience=self.patience,
        )
        hub.refuse(hub.preflight([pinned], patience=self.patience))
        if not use_lock:
            return pinned
        return hub.Pinned(pinned.kind, pinned.id, reference.revision, pinned.sha, pinned.path)

    def attempt(self, action: Callable[[], Any]) -> Any:
        """The action's result; None, and a problem noted, where it ends in a ResolutionError."""
        try:
            return action()
        except ResolutionError as error:
            if str(error) not in [str(problem) for problem in self.problems]:
                self.problems.append(error)
            return None


def _template_hash(recipe: Recipe, tokenizer: hub.Pinned) -> str | None:
    """SHA-256 of the chat template in use, from the recipe's file or the tokenizer's; None where there is none."""
    if recipe.model.chat_template is not None:
        return hashlib.sha256(Path(recipe.model.chat_template).read_bytes()).hexdigest()
    templates = _tokenizer_templates(tokenizer)
    if not templates:
        return None
    return hashlib.sha256(json.dumps(templates, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _tokenizer_templates(tokenizer: hub.Pinned) -> dict[str, str]:
    """Name -> template, as transformers finds them: files of their own win over tokenizer_config.json."""
    if tokenizer.path is None:
        names = [file.path for file in hub.list_files(tokenizer)]
        if not any(fnmatchcase(name, pattern) for name in names for pattern in _TEMPLATE_FILES):
            return {}
        folder = hub.fetch(tokenizer, "tokenizer", patterns=_TEMPLATE_FILES)
    else:
        folder = tokenizer.path
    single, several = folder / "chat_template.jinja", folder / "additional_chat_templates"
    found = {file.stem: file.read_text(encoding="utf-8") for file in sorted(several.glob("*.jinja"))}
    if single.is_file():
        found["default"] = single.read_text(encoding="utf-8")
    return found or _templates_of_config(folder / "tokenizer_config.json", str(tokenizer))


def _templates_of_config(path: Path, where: str) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        written = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
    except (json.JSONDecodeError, AttributeError) as error:
        raise ResolutionError(
            f"tokenizer_config.json cannot be read: {error}",
            where=where,
            expected="a JSON object",
            fix="choose another revision of the tokenizer",
        ) from error
    if isinstance(written, list):
        return {each["name"]: each["template"] for each in written}
    return {"default": written} if isinstance(written, str) else {}
