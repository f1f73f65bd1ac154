"""From a configuration to a running service: fetches what it names, loads what it needs, and learns earlier votes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inspo_hub import hub
from inspo_hub.errors import InspoError, RecipeError
from inspo_hub.space.config import HubSource, Source, SpaceConfig, SystemSection
from inspo_hub.space.service import Service
from inspo_hub.space.votes import VOTES, VoteStore, dataset_card, read_rows

if TYPE_CHECKING:
    from inspo_hub.space.service import Backend

log = logging.getLogger(__name__)

GENERATIONS = "generations.jsonl"


def open_service(config: SpaceConfig, folder: Path, votes: Path) -> tuple[Service, hub.ScheduledCommits | None]:
    """The service of a configuration, and the schedule that pushes its votes where there is a dataset for them.

    Args:
        folder: of the configuration; relative paths start there.
        votes: where votes are kept on this machine.
    """
    store = VoteStore(votes)
    precomputed = backend = None
    if config.backend == "precomputed":
        from inspo_hub.space.precomputed import Precomputed

        assert config.generations is not None, "checked by the configuration"
        precomputed = Precomputed(_file(config.generations, folder), config.names)
    else:
        backend = _backend(config, folder)
    service = Service(config, store, backend=backend, precomputed=precomputed)
    return service, _schedule(config, store)


def _backend(config: SpaceConfig, folder: Path) -> Backend:
    if config.backend == "endpoint":
        from inspo_hub.space.endpoint import Endpoints

        return Endpoints({system.name: _endpoint(system) for system in config.systems})
    try:
        from inspo_hub.space.models import LocalModels, SystemFiles
    except ImportError as error:
        raise RecipeError(
            f"models on this machine need a package that is not installed: {error.name}",
            where="backend: models",
            fix="pip install 'inspo-hub[space]', or show the answers of the evaluation (backend: precomputed)",
        ) from error

    def files(system: SystemSection) -> SystemFiles:
        assert system.model is not None, "checked by the configuration"
        adapter = None if system.adapter is None else model_folder(system.adapter, folder)
        return SystemFiles(model=model_folder(system.model, folder), adapter=adapter, beta=system.beta)

    base = None if config.base is None else model_folder(config.base, folder)
    return LocalModels({system.name: files(system) for system in config.systems}, base)


def _endpoint(system: SystemSection) -> hub.ChatEndpoint:
    section = system.endpoint
    assert section is not None, "checked by the configuration"
    if section.key_env and not os.environ.get(section.key_env):
        raise RecipeError(
            f"the environment variable {section.key_env} is not set",
            where=f"endpoint of {system.name}",
            expected="a variable that holds the endpoint's key",
            fix="export it; on the Hub, make it a secret of the Space",
        )
    return hub.ChatEndpoint(section.model, base_url=section.url, key_variable=section.key_env or None)


def model_folder(source: Source, folder: Path) -> Path:
    """The folder with a model or an adapter; one of the Hub is downloaded at its commit and checked by hash."""
    return hub.fetch(_pinned(source, folder, "model")).resolve()


def _pinned(source: Source, folder: Path, kind: hub.Kind) -> hub.Pinned:
    if isinstance(source, HubSource):
        return hub.Pinned(kind, source.repo, source.revision, source.revision, None)
    path = (folder / source.path).resolve()
    if not path.exists():
        raise RecipeError("no such file or folder", where=str(path), expected="a path on this machine")
    return hub.Pinned(kind, source.path, None, None, path)


def _file(source: Source, folder: Path) -> Path:
    if not isinstance(source, HubSource):
        return _pinned(source, folder, "dataset").path or folder
    return hub.fetch(_pinned(source, folder, "dataset"), patterns=[GENERATIONS]) / GENERATIONS


def _schedule(config: SpaceConfig, store: VoteStore) -> hub.ScheduledCommits | None:
    if config.votes is None:
        return None
    # Earlier votes are counted as soon as the Hub has given them; nobody waits for it.
    threading.Thread(target=_learn, args=(config.votes.repo, store), name="earlier-votes", daemon=True).start()
    return hub.ScheduledCommits(
        store.folder,
        config.votes.repo,
        every_minutes=config.votes.every_minutes,
        private=config.votes.private,
        first={"README.md": dataset_card(config).encode()},
    )


def _learn(repo: str, store: VoteStore) -> None:
    try:
        pinned = hub.resolve("dataset", repo, allow_offline=False)
        names = [file.path for file in hub.list_files(pinned) if file.path.startswith(f"{VOTES}/")]
        if names:
            folder = hub.fetch(pinned, patterns=[f"{VOTES}/*.jsonl"])
            store.learn(row for name in names for row in read_rows(folder / name))
    except InspoError as error:
        log.warning("earlier votes are not counted: %s", error.what)


def local_sources(config: SpaceConfig) -> Mapping[str, Source]:
    """Every place on one machine that a configuration names, by what it is for: none of them exists elsewhere."""
    named = {"base": config.base, "generations": config.generations}
    for system in config.systems:
        named |= {f"model of {system.name}": system.model, f"adapter of {system.name}": system.adapter}
    return {what: source for what, source in named.items() if source is not None and not isinstance(source, HubSource)}
