"""Recipe + estimate -> the one request that a Job is started with."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, metadata
from typing import TYPE_CHECKING, Any

from inspo_hub import __version__, hub
from inspo_hub.errors import RecipeError
from inspo_hub.publish import repositories
from inspo_hub.recipe.shipped import shipped_folder
from inspo_hub.submitting.inputs import PROFILE_FILE, RECIPE_FILE, gather_inputs, pack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inspo_hub.plan.results import Estimate
    from inspo_hub.recipe import Recipe

DEFAULT_IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"
"""The image that the Hub's client takes for Python, too: Debian with Python 3.12 and uv. CUDA comes with torch."""
INPUTS = "INSPO_HUB_INPUTS"
RECIPE_LABEL = "inspo-recipe"
LABEL_DIGITS = 40
"""Of the recipe's hash: a label holds 63 characters at most where Kubernetes keeps it."""
ENDED = "inspo_hub: exit code"
"""What a Job prints last if the run ended by itself; a Job without this line was lost."""

_DEEPSPEED = ("zero2", "zero3")
"""Engines that are a package of their own, which has no wheel and so is no extra of ours."""

SCRIPT = f"""\
set -u
mkdir -p inspo && cd inspo || exit 1
printf %s "${INPUTS}" | base64 -d | tar -xz || exit 1
unset {INPUTS}
# In the background, so that a signal reaches the run at once: it saves a checkpoint and ends with 130.
"$@" &
run=$!
trap 'kill -TERM "$run"' TERM INT
wait "$run"
code=$?
while kill -0 "$run" 2>/dev/null; do wait "$run"; code=$?; done
echo "{ENDED} $code"
exit "$code"
"""
"""Bash: unpacks the inputs, runs its arguments, and says how they ended."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says about a Job."""

    max_usd: float | None = None
    timeout_s: int | None = None
    """None: from the plan, with its margin."""
    namespace: str | None = None
    image: str = DEFAULT_IMAGE
    package: str | None = None
    """What uv installs; None: this version of this package with the extras that the recipe needs."""
    resume: str = "auto"
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A Job that could be started: its request, what is known of its price, and whether it can be resumed."""

    request: hub.JobRequest
    files: Mapping[str, bytes] = field(repr=False)
    recipe_sha256: str
    usd_per_hour: float
    expected_usd: float | None
    expected_hours: float | None
    max_usd: float | None
    repos: Mapping[str, str]
    targets: tuple[hub.WriteTarget, ...]
    resumable: bool

    def again(self, spent_usd: float) -> Submission | None:
        """The same with what is left of the money; None where that is not enough for a minute."""
        timeout = _affordable(self.request.timeout_s, self.usd_per_hour, self.max_usd, spent_usd)
        return None if timeout < 60 else replace(self, request=replace(self.request, timeout_s=timeout))

    def to_dict(self) -> dict[str, Any]:
        return {
            "request": self.request.to_dict(),
            "files": {name: len(content) for name, content in self.files.items()},
            "recipe_sha256": self.recipe_sha256,
            "usd_per_hour": self.usd_per_hour,
            "expected_usd": self.expected_usd,
            "expected_hours": self.expected_hours,
            "most_usd": self.most_usd,
            "publishes_to": dict(self.repos),
            "resumable": self.resumable,
        }

    @property
    def most_usd(self) -> float:
        """What it costs if it runs into its time limit."""
        return self.usd_per_hour * self.request.timeout_s / 3600

    def to_text(self) -> str:
        """The whole request for people; the inputs as the files that they hold, secrets by name."""
        request = self.request
        shown = " ".join(shlex.quote(word) for word in request.command[4:])
        expected = "" if self.expected_usd is None else f"${self.expected_usd:.2f} expected, "
        lines = [
            f"A Job on {request.flavor}: {expected}${self.most_usd:.2f} at most",
            f"  image: {request.image}",
            f"  runs: {shown}",
            f"  time limit: {_minutes(request.timeout_s)}",
            *(f"  label: {name}={value}" for name, value in request.labels.items()),
            *(f"  secret: {name}, from this machine" for name in request.secrets),
            *(f"  env: {name}={value}" for name, value in request.env.items() if name != INPUTS),
            f"  namespace: {request.namespace or 'the owner of the token'}",
            *(f"  publishes {name} to {repo}" for name, repo in self.repos.items()),
            f"  {'goes on from its checkpoints on the Hub if it is lost' if self.resumable else 'starts over if lost'}",
        ]
        for name, content in self.files.items():
            lines += [f"--- {name}", content.decode(errors="replace").rstrip()]
        return "\n".join(["\n".join(lines), "--- bash", SCRIPT.rstrip()])


def make_submission(recipe: Recipe, found: Estimate, wishes: Wishes) -> Submission:
    """The request for the machine that the estimate has chosen.

    Raises:
        RecipeError: the recipe publishes nothing, no machine fits, the time is unknown, or the money does not suffice.
        DataError: the recipe names models or data on this machine.
    """
    repos = _repositories(recipe)
    chosen = found.chosen
    if chosen is None or chosen.setting is None:
        raise RecipeError(
            "no machine of the Hub's Jobs fits this run",
            where="--flavor",
            expected="a machine that holds it",
            fix="`inspo-hub plan` says what each lacks; train an adapter (adapter: {}) or shorter pairs",
        )
    if wishes.max_usd is not None:
        found.require_at_most(wishes.max_usd)
    profile = shipped_folder() / "accelerate" / f"{chosen.setting.engine}.yaml"
    use_profile = chosen.setting.devices > 1 and profile.is_file()
    files = gather_inputs(recipe, profile if use_profile else None)
    run = [*_launch(chosen.setting.devices, with_profile=use_profile), *_arguments(recipe, found, wishes)]
    packages = [wishes.package or _package(recipe), *(["deepspeed"] if chosen.setting.engine in _DEEPSPEED else [])]
    installed = [word for package in packages for word in ("--with", package)]
    return Submission(
        request=hub.JobRequest(
            image=wishes.image,
            command=("bash", "-c", SCRIPT, "inspo", "uv", "run", "--no-project", *installed, *run),
            env={INPUTS: pack(files), "PYTHONUNBUFFERED": "1"},
            secrets=(hub.TOKEN_SECRET, *wishes.secrets),
            flavor=chosen.flavour.name,
            timeout_s=_affordable(_time_limit(found, wishes), chosen.flavour.usd_per_hour, wishes.max_usd, 0.0),
            labels=labels_of(recipe),
            namespace=wishes.namespace,
        ),
        files=files,
        recipe_sha256=recipe.sha256(),
        usd_per_hour=chosen.flavour.usd_per_hour,
        expected_usd=chosen.usd,
        expected_hours=chosen.hours.total if chosen.hours else None,
        max_usd=wishes.max_usd,
        repos=repos,
        targets=_targets(recipe, repos),
        resumable=_is_resumable(recipe),
    )


def _is_resumable(recipe: Recipe) -> bool:
    """Whether all that a later Job needs to go on is on the Hub."""
    return all(v.publish and v.publish.strategy == "checkpoint" for v in recipe.variant_recipes().values())


def _time_limit(found: Estimate, wishes: Wishes) -> int:
    """Seconds; the plan's, where nothing was asked for."""
    seconds = wishes.timeout_s or (found.timeout_minutes or 0) * 60
    if not seconds:
        assert found.chosen is not None
        raise RecipeError(
            f"nothing is known of the speed of {found.chosen.flavour.name}",
            where="--timeout",
            expected="a time limit, since the Hub ends a Job without one after 30 minutes",
            fix="give one: --timeout 6h",
        )
    return seconds


