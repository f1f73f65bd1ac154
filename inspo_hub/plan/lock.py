"""lock.json: what a run was made of, so that it can be made again, and what has moved since."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from inspo_hub import __version__, hub
from inspo_hub.errors import ResolutionError
from inspo_hub.plan.pins import Plan, Reference, content_of

LOCK_FILE = "lock.json"
_FORMAT = 1
_PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "deepspeed",
    "huggingface_hub",
    "numpy",
    "peft",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)

RUN_SHA256 = "run_sha256"
"""In a lock's `extra`: hash of the whole recipe, variants and all, which the label of a Job carries too."""


@dataclass(frozen=True, slots=True)
class LockedPin:
    """One reference as it was: a Hub id at a commit, or a local path (its last part only) with the files' digest."""

    kind: str
    id: str
    revision: str | None
    sha: str | None
    content: str | None

    @classmethod
    def of(cls, pinned: hub.Pinned) -> LockedPin:
        if pinned.path is None:
            return cls(pinned.kind, pinned.id, pinned.revision, pinned.sha, None)
        # Folders of this machine are nobody's business: a lock travels with the card.
        return cls(pinned.kind, pinned.path.name, None, None, content_of(pinned))


@dataclass(frozen=True, slots=True)
class Lock:
    """What one variant's run was made of. `pairs_fingerprint` is known once the data has been prepared."""

    recipe_sha256: str
    recipe: str
    seed: int
    pins: Mapping[str, LockedPin]
    chat_template_sha256: str | None
    data_fingerprint: str
    pairs_fingerprint: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    platform: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More that a run records (hardware, processes); never compared."""

    @classmethod
    def of(cls, plan: Plan, *, pairs_fingerprint: str | None = None, extra: Mapping[str, Any] | None = None) -> Lock:
        return cls(
            recipe_sha256=plan.recipe.sha256(),
            recipe=plan.recipe.name,
            seed=plan.recipe.seed,
            pins={role: LockedPin.of(pinned) for role, pinned in plan.pins.items()},
            chat_template_sha256=plan.chat_template_sha256,
            data_fingerprint=plan.data_fingerprint(),
            pairs_fingerprint=pairs_fingerprint,
            packages=package_versions(),
            python=platform.python_version(),
            platform=f"{platform.system()} {platform.machine()}",
            extra=extra or {},
        )

    def with_pairs(self, fingerprint: str) -> Lock:
        return replace(self, pairs_fingerprint=fingerprint)

    def sha_of(self, reference: Reference) -> str | None:
        """The commit that this reference was at; None where the lock has another id, revision or none."""
        pin = self.pins.get(reference.role)
        if pin is None or (pin.kind, pin.id, pin.revision) != (reference.kind, reference.id, reference.revision):
            return None
        return pin.sha

    def to_json(self) -> str:
        return hub.redact(json.dumps({"format": _FORMAT, **asdict(self)}, indent=2, sort_keys=True, ensure_ascii=False))

    @classmethod
    def from_json(cls, text: str, *, where: str) -> Lock:
        try:
            values = json.loads(text)
            if values.pop("format") != _FORMAT:
                raise ValueError("it is of another format")
            pins = {role: LockedPin(**pin) for role, pin in values.pop("pins").items()}
            return cls(pins=pins, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResolutionError(
                f"the lock cannot be read: {error}",
                where=where,
                expected=f"a lock.json of format {_FORMAT}, as a run writes it",
                fix="take the lock.json from the run's output or model repository again, or run without --frozen",
            ) from error


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on, as far as they are installed; imports none of them."""
    versions = {"inspo_hub": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def write_lock(lock: Lock, output: Path) -> Path:
    """Writes lock.json into a run's output folder, whole or not at all."""
    hub.write_bytes(output / LOCK_FILE, (lock.to_json() + "\n").encode())
    return output / LOCK_FILE


def read_lock(path: Path) -> Lock:
    """The lock of an output folder, or of a file; raises ResolutionError where there is none."""
    file = path / LOCK_FILE if path.is_dir() else path
    if not file.is_file():
        raise ResolutionError(
            "there is no lock",
            where=str(file),
            expected="the lock.json of an earlier run",
            fix="run once without --frozen, or copy the lock.json of the run to repeat here",
        )
    return Lock.from_json(file.read_text(encoding="utf-8"), where=str(file))


def compare_lock(lock: Lock, plan: Plan, *, pairs_fingerprint: str | None = None) -> list[str]:
    """What moved between the lock and now, one line each; an empty list means that the same run can be made again."""
    now = Lock.of(plan, pairs_fingerprint=pairs_fingerprint)
    moved = []
    for role in sorted({*lock.pins, *now.pins}):
        line = _moved_pin(role, lock.pins.get(role), now.pins.get(role))
        moved += [line] if line else []
    if lock.chat_template_sha256 != now.chat_template_sha256:
        moved.append(f"chat template: {_short(lock.chat_template_sha256)} -> {_short(now.chat_template_sha256)}")
    if lock.seed != now.seed:
        moved.append(f"seed: {lock.seed} -> {now.seed}")
    if lock.recipe_sha256 != now.recipe_sha256:
        moved.append(f"recipe: sha256 {_short(lock.recipe_sha256)} -> {_short(now.recipe_sha256)}")
    pairs = (lock.pairs_fingerprint, now.pairs_fingerprint)
    if None not in pairs and pairs[0] != pairs[1]:
        moved.append(f"preference pairs: fingerprint {_short(pairs[0])} -> {_short(pairs[1])}")
    return moved


def compare_environment(lock: Lock) -> list[str]:
    """What differs between this machine and the lock's: results may differ in the last digits, and that is all."""
    now = package_versions()
    both = {**lock.packages, **now}
    lines = [
        f"{name}: {lock.packages.get(name, 'not installed')} -> {now.get(name, 'not installed')}"
        for name in sorted(both)
        if lock.packages.get(name) != now.get(name)
    ]
    here = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    lines += [
        f"{name}: {getattr(lock, name)} -> {value}" for name, value in here.items() if getattr(lock, name) != value
    ]
    return lines


def refuse_drift(moved: Sequence[str], *, where: str) -> None:
    """Raises a ResolutionError that lists what moved; nothing where nothing did."""
    if moved:
        raise ResolutionError(
            f"{len(moved)} thing(s) moved since the lock was written\n" + "\n".join(f"  - {line}" for line in moved),
            where=where,
            expected="exactly what the lock records (--frozen)",
            fix="set revision: to the locked commits, restore the recipe or data, or run without --frozen",
        )


def _moved_pin(role: str, before: LockedPin | None, now: LockedPin | None) -> str | None:
    if before == now:
        return None
    if before is None or now is None:
        return f"{role}: {_told(before)} -> {_told(now)}"
    if before.id == now.id and before.sha and now.sha:
        return f"{role}: {now.id} ({now.revision or 'main'}) was at {before.sha}, is at {now.sha}"
    if before.id == now.id and before.content and now.content:
        return f"{role}: the content of {now.id} changed ({_short(before.content)} -> {_short(now.content)})"
    return f"{role}: {_told(before)} -> {_told(now)}"


def _told(pin: LockedPin | None) -> str:
    return "nothing" if pin is None else f"{pin.id}@{_short(pin.sha or pin.content)}"


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
