"""Finishes publishing an output folder: after a kill, after a Hub that was away, or for the first time."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from inspo_hub import hub
from inspo_hub.errors import PublishError
from inspo_hub.publish.publisher import Publisher
from inspo_hub.publish.result import PublishResult
from inspo_hub.publish.settings import PublishSettings
from inspo_hub.publish.spool import Record, Spool

SPOOL_FOLDER = ".publish"


def spool_of(output: Path) -> Path:
    """Where the publisher of an output folder keeps its snapshots: on its file system, so that they can be links."""
    return output / SPOOL_FOLDER


def publish_output(
    output: Path,
    repo_id: str | None = None,
    settings: PublishSettings | None = None,
    *,
    step: int | None = None,
    timeout: float | None = None,
) -> PublishResult:
    """Brings to the Hub what of an output folder is not there yet; does nothing where everything is.

    Args:
        repo_id: where to; by default where its run published to.
        settings: by default those of the run.
        step: the optimizer step of the model in the folder, for commit messages; by default the last one known.

    Raises:
        ResolutionError: everything that stands in the way (token, access, name), listed at once.
        PublishError: the folder holds no model and nothing is waiting.
    """
    record = _record_of(output)
    repo_id, settings = _destination(output, record, repo_id, settings)
    hub.refuse(hub.preflight(writes=[hub.WriteTarget(repo_id, settings.private, settings.create_pr)], create=True))
    publisher = Publisher(settings, repo_id, spool_of(output))
    if _holds_model(output):
        publisher.submit(output, _last_step(record) if step is None else step, "final")
    elif not publisher.result().missing:
        publisher.finish(0)
        raise PublishError(
            "there is nothing to publish: no model, and no save that waits",
            where=str(output),
            expected="the output folder of a run (model.safetensors or adapter_model.safetensors)",
            fix="check the folder; with variants, each has one of its own",
        )
    return publisher.finish(timeout)


def destination_of(output: Path) -> tuple[str, PublishSettings] | None:
    """Where the run of an output folder published to, and how; None where it did not."""
    record = _record_of(output)
    return None if record is None else _destination(output, record, None, None)


def _record_of(output: Path) -> Record | None:
    """Read without the publisher's lock: a run may be at work on it."""
    spool = spool_of(output)
    return Spool(spool).load(tidy=False) if spool.is_dir() else None


def _destination(
    output: Path, record: Record | None, repo_id: str | None, settings: PublishSettings | None
) -> tuple[str, PublishSettings]:
    if repo_id is None and record is None:
        raise PublishError(
            "it is not known where to publish",
            where=str(output),
            expected="a repository `owner/name`, from the run's recipe (publish.repo) or the command line",
            fix="name it: inspo-hub publish OUTPUT --repo owner/name",
        )
    if settings is None:
        known = {each.name for each in fields(PublishSettings)}
        stored = record.settings if record is not None else {}
        settings = PublishSettings(**{name: value for name, value in stored.items() if name in known})
    return repo_id or (record.repo_id if record is not None else ""), settings


def _last_step(record: Record | None) -> int:
    if record is None:
        return 0
    steps = [snapshot.step for snapshot in record.snapshots] + [int(each["step"]) for each in record.published]
    return max(steps, default=0)


def _holds_model(output: Path) -> bool:
    return output.is_dir() and any(hub.is_weight_file(path.name) for path in output.iterdir() if path.is_file())
