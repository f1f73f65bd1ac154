"""`inspo-hub reproduce`: plan a published run again, say what differs on this machine, train it, compare."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inspo_hub import hub
from inspo_hub.errors import RecipeError
from inspo_hub.plan import (
    LOCK_FILE,
    Plan,
    compare_environment,
    compare_lock,
    make_plan,
    read_lock,
    refuse_drift,
    write_lock,
)
from inspo_hub.recipe import Recipe
from inspo_hub.reproducing.differences import Difference, compare_metrics, count_numbers
from inspo_hub.reproducing.published import PublishedRun, read_published, recipe_of

log = logging.getLogger(__name__)

TOLERANCE, LOW_PRECISION_TOLERANCE = 1e-3, 5e-2
"""What counts as equal: between two CPUs in float32, and where one of the runs computed in bfloat16 or on a GPU, whose
kernels round otherwise. The same machine, versions and processes give the same bits."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be reproduced, and what the user allows."""

    model: str
    output: Path | None = None
    files: Path | None = None
    trust_code: bool = False
    skip_evaluation: bool = False


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A published run, ready to be trained again."""

    published: PublishedRun
    plan: Plan
    output: Path
    differs: tuple[str, ...]
    """This machine against the lock's."""

    def lines(self) -> list[str]:
        """For people."""
        told = [f"{self.published.source} was trained by recipe {self.plan.recipe.name} from"]
        told += [f"  {role}: {pin.id if pin.sha is None else pin}" for role, pin in self.plan.pins.items()]
        if not self.published.metrics:
            told.append("it published no metrics.jsonl: only its weights can be compared")
        ran_on = self.published.lock.extra
        if "processes" in ran_on:
            told.append(f"by {ran_on['processes']} process(es) on {ran_on['device']}")
        told.append("differs on this machine:" if self.differs else "nothing differs on this machine")
        return [*told, *(f"  {line}" for line in self.differs)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": str(self.published.source),
            "recipe": self.plan.recipe.name,
            "pins": {role: {"id": pin.id, "sha": pin.sha} for role, pin in self.plan.pins.items()},
            "differs_here": list(self.differs),
            "output": str(self.output),
        }


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """What came out of it."""

    planned: Planned
    run_exit_code: int
    numbers: int = 0
    tolerance: float = 0.0
    differences: tuple[Difference, ...] = ()
    same_weights: bool = False

    @property
    def equal(self) -> bool:
        """Within the tolerance; without published metrics, by the weights alone."""
        if not self.numbers:
            return self.same_weights
        return all(each.size <= self.tolerance for each in self.differences)

    @property
    def exit_code(self) -> int:
        """0 equal, 1 another result, else that of the run."""
        return self.run_exit_code or int(not self.equal)

    def lines(self) -> list[str]:
        """The verdict in one line, then what differs most."""
        source, weights = self.planned.published.source, "the same" if self.same_weights else "not the same"
        if self.run_exit_code:
            return [f"{source} was not trained to the end: the same command goes on"]
        found = f"{self.numbers} numbers of the last training and held-out lines"
        if self.equal and not self.differences:
            verdict = f"equal: {found}; the weights are {weights}, bit for bit"
        elif self.equal:
            verdict = (
                f"equal within {self.tolerance:g}: {found}; the largest difference is {self.differences[0].size:.2g}"
            )
        else:
            far = [each for each in self.differences if each.size > self.tolerance]
            verdict = f"differs: {len(far)} of {found} by more than {self.tolerance:g}; the weights are {weights}"
        shown = [f"  {each}" for each in self.differences[:8]]
        return [f"{source}: {verdict}", *shown, f"  results: {self.planned.output}"]

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.exit_code == 0,
            "exit_code": self.exit_code,
            **self.planned.to_dict(),
            "equal": self.equal,
            "same_weights": self.same_weights,
            "numbers": self.numbers,
            "tolerance": self.tolerance,
            "differences": [each.to_dict() for each in self.differences],
        }


def plan_again(request: Request) -> Planned:
    """The published run with everything at the commits of its lock.

    Raises:
        ResolutionError: a commit cannot be reached, or something is no longer what the lock recorded.
        RecipeError: the recipe would run Python code, which was not allowed.
        DataError: local files that it names are missing.
    """
    published = read_published(request.model)
    recipe = recipe_of(published, request.files)
    if request.skip_evaluation:
        recipe = recipe.model_copy(update={"evaluate": None})
    if not request.trust_code:
        _refuse_code(recipe, published)
    # Trained for oneself: nothing goes to the publisher's repository, and nothing to anybody's tracker.
    quiet = recipe.train.model_copy(update={"report_to": "none"})
    recipe = recipe.model_copy(update={"publish": None, "train": quiet})
    lock = replace(published.lock, recipe_sha256=recipe.sha256(), pins=_pins_of(recipe, published))
    plan = make_plan(recipe, lock=lock, from_lock=True)
    refuse_drift(compare_lock(lock, plan), where=f"lock of {published.source}")
    output = request.output or Path("outputs") / f"{recipe.name}-reproduced"
    return Planned(
        published=replace(published, lock=lock), plan=plan, output=output, differs=tuple(compare_environment(lock))
    )


