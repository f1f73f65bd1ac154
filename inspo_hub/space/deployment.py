"""Brings a Space to the Hub: page, package, the run's report and answers, in one commit; again changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inspo_hub import hub
from inspo_hub.errors import PublishError, RecipeError
from inspo_hub.space.config import (
    CONFIG_FILE,
    HubSource,
    LocalSource,
    SpaceConfig,
    VotesSection,
    read_config,
    write_config,
)
from inspo_hub.space.opening import GENERATIONS, local_sources
from inspo_hub.space.outputs import Backend, space_of_output
from inspo_hub.space.shipped import space_page

TOKEN = "HF_TOKEN"
CARD = "README.md"
RUN = "run"
"""Folder of the Space with the run's card, pictures and answers."""
MODEL_PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "spaces")
"""Lines of requirements.txt that only models on the Space's own hardware need."""
SHORT = 60
"""Characters that the Hub takes as a short description."""


@dataclass(frozen=True, kw_only=True)
class SpaceWishes:
    """What the command line asks for. `live` None: as the configuration or the output folder has it."""

    repo: str
    votes: str
    systems: tuple[str, ...] = ()
    live: bool | None = None
    private: bool = True
    hardware: str = ""
    votes_token: str = ""
    """Name of an environment variable whose token the Space gets, to push votes with."""


@dataclass(frozen=True)
class Deployed:
    """Where the Space stands, and what it still lacks."""

    repo: str
    url: str
    sha: str
    votes: str
    missing: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        return [f"space: {self.url} at {self.sha}", f"votes: {hub.repo_url(self.votes, 'dataset')}", *self.missing]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def deploy_space(output: Path, wishes: SpaceWishes) -> Deployed:
    """Creates or updates the Space of an output folder, or of a space.json.

    Raises:
        RecipeError: the models are not published, or the folder is no output.
        ResolutionError: the Space or the dataset cannot be written, or the Hub refuses the card.
        PublishError: the Hub did not take it.
    """
    config, root = _configuration(output, wishes)
    with tempfile.TemporaryDirectory(prefix="inspo-space-") as name:
        folder = Path(name)
        compose(folder, config, root, hardware=wishes.hardware)
        card = (folder / "README.md").read_text(encoding="utf-8")
        writes = [
            hub.WriteTarget(wishes.repo, wishes.private, kind="space"),
            hub.WriteTarget(wishes.votes, wishes.private, kind="dataset"),
        ]
        hub.refuse([*hub.card_problems(card, kind="space"), *hub.preflight(writes=writes, create=True)])
        try:
            commit = hub.push_folder(
                folder, wishes.repo, kind="space", message="The Space", private=wishes.private, stale=_is_ours
            )
            missing = tuple(_missing(config, wishes))
        except hub.HubFailure as failure:
            raise PublishError(
                f"the Space is not there: {failure.fault.message}",
                where=wishes.repo,
                expected="a Space that this token may write",
                fix="repeat the command",
            ) from failure
    return Deployed(wishes.repo, hub.repo_url(wishes.repo, "space"), commit.sha, wishes.votes, missing)


def update_space(repo: str) -> hub.Commit:
    """Brings page and package of this version to a Space that is there; what it shows, and its settings, stay.

    It needs a token to this one Space, such as a workflow's identity is exchanged for. Nothing is committed where
    nothing differs.

    Raises:
        ResolutionError: there is no such Space, or it cannot be read.
        RecipeError: it was not made by `inspo-hub space deploy`.
        PublishError: the Hub did not take it.
    """
    pinned = hub.resolve("space", repo)
    kept = [file for file in hub.list_files(pinned) if file.path in (CONFIG_FILE, CARD) or _is_run(file.path)]
    if CONFIG_FILE not in {file.path for file in kept}:
        raise RecipeError(
            f"it has no {CONFIG_FILE}",
            where=f"space {repo}",
            expected="a Space that `inspo-hub space deploy` made",
            fix=f"inspo-hub space deploy OUTPUT --repo {repo}",
        )
    with tempfile.TemporaryDirectory(prefix="inspo-space-") as name:
        there = hub.fetch_files(pinned, kept)
        suggested = re.search(r"^suggested_hardware: (\S+)$", (there / CARD).read_text(encoding="utf-8"), re.MULTILINE)
        hardware = suggested[1] if suggested else ""
        compose(Path(name), read_config(there / CONFIG_FILE), there, hardware=hardware)
        try:
            return hub.push_folder(Path(name), repo, kind="space", message="A newer page", stale=_is_ours)
        except hub.HubFailure as failure:
            raise PublishError(
                f"the Space is as it was: {failure.fault.message}",
                where=repo,
                expected="a Space that this token may write",
                fix="repeat the command",
            ) from failure


def _is_run(path: str) -> bool:
    return path.startswith(f"{RUN}/")


