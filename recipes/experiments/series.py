"""Runs of a recipe over worlds (annotator × seed × base): made once, kept on disk, gone on with after a cut.

A world is the pairs that a base sampled, ordered by a seeded annotator, with questions of its own for the evaluation.
Every run is the ordinary workflow, as `inspo-hub run` does it, on a recipe of this folder; what is read afterwards is
what it wrote: `report/comparison.json`, `report/generations.jsonl` and each variant's `trained.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE.parent / "quickstart"
sys.path.insert(0, str(QUICKSTART))  # its language, judge and makers are scripts that import each other by name

import make  # noqa: E402
from pretrain import BaseSettings  # noqa: E402

from inspo_hub.models import load_model, load_tokenizer  # noqa: E402
from inspo_hub.recipe import load_recipe  # noqa: E402
from inspo_hub.workflow import run  # noqa: E402

DONE = "series.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a run is about: who prefers, which random streams, and which base answers and is trained."""

    annotator: str = "separable"
    seed: int = 0
    base: str = "multi"
    """`multi` has read two answers in one context, `plain` has not."""

    @property
    def name(self) -> str:
        return f"{self.base}-{self.annotator}-seed{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything: the defaults are the recipes' own, SHORT is for tests of the path."""

    pairs: int = 512
    heldout: int = 64
    prompts: int = 256
    base_steps: int = BaseSettings().steps
    worlds: int = 60
    """Tabular worlds of each kind and seed."""
    annotators: tuple[str, ...] = ("separable", "cyclic", "length_biased")
    """Whose preferences `conditioning` trains on."""
    timed_steps: tuple[int, int] = (4, 20)
    """Steps of the two runs of each variant of `overhead`."""
    overrides: tuple[str, ...] = ()


SHORT = Size(
    pairs=24,
    heldout=8,
    prompts=12,
    base_steps=3,
    worlds=4,
    annotators=("separable",),
    timed_steps=(1, 4),
    overrides=("train.epochs=1", "train.pairs_per_step=12", "train.log_every=1", "evaluate.bootstrap=50"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One variant in one world, as its run left it."""

    scores: np.ndarray[Any, np.dtype[np.float64]]
    """The judge's score of each answer, in the order of the prompts."""
    kl: float | None
    """KL from the base in nats per answer; None for the base itself."""
    well_formed: float
    tokens: float
    trained: Mapping[str, Any] = field(default_factory=dict)
    """Content of trained.json."""
    folder: Path = Path()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run: the base and every variant on the same prompts."""

    world: World
    systems: Mapping[str, System]

    def wins(self, name: str, other: str = "base") -> np.ndarray[Any, np.dtype[np.float64]]:
        """Per prompt 1 where `name` is judged better than `other`, 0.5 at a tie, 0 where it is worse."""
        return 0.5 + 0.5 * np.sign(self.systems[name].scores - self.systems[other].scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All runs of one output folder; experiments share its worlds and bases."""

    output: Path
    size: Size = Size()

    def outcome(self, recipe: str, world: World, overrides: Sequence[str] = (), *, name: str = "") -> Outcome:
        """`<recipe>.yaml` of this folder in a world. A run that was cut goes on where it was; a finished one is read.

        Args:
            name: tells runs in one world apart that differ by their overrides.
        """
        folder = self.output / recipe / "-".join(filter(None, [world.name, name]))
        settings = [*self.overrides(world), *overrides]
        digest = load_recipe(HERE / f"{recipe}.yaml", settings).sha256()
        done = folder / DONE
        if not done.is_file() or json.loads(done.read_text(encoding="utf-8"))["recipe_sha256"] != digest:
            print(f"--- {recipe}: {folder.name}", flush=True)
            exit_code = run(HERE / f"{recipe}.yaml", settings, output=folder)
            if exit_code != 0:
                raise SystemExit(exit_code)
            done.write_text(json.dumps({"recipe_sha256": digest}) + "\n", encoding="utf-8")
        return read_outcome(folder, world)

    def overrides(self, world: World) -> list[str]:
        """What `--set` would give to put a recipe of this folder into a world, at this series' size."""
        data = self.data(world)
        base = [] if world.base == "multi" else [f"model.id={self.base(world.base)}"]
        return [
            *base,
            f"seed={world.seed}",
            f"data.train.0.id={data / 'train.jsonl'}",
            f"data.train.0.limit={self.size.pairs}",
            f"data.heldout.0.id={data / 'heldout.jsonl'}",
            f"evaluate.prompts.id={data / 'prompts.jsonl'}",
            f"evaluate.limit={self.size.prompts}",
            *self.size.overrides,
        ]

    def base(self, name: str) -> Path:
        """The folder of a base: the quickstart's own, or the plain one, made here once."""
        if name == "multi":
            return QUICKSTART / "base"
        folder = self.output / "bases" / name
        if not (folder / "model.safetensors").is_file():
            print(f"--- base: {name}", flush=True)
            make.make_base(folder, replace(BaseSettings(), two_answers=False, steps=self.size.base_steps))
        return folder

    def data(self, world: World) -> Path:
        """The folder with the world's three data files; worlds of one base and seed differ in the labels alone."""
        folder = self.output / "data" / world.name
        if not (folder / "prompts.jsonl").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            pairs = self._pairs(world)
            for name in ("train", "heldout"):
                rows = make.label_pairs(map(tuple, pairs[name]), world.annotator, seed=world.seed)
                make.write_rows(folder / f"{name}.jsonl", rows)
            make.write_rows(folder / "prompts.jsonl", [{"prompt": text} for text in pairs["prompts"]])
        return folder

    def _pairs(self, world: World) -> dict[str, Any]:
        """Questions, and the base's two answers to each, before anybody prefers one."""
        file = self.output / "data" / f"{world.base}-seed{world.seed}.json"
        if not file.is_file():
            folder = self.base(world.base)
            model, tokenizer = load_model(folder), load_tokenizer(folder)
            counts = {"pairs": self.size.pairs, "heldout": self.size.heldout, "prompts": self.size.prompts}
            split = make.split_questions(make.DataSettings(**counts, seed=world.seed))
            sampled: dict[str, Any] = {
                name: make.sample_pairs(model, tokenizer, texts, seed=world.seed)
                for name, texts in (("train", split.train), ("heldout", split.heldout))
            }
            file.write_text(json.dumps(sampled | {"prompts": split.prompts}), encoding="utf-8")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


def read_outcome(folder: Path, world: World) -> Outcome:
    """What a finished run says about its systems."""
    comparison = json.loads((folder / "report" / "comparison.json").read_text(encoding="utf-8"))
    lines = (folder / "report" / "generations.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    systems = {}
    for row in comparison["systems"]:
        name = row["name"]
        kl, trained = row["kl_from_base"], folder / name / "trained.json"
        systems[name] = System(
            scores=np.array([line["scores"][name] for line in rows]),
            kl=None if kl is None else kl["value"],
            well_formed=row["well_formed"],
            tokens=row["mean_tokens"],
            trained=json.loads(trained.read_text(encoding="utf-8")) if trained.is_file() else {},
            folder=folder / name,
        )
    return Outcome(world=world, systems=systems)