def _pins_of(recipe: Recipe, published: PublishedRun) -> dict[str, Any]:
    """The locked pins, without those of an evaluation that is left out."""
    pins = dict(published.lock.pins)
    if recipe.evaluate is None:
        for role in ("evaluate.prompts", "evaluate.judge"):
            pins.pop(role, None)
    return pins


def _refuse_code(recipe: Recipe, published: PublishedRun) -> None:
    """A card must not decide what Python runs on this machine, nor whom it calls with which of this user's keys."""
    code, judge = [], None if recipe.evaluate is None else recipe.evaluate.judge
    if recipe.model.trust_remote_code:
        code.append(f"the code in the repository of {recipe.model.id} (model.trust_remote_code)")
    if judge is not None and judge.python is not None:
        code.append(f"{judge.python} (evaluate.judge.python)")
    acts = [f"run Python code on this machine: {' and '.join(code)}"] if code else []
    if judge is not None and judge.endpoint is not None:
        endpoint = judge.endpoint
        key = f"the key in ${endpoint.api_key_env}" if endpoint.api_key_env else "no key of yours"
        if endpoint.api_key_env is None and endpoint.base_url is None:
            key = "your Hub token"
        acts.append(f"ask {endpoint.base_url or 'a provider of the Hub'} with {key} (evaluate.judge.endpoint)")
    if acts:
        only_judge = not recipe.model.trust_remote_code
        leave_out = ", or leave the evaluation out with --skip-evaluation" if only_judge else ""
        raise RecipeError(
            f"it would {' and '.join(acts)}",
            where=f"recipe of {published.source}",
            expected="a recipe without code and calls, or your consent",
            fix=f"read that, then repeat with --trust-code{leave_out}",
        )


def train_again(request: Request, tolerance: float | None = None) -> Reproduced:
    """Trains it with everything pinned, and compares the last metrics and the weights with the published ones."""
    from inspo_hub.training.engine import join_launch
    from inspo_hub.training.processes import on_first_process
    from inspo_hub.workflow import run_recipe

    join_launch()
    planned = on_first_process(lambda: _prepare(request))
    for line in planned.lines():
        log.info("%s", line)
    exit_code = run_recipe(planned.plan.recipe, planned.output, pinned=True)
    if exit_code:
        return Reproduced(planned=planned, run_exit_code=exit_code)
    published = planned.published
    here = [json.loads(line) for line in (planned.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return Reproduced(
        planned=planned,
        run_exit_code=0,
        numbers=count_numbers(published.metrics),
        tolerance=_tolerance(planned) if tolerance is None else tolerance,
        differences=tuple(compare_metrics(published.metrics, here)) if published.metrics else (),
        same_weights=_same_weights(planned),
    )


def _prepare(request: Request) -> Planned:
    """The plan, and its lock in the output folder, where the run looks for it."""
    planned = plan_again(request)
    _refuse_other_results(planned)
    planned.output.mkdir(parents=True, exist_ok=True)
    write_lock(planned.published.lock, planned.output)
    return planned


def _refuse_other_results(planned: Planned) -> None:
    """An output folder that belongs to another run is left alone."""
    if not (planned.output / LOCK_FILE).is_file():
        return
    there = read_lock(planned.output)
    if there.recipe_sha256 != planned.published.lock.recipe_sha256:
        raise RecipeError(
            f"the output folder holds a run of another recipe ({there.recipe})",
            where=str(planned.output),
            expected="an empty folder, or one in which this reproduction was begun",
            fix="choose another --output",
        )


def _same_weights(planned: Planned) -> bool:
    """Whether the files that were trained here have the published hashes, all of them."""
    here = hub.weight_files(hub.resolve("model", str(planned.output.absolute())))
    there = {file.path: file for file in planned.published.weights}
    names = {file.path for file in here}
    return names == there.keys() and all(hub.file_hash(planned.output / name).matches(there[name]) for name in names)


def _tolerance(planned: Planned) -> float:
    """What equal means for these two runs."""
    summary = json.loads((planned.output / "trained.json").read_text(encoding="utf-8"))
    devices = {summary["device"], planned.published.lock.extra.get("device", "cpu")}
    exact = summary["compute_dtype"] == "float32" and devices == {"cpu"}
    return TOLERANCE if exact else LOW_PRECISION_TOLERANCE
