"""Before GPU time: may we read what the recipe names and write where it wants to publish? Everything wrong at once."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspo_hub.errors import ResolutionError
from inspo_hub.hub.client import DEFAULT_PATIENCE, HubFailure, Patience, api, call, repo_url, resolution_error
from inspo_hub.hub.faults import Fault
from inspo_hub.hub.push import ensure_repo
from inspo_hub.hub.resolve import ANSWER_S
from inspo_hub.hub.types import Kind, Pinned

MARGIN = 1.05
"""Room on top of the bytes that are counted: file systems need some for themselves."""


@dataclass(frozen=True, slots=True)
class WriteTarget:
    """A repository that a run wants to publish to. `private` None: created private, one that exists stays as it is."""

    repo_id: str
    private: bool | None = None
    create_pr: bool = False
    kind: Kind = "model"


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """Bytes that will be written below a path, and for what."""

    path: Path
    size: int
    what: str


def preflight(
    reads: Iterable[Pinned] = (),
    writes: Sequence[WriteTarget] = (),
    *,
    disk: Iterable[DiskNeed] = (),
    cards: Iterable[tuple[str, str]] = (),
    create: bool = False,
    patience: Patience = DEFAULT_PATIENCE,
) -> list[ResolutionError]:
    """What stands in the way of a run, all of it; an empty list is a go.

    Args:
        reads: models and datasets to read; gated ones are checked with the token in use.
        writes: repositories to publish to; with `create`, missing ones are created and writing is checked for real.
        disk: space needed; needs on one file system are added up.
        cards: (name, text) of model cards, whose metadata the Hub validates.
    """
    problems: list[ResolutionError] = []
    for pinned in dict.fromkeys(pinned for pinned in reads if not pinned.is_local):
        problems += _read_problems(pinned, patience)
    problems += _disk_problems(disk)
    if writes:
        problems += _write_problems(writes, create, patience)
    for name, text in cards:
        problems += card_problems(text, name=name, patience=patience)
    return problems


class Refusal(ResolutionError):
    """Several things that stand in the way, told in one message; `problems` are they."""

    def __init__(self, problems: Sequence[ResolutionError]) -> None:
        self.problems = tuple(problems)
        lines = [f"{number}. {problem}".replace("\n", "\n   ") for number, problem in enumerate(problems, start=1)]
        super().__init__(f"{len(problems)} things stand in the way of this run\n" + "\n".join(lines))

    def __reduce__(self) -> tuple[type[Refusal], tuple[tuple[ResolutionError, ...]]]:
        """Errors travel between the processes of a launch."""
        return type(self), (self.problems,)


def refuse(problems: Sequence[ResolutionError]) -> None:
    """Raises one ResolutionError that lists every problem once; nothing where there is none."""
    flat = [one for each in problems for one in (each.problems if isinstance(each, Refusal) else (each,))]
    told = list({str(each): each for each in flat}.values())
    if len(told) == 1:
        raise told[0]
    if told:
        raise Refusal(told)


def _read_problems(pinned: Pinned, patience: Patience) -> list[ResolutionError]:
    try:
        call(lambda: api().auth_check(pinned.id, repo_type=pinned.kind), patience=patience)
    except HubFailure as failure:
        fault = failure.fault
        if fault.kind in ("away", "busy"):
            return []  # resolved from the cache by SHA; what is missing there is refused by fetch
        return [resolution_error(fault, kind=pinned.kind, repo_id=pinned.id, doing="reading it")]
    return []


def _disk_problems(needs: Iterable[DiskNeed]) -> list[ResolutionError]:
    by_device: dict[int, list[DiskNeed]] = {}
    for need in needs:
        by_device.setdefault(_existing(need.path).stat().st_dev, []).append(need)
    problems = []
    for together in by_device.values():
        path = _existing(together[0].path)
        free, wanted = shutil.disk_usage(path).free, int(sum(need.size for need in together) * MARGIN)
        if wanted > free:
            parts = ", ".join(f"{need.what} {need.size / 1e9:.1f} GB" for need in together)
            problems.append(
                ResolutionError(
                    f"{free / 1e9:.1f} GB are free, {wanted / 1e9:.1f} GB are needed ({parts})",
                    where=str(path),
                    expected="room for everything the run writes",
                    fix="free space, or choose another --output and HF_HOME",
                )
            )
    return problems


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def _write_problems(writes: Sequence[WriteTarget], create: bool, patience: Patience) -> list[ResolutionError]:
    where = ", ".join(target.repo_id for target in writes)
    try:
        who: dict[str, Any] = call(lambda: api().whoami(), patience=patience)
    except HubFailure as failure:
        return [_no_identity(failure.fault, where)]
    role = who.get("auth", {}).get("accessToken", {}).get("role", "")
    if role == "read":
        return [
            ResolutionError(
                f"the token of {who['name']} may only read",
                where=f"publish to {where}",
                expected="a token with the role `write`, or a fine-grained one that may write to the repository",
                fix=f"create one on {repo_url('settings/tokens')} and log in with `hf auth login`",
            )
        ]
    problems = []
    for target in writes:
        problems += _target_problems(target, who, create, patience)
    return problems


def _no_identity(fault: Fault, where: str) -> ResolutionError:
    missing = "token" in fault.message.lower() and fault.status is None
    if fault.kind == "denied" or missing:
        return ResolutionError(
            "there is no valid token" if fault.status else "there is no token",
            where=f"publish to {where}",
            expected="a token with write access, from HF_TOKEN or `hf auth login`",
            fix="log in with `hf auth login`, or remove `publish` from the recipe",
        )
    return ResolutionError(
        f"the Hub did not say who we are: {fault.message}",
        where=f"publish to {where}",
        expected="an answer of the Hub before GPU time is spent",
        fix="run the same command again, or remove `publish` and publish later with `inspo-hub publish`",
    )


def _target_problems(
    target: WriteTarget, who: dict[str, Any], create: bool, patience: Patience
) -> list[ResolutionError]:
    info = _attempt(lambda: api().repo_info(target.repo_id, repo_type=target.kind, timeout=ANSWER_S), patience)
    if isinstance(info, Fault) and info.kind != "missing":
        return [_target_error(target, f"looking at the repository failed: {info.message}", "run again when it answers")]
    if isinstance(info, Fault):
        return _missing_target_problems(target, who, create, patience)
    if target.private is True and not info.private:
        return [
            _target_error(
                target,
                "the repository is public, but publish.private is true",
                "make it private, or set publish.private: null",
            )
        ]
    if target.create_pr:
        return []
    refused = _attempt(lambda: _check_write(target), patience)
    if not isinstance(refused, Fault):
        return []
    return [
        _target_error(
            target,
            f"{who['name']} may not write to the repository ({refused.message})",
            "ask its owner for access, choose another repository, or set publish.create_pr: true",
        )
    ]


def _missing_target_problems(
    target: WriteTarget, who: dict[str, Any], create: bool, patience: Patience
) -> list[ResolutionError]:
    """A repository that is not there yet: created now, or, in a plan, judged by its namespace."""
    if target.create_pr:
        return [
            _target_error(target, "the repository does not exist, so it can take no pull request", "check the name")
        ]
    own = {who["name"], *(organisation["name"] for organisation in who.get("orgs", []))}
    namespace = target.repo_id.split("/")[0]
    if namespace not in own:
        return [_target_error(target, f"{who['name']} does not belong to {namespace}", f"use one of {sorted(own)}")]
    if not create:
        return []
    made = _attempt(lambda: ensure_repo(target.repo_id, private=target.private, kind=target.kind), patience)
    if isinstance(made, Fault):
        return [_target_error(target, f"the repository cannot be created: {made.message}", "check the token's scopes")]
    info = _attempt(lambda: api().repo_info(target.repo_id, repo_type=target.kind, timeout=ANSWER_S), patience)
    if target.private is not False and not isinstance(info, Fault) and not info.private:
        return [_target_error(target, "the repository was created public", "make it private on its settings page")]
    refused = _attempt(lambda: _check_write(target), patience)
    return [_target_error(target, refused.message, "check the token's scopes")] if isinstance(refused, Fault) else []


def _check_write(target: WriteTarget) -> None:
    """Asks the Hub whether this token may write: creating an existing repository succeeds without that right."""
    client = api()
    if "write" in inspect.signature(client.auth_check).parameters:
        client.auth_check(target.repo_id, repo_type=target.kind, write=True)


def _attempt(action: Callable[[], Any], patience: Patience) -> Any:
    """The result of a call, or the Fault it ended in."""
    try:
        return call(action, patience=patience)
    except HubFailure as failure:
        return failure.fault


def _target_error(target: WriteTarget, what: str, fix: str) -> ResolutionError:
    return ResolutionError(
        what, where=f"publish to {target.repo_id}", expected="a repository this token may publish to", fix=fix
    )


def card_problems(
    text: str, *, name: str = "README.md", kind: Kind = "model", patience: Patience = DEFAULT_PATIENCE
) -> list[ResolutionError]:
    """What the Hub would refuse in a card, asked before anything is pushed; nothing where it cannot be asked."""
    outcome = _attempt(lambda: _refusal(text, kind), patience)
    if not outcome or (isinstance(outcome, Fault) and outcome.transient):
        return []
    return [
        ResolutionError(
            f"the Hub refuses the card: {outcome.message if isinstance(outcome, Fault) else outcome}",
            where=name,
            expected="metadata that the Hub accepts (license, base_model, datasets, tags, language)",
            fix="correct these fields of the recipe or of the base model's card",
        )
    ]


def _refusal(text: str, kind: Kind) -> str:
    """The Hub's complaints about a card's metadata, empty where it has none.

    Asked for directly: `RepoCard.validate` of the older client asks huggingface.co whatever HF_ENDPOINT says.
    """
    from huggingface_hub import get_session
    from huggingface_hub.utils import hf_raise_for_status

    answer = get_session().post(
        f"{api().endpoint}/api/validate-yaml",
        json={"content": text, "repoType": kind},
        headers={"Accept": "text/plain"},
        timeout=ANSWER_S,
    )
    if answer.status_code == 400:
        return "; ".join(answer.text.splitlines())
    hf_raise_for_status(answer)
    return ""
