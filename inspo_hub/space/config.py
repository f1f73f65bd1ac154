"""`space.json`: which two systems a Space compares, where their answers come from, where votes go, and its limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inspo_hub.errors import RecipeError

CONFIG_FILE = "space.json"
CURATED, HELDOUT, OWN = "curated", "held-out", "own prompt"
"""Categories of prompts where nobody gave another one."""
_REPO = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"
_SHA = r"^[0-9a-f]{40}$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class HubSource(_Section):
    """A repository of the Hub at one commit."""

    repo: str = Field(pattern=_REPO)
    revision: str = Field(pattern=_SHA, description="Full commit SHA: what visitors compare cannot move.")

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"


class LocalSource(_Section):
    """A folder or file on this machine; relative paths start at the folder of the configuration."""

    path: str = Field(min_length=1)

    def __str__(self) -> str:
        return self.path


Source = HubSource | LocalSource


class EndpointSection(_Section):
    """An inference endpoint with the chat-completions interface."""

    url: str = Field(pattern=r"^https?://")
    model: str = Field("tgi", description="Name that the server knows its model by; TGI takes any.")
    key_env: str = Field("", description="Name of the environment variable with its key; the key is nowhere else.")


class SystemSection(_Section):
    """One of the two systems. Visitors see its name and description after their vote."""

    name: str = Field(min_length=1, max_length=60)
    description: str = Field("", description="Objective and conditioning, for example `dpo × symmetric`.")
    model: Source | None = Field(None, description="Weights of a whole model, or of the base of an adapter.")
    adapter: Source | None = None
    endpoint: EndpointSection | None = None
    identity: str = Field("", description="What a vote says about the weights: `owner/name@sha` or `sha256:…`.")
    beta: float | None = Field(None, gt=0, description="β of the objective: implicit rewards are β·log-ratios.")
    card: str = Field("", description="Address of its model card.")


class SamplingSection(_Section):
    """How both answers are drawn; visitors may change it within `limits`."""

    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1)
    seed: int = Field(0, ge=0)


class VotesSection(_Section):
    """Where votes go. They are on this machine first, and stay there where a push fails."""

    repo: str = Field(pattern=_REPO, description="Dataset repository.")
    private: bool = True
    every_minutes: float = Field(5.0, gt=0, description="Minutes between commits; the Hub takes 128 an hour.")


class Limits(_Section):
    """What one visitor, and all of them, may ask for."""

    prompt_characters: int = Field(4000, ge=1)
    turns: int = Field(6, ge=1, description="User turns of one conversation.")
    new_tokens: int = Field(1024, ge=1, description="Largest max_new_tokens that a visitor may choose.")
    rounds_per_minute: int = Field(20, ge=1, description="Comparisons of one visitor.")
    at_once: int = Field(2, ge=1, description="Comparisons that are answered at the same time; others wait.")
    queue: int = Field(32, ge=1, description="Visitors that may wait; more are asked to come back.")


class ExampleSection(_Section):
    """A prompt to start from."""

    text: str = Field(min_length=1)
    category: str = CURATED


class SpaceConfig(_Section):
    """Everything a Space needs to know; no secret is ever in it."""

    version: Literal[1] = 1
    title: str = Field("Which answer is better?", min_length=1, max_length=120)
    description: str = ""
    systems: tuple[SystemSection, SystemSection]
    backend: Literal["precomputed", "models", "endpoint"] = Field(
        "precomputed", description="precomputed: answers that an evaluation wrote; models: on this machine; endpoint."
    )
    base: Source | None = Field(None, description="The model both were trained from: reference of implicit rewards.")
    generations: Source | None = Field(None, description="The answers of an evaluation: generations.jsonl.")
    report: LocalSource | None = Field(None, description="Folder with the run's card and pictures.")
    votes: VotesSection | None = None
    sampling: SamplingSection = SamplingSection()
    limits: Limits = Limits()
    examples: tuple[ExampleSection, ...] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        names = [system.name for system in self.systems]
        if len(set(names)) < 2:
            raise ValueError(f"both systems are called {names[0]!r}")
        if self.backend == "precomputed" and self.generations is None:
            raise ValueError("backend precomputed needs generations")
        for system in self.systems:
            if self.backend == "models" and system.model is None:
                raise ValueError(f"backend models needs the model of {system.name!r}")
            if self.backend == "endpoint" and system.endpoint is None:
                raise ValueError(f"backend endpoint needs the endpoint of {system.name!r}")
        return self

    @property
    def names(self) -> tuple[str, str]:
        first, second = self.systems
        return first.name, second.name

    def system(self, name: str) -> SystemSection:
        return next(system for system in self.systems if system.name == name)


def read_config(file: Path) -> SpaceConfig:
    """The configuration in a file.

    Raises:
        RecipeError: it is not there, not JSON, or a key of it is wrong.
    """
    try:
        return parse_config(json.loads(file.read_text(encoding="utf-8")), where=str(file))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"the Space's configuration cannot be read: {error}",
            where=str(file),
            expected=f"a {CONFIG_FILE} that `inspo-hub publish` or `inspo-hub space` wrote",
            fix="make it with: inspo-hub space preview OUTPUT",
        ) from error


def parse_config(value: Any, *, where: str) -> SpaceConfig:
    """The same from parsed JSON."""
    try:
        return SpaceConfig.model_validate(value)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}" for each in error.errors()]
        raise RecipeError(
            "; ".join(lines), where=where, expected=f"the keys of a {CONFIG_FILE}", fix="docs/space.md describes them"
        ) from error


def write_config(file: Path, config: SpaceConfig) -> None:
    """Writes the configuration, defaults included, so that it can be read and edited."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8", newline="\n")