def _configuration(output: Path, wishes: SpaceWishes) -> tuple[SpaceConfig, Path]:
    """The configuration and the folder that its paths start from; every model in it stands on the Hub."""
    file = output if output.suffix == ".json" else output / CONFIG_FILE
    given = file.is_file() and not wishes.systems and wishes.live is None
    if given or output.suffix == ".json":
        config = read_config(file)
    else:
        backend: Backend | None = None if wishes.live is None else "models" if wishes.live else "precomputed"
        config = space_of_output(output, backend=backend, systems=wishes.systems, published=True)
    private = wishes.private
    config = config.model_copy(update={"votes": config.votes or VotesSection(repo=wishes.votes, private=private)})
    away = [what for what in local_sources(config) if what.startswith(("model", "adapter"))]
    if config.backend == "models" and away:
        raise RecipeError(
            f"only this machine has the {' and the '.join(away)}",
            where=str(output),
            expected="models on the Hub, for a Space to load",
            fix="inspo-hub publish OUTPUT first, or show the evaluated answers: --precomputed",
        )
    return config, file.parent


def compose(folder: Path, config: SpaceConfig, root: Path, *, hardware: str = "") -> None:
    """Writes the Space's repository into an empty folder: what it needs lies beside its app.py."""
    ignored = shutil.ignore_patterns("__pycache__", "_recipes", "_spaces", "*.pyc")
    shutil.copytree(space_page(), folder, dirs_exist_ok=True, ignore=ignored)
    shutil.copytree(Path(__file__).resolve().parents[1], folder / "inspo_hub", ignore=ignored)
    config = _carried(folder, config, root)
    write_config(folder / CONFIG_FILE, config)
    requirements = folder / "requirements.txt"
    lines = requirements.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if config.backend == "models" or _package(line) not in MODEL_PACKAGES]
    requirements.write_text("\n".join(kept) + "\n", encoding="utf-8", newline="\n")
    card = folder / "README.md"
    card.write_text(_card(card.read_text(encoding="utf-8"), config, hardware), encoding="utf-8", newline="\n")


def _package(line: str) -> str:
    return re.split(r"[=<>\[ ;]", line)[0]


def _carried(folder: Path, config: SpaceConfig, root: Path) -> SpaceConfig:
    """The files of this machine that the Space shows go along; what it cannot have is left out."""
    run = folder / RUN
    changes: dict[str, Any] = {}
    if config.report is not None:
        source = (root / config.report.path).resolve()
        (run / "report").mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / "README.md", run / "README.md")
        for picture in (source / "report").glob("*.svg"):
            shutil.copy2(picture, run / "report" / picture.name)
        changes["report"] = LocalSource(path=RUN)
    if isinstance(config.generations, LocalSource):
        run.mkdir(exist_ok=True)
        shutil.copy2((root / config.generations.path).resolve(), run / GENERATIONS)
        changes["generations"] = LocalSource(path=f"{RUN}/{GENERATIONS}")
    if config.backend != "models":
        changes["systems"] = tuple(each.model_copy(update={"model": None, "adapter": None}) for each in config.systems)
    if config.backend != "models" or isinstance(config.base, LocalSource):
        changes["base"] = None
    return config.model_copy(update=changes)


def _card(text: str, config: SpaceConfig, hardware: str) -> str:
    """README.md with the front matter that the Hub reads: the page's own, and what this Space is about."""
    from inspo_hub.recipe.writing import write_yaml

    head, body = text.removeprefix("---\n").split("---\n", 1)
    models = [
        source for each in config.systems for source in (each.model, each.adapter) if isinstance(source, HubSource)
    ]
    models += [config.base] if isinstance(config.base, HubSource) else []
    identities = [each.identity.split("@")[0] for each in config.systems if "@" in each.identity]
    facts: dict[str, Any] = {
        "title": config.title,
        "short_description": f"{config.names[0]} or {config.names[1]}? Blind votes"[:SHORT],
        "models": list(dict.fromkeys([*(source.repo for source in models), *identities])),
        "datasets": [] if config.votes is None else [config.votes.repo],
        "suggested_hardware": hardware,
        "preload_from_hub": sorted({_preload(source) for source in models}),
    }
    written = write_yaml({name: value for name, value in facts.items() if value})
    own = [line for line in head.splitlines() if not line.startswith(("title:", "short_description:"))]
    return "---\n" + written + "\n".join(own) + "\n---\n" + body


def _preload(source: HubSource) -> str:
    """`repo file,file sha`: what the Hub fetches while it builds the Space."""
    pinned = hub.Pinned("model", source.repo, source.revision, source.revision, None)
    return f"{source.repo} {','.join(file.path for file in hub.wanted_files(pinned))} {source.revision}"


def _is_ours(path: str) -> bool:
    """Files of an earlier deployment; what others have put into the Space's repository stays."""
    return path.startswith(("inspo_hub/", "compare_page/", f"{RUN}/"))


def _missing(config: SpaceConfig, wishes: SpaceWishes) -> Iterator[str]:
    """What a person has yet to do, after what we can do."""
    if wishes.votes_token:
        value = os.environ.get(wishes.votes_token, "")
        if not value:
            raise RecipeError(
                f"the variable {wishes.votes_token} is empty",
                where="--votes-token",
                fix="export a token that may write",
            )
        hub.set_space_secret(wishes.repo, TOKEN, value, description=f"pushes votes to {wishes.votes}")
    elif TOKEN not in hub.space_secrets(wishes.repo):
        yield (
            f"votes stay on the Space's disk until it has the secret {TOKEN}, which may write to {wishes.votes}: "
            f"{hub.repo_url(wishes.repo, 'space')}/settings"
        )
    if config.backend == "models" and isinstance(config.base, LocalSource):
        yield "implicit rewards are not shown: the base model is not on the Hub"