def _arguments(recipe: Recipe, found: Estimate, wishes: Wishes) -> list[str]:
    resume = ("hub" if _is_resumable(recipe) else "none") if wishes.resume == "auto" else wishes.resume
    settings = [word for text in _settings(recipe, found) for word in ("--set", text)]
    return ["-m", "inspo_hub.run", RECIPE_FILE, "--output", "output", "--resume", resume, *settings]


def labels_of(recipe: Recipe) -> dict[str, str]:
    """By which a Job of this recipe is found again."""
    name = re.sub(r"[^a-zA-Z0-9_-]", "-", recipe.name)[:63]
    return {"name": name, RECIPE_LABEL: recipe.sha256()[:LABEL_DIGITS]}


def _repositories(recipe: Recipe) -> dict[str, str]:
    variants = recipe.variant_recipes()
    repos = repositories({name: one.publish for name, one in variants.items()}, twins=bool(recipe.variants))
    silent = [name for name in variants if name not in repos]
    if silent:
        raise RecipeError(
            f"{', '.join(silent)} would be published nowhere, and a Job's disk goes with it",
            where="publish",
            expected="a repository for what the Job trains",
            fix="add `publish: {repo: OWNER/NAME, strategy: checkpoint}`, or --set publish.repo=OWNER/NAME",
        )
    return repos


def _targets(recipe: Recipe, repos: Mapping[str, str]) -> tuple[hub.WriteTarget, ...]:
    sections = {name: variant.publish for name, variant in recipe.variant_recipes().items()}
    return tuple(
        hub.WriteTarget(repo, private=section.private, create_pr=section.create_pr)
        for name, repo in repos.items()
        if (section := sections[name]) is not None
    )


def _affordable(timeout_s: int, usd_per_hour: float, max_usd: float | None, spent_usd: float) -> int:
    """The time limit, no longer than the money lasts: what is not expected must not be paid either."""
    if max_usd is None or usd_per_hour <= 0:
        return timeout_s
    return min(timeout_s, math.floor((max_usd - spent_usd) / usd_per_hour * 3600))


def _launch(devices: int, *, with_profile: bool) -> list[str]:
    if devices == 1:
        return ["python"]
    return [
        "accelerate",
        "launch",
        *(["--config_file", PROFILE_FILE] if with_profile else []),
        "--num_processes",
        str(devices),
    ]


def _settings(recipe: Recipe, found: Estimate) -> list[str]:
    """The plan's settings for the machine, but for keys that a variant sets itself."""
    own = {key for variant in recipe.variants.values() for key in variant.get("train", {})}
    return [text for text in found.settings if text.partition("=")[0].removeprefix("train.") not in own]


def _package(recipe: Recipe) -> str:
    """This package with the extras that the recipe needs, as far as there are such extras."""
    variants = list(recipe.variant_recipes().values())
    wanted = {
        "train": True,
        "peft": any(v.adapter for v in variants),
        "qlora": any(v.adapter and v.adapter.quantize for v in variants),
        "track": any(v.train.report_to == "trackio" for v in variants),
        "wandb": any(v.train.report_to == "wandb" for v in variants),
        "tensorboard": any(v.train.report_to == "tensorboard" for v in variants),
    }
    try:
        there = set(metadata("inspo-hub").get_all("Provides-Extra") or ())
    except PackageNotFoundError:  # run from a folder of sources
        there = {"train", "peft", "qlora", "track"}
    extras = ",".join(name for name, needed in wanted.items() if needed and name in there)
    return f"inspo-hub[{extras}]=={__version__}"


def _minutes(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
