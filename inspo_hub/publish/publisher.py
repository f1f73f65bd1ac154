"""The publisher: frozen snapshots, one queue, one worker thread; training neither waits for the Hub nor dies of it."""

from __future__ import annotations

import logging
import secrets
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from inspo_hub import hub
from inspo_hub.errors import InspoError, PublishError
from inspo_hub.publish.delivery import Sender
from inspo_hub.publish.result import Missing, Published, PublishResult
from inspo_hub.publish.settings import PublishSettings
from inspo_hub.publish.spool import Delivery, Record, RecordedStatus, SaveKind, Snapshot, Spool, What

log = logging.getLogger(__name__)

_LONGEST_WAIT_AT_THE_END_S = 15.0
"""Between attempts while a finished run waits: a machine is paid for, so the Hub's return must be noticed soon."""


class Publisher:
    """Publishes the saves of one run to one repository, from a spool folder that survives a kill.

    `submit` freezes a save and returns; a thread pushes the newest snapshot, so at most one waits behind the one that
    is on its way. `finish` waits, within its time, and says what stands on the Hub and what does not. Another
    Publisher on the same folder, in this process or a later one, goes on where this one ended.
    """

    def __init__(self, settings: PublishSettings, repo_id: str, spool: Path) -> None:
        self.settings = settings
        self.spool = Spool(spool)
        self._file_lock = FileLock(spool / ".lock")
        try:
            self._file_lock.acquire(timeout=0)
        except Timeout:
            raise PublishError(
                "another process is publishing this output",
                where=str(spool),
                expected="one publisher at a time",
                fix="wait until it has ended, or choose another --output",
            ) from None
        self._state = threading.Condition()
        self._record = self._taken_over(repo_id)
        self._sender = Sender(self._record, settings)
        self._current: Snapshot | None = None
        self._finishing = self._closed = False
        self._last_push = float("-inf")
        self._worker = threading.Thread(target=self._work, name=f"publish {repo_id}", daemon=True)
        self._worker.start()

    def _taken_over(self, repo_id: str) -> Record:
        """The record of an earlier process, its failures to be tried again; another repository starts with nothing."""
        record = self.spool.load()
        if record is None:
            record = Record(repo_id, {}, secrets.token_hex(4))
        if record.repo_id != repo_id:
            record.repo_id, record.pull_request, record.published = repo_id, None, []
        while len(record.snapshots) > 1:  # the newest holds all that the older ones would bring
            self.spool.drop(record.snapshots.pop(0))
        for delivery in (each for snapshot in record.snapshots for each in snapshot.deliveries):
            if delivery.status == "failed":
                delivery.status = "waiting"
        record.settings = {name: value for name, value in asdict(self.settings).items() if name != "patience"}
        self.spool.save(record)
        return record

    # --- called by the trainer ------------------------------------------------------------------------------------

    def submit(
        self, folder: Path, step: int, kind: SaveKind = "checkpoint", *, extra: Mapping[str, Path] | None = None
    ) -> None:
        """Freezes a save and queues it. Never raises for the Hub or the disk: what goes wrong is told at the end.

        Args:
            folder: a checkpoint, or the output folder with the final model and its card.
            extra: files beside the folder that belong to the save (metrics.jsonl, lock.json, recipe.yaml), by name.
        """
        whats = self._whats(kind)
        if not whats:
            return
        try:
            snapshot = self.spool.freeze(folder, step, kind, whats, extra or {})
        except OSError as error:
            reason = hub.redact(f"the save could not be frozen: {error}")
            log.error("step %d will not be published: %s", step, reason)
            with self._state:
                self._record.unfrozen = f"{step} {reason}"
                self._save()
            return
        with self._state:
            self._record.unfrozen = ""
            for older in [each for each in self._record.snapshots if each is not self._current]:
                self._supersede(older)
            self._record.snapshots.append(snapshot)
            self._save()
            self._state.notify_all()

    def _whats(self, kind: SaveKind) -> list[What]:
        if kind == "final":
            return ["weights", "card"]
        by_strategy: dict[str, list[What]] = {
            "end": [],
            "every_save": ["weights"],
            "checkpoint": ["weights", "state"],
        }
        return by_strategy[self.settings.strategy]

    def finish(self, timeout: float | None = None) -> PublishResult:
        """Waits until everything is pushed, for `timeout` (the settings' `wait_s`) seconds at most; ends the worker."""
        deadline = time.monotonic() + (self.settings.wait_s if timeout is None else timeout)
        with self._state:
            self._finishing = True
            self._state.notify_all()
            while (self._current is not None or self._next() is not None) and time.monotonic() < deadline:
                self._state.wait(timeout=max(0.0, deadline - time.monotonic()))
            self._closed = True
            self._state.notify_all()
        # A call that is under way ends by itself; the thread is a daemon, so a silent Hub does not keep the process.
        self._worker.join(timeout=2.0)
        result = self.result()
        if not self._worker.is_alive():
            self._file_lock.release()
        return result

    def result(self) -> PublishResult:
        """What stands on the Hub now and what does not."""
        with self._state:
            record = self._record
            missing = [
                Missing(delivery.what, snapshot.step, delivery.reason or "not tried yet")
                for snapshot in record.snapshots
                for delivery in snapshot.deliveries
                if delivery.status != "done"
            ]
            if record.unfrozen:
                step, reason = record.unfrozen.split(" ", 1)
                missing.append(Missing("weights", int(step), reason))
            return PublishResult(
                repo_id=record.repo_id,
                url=hub.repo_url(record.repo_id),
                published=tuple(Published(**each) for each in record.published),
                missing=tuple(missing),
                pull_request=record.pull_request,
            )

    # --- the worker -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._state:
                while self._next() is None or self._too_early():
                    if self._closed:
                        return
                    self._state.wait(timeout=self._pause_before_next())
                if self._closed:
                    return
                snapshot = self._current = self._next()
            assert snapshot is not None
            for delivery in snapshot.deliveries:
                if delivery.status == "waiting" and not self._closed and not self._overtaken(snapshot):
                    self._see_through(snapshot, delivery)
            with self._state:
                self._current = None
                if not snapshot.open or self._overtaken(snapshot):
                    self._supersede(snapshot)
                self._save()
                self._state.notify_all()

    def _next(self) -> Snapshot | None:
        """The newest snapshot of which something is waiting."""
        return next((each for each in reversed(self._record.snapshots) if each.waiting), None)

    def _overtaken(self, snapshot: Snapshot) -> bool:
        return self._record.snapshots[-1] is not snapshot

    def _too_early(self) -> bool:
        return self._pause_before_next() is not None

    def _pause_before_next(self) -> float | None:
        """Seconds until the next checkpoint may be pushed; None: now, or there is none. Results never wait."""
        snapshot = self._next()
        if snapshot is None or snapshot.kind == "final" or self._finishing:
            return None
        left = self._last_push + self.settings.interval_s - time.monotonic()
        return left if left > 0 else None

    def _see_through(self, snapshot: Snapshot, delivery: Delivery) -> None:
        """Tries one push until it stands, fails for good, or is overtaken; whatever happens ends up in the record."""
        if delivery.what == "card" and any(d.what == "weights" and d.status != "done" for d in snapshot.deliveries):
            self._note(delivery, status="failed", reason="the weights are not there yet")
            return
        attempt = 0
        while True:
            attempt += 1
            fault = self._attempt(snapshot, delivery)
            if fault is None:
                return
            at_the_end = self._finishing  # read once: the run may come to its end while we work out how long to wait
            wait = self.settings.patience.wait_s(attempt, fault)
            if wait is not None and at_the_end and fault.wait_s is None:
                wait = min(wait, _LONGEST_WAIT_AT_THE_END_S)
            status: RecordedStatus = "failed" if wait is None else "waiting"
            log.warning("%s of step %d is not published yet: %s", delivery.what, snapshot.step, fault.message)
            self._note(delivery, status=status, reason=fault.message)
            ends_with_training = fault.wait_s is None and not at_the_end
            if wait is None or not self._pause(wait, snapshot, ends_with_training=ends_with_training):
                return

    def _attempt(self, snapshot: Snapshot, delivery: Delivery) -> hub.Fault | None:
        """One try; None where it stands on the Hub. Every error becomes a fault: training must not die of it."""
        try:
            changed = self.spool.changed(snapshot)
            if changed:
                return hub.Fault("local", f"{changed[0]} was written to after it was saved")
            commit = self._sender.deliver(snapshot, delivery, self.spool.folder / snapshot.name)
        except hub.HubFailure as failure:
            return failure.fault
        except InspoError as error:
            return hub.Fault("refused", hub.redact(str(error).replace("\n", " ")))
        except Exception as error:  # noqa: BLE001 - classified; a fault of ours is reported like one of the Hub's
            fault = hub.classify(error)
            if fault.kind == "bug":
                log.error("publishing met an error of our own\n%s", hub.redact(traceback.format_exc()))
            return fault
        self._last_push = time.monotonic()
        self._note(delivery, status="done", commit=commit, step=snapshot.step)
        log.info("published the %s of step %d: %s", delivery.what, snapshot.step, commit.url)
        return None

    def _note(
        self,
        delivery: Delivery,
        *,
        status: RecordedStatus,
        reason: str = "",
        commit: hub.Commit | None = None,
        step: int = 0,
    ) -> None:
        with self._state:
            delivery.status, delivery.reason = status, reason
            if commit is not None:
                delivery.sha, delivery.url = commit.sha, commit.url
                delivery.revision = self._revision_of(delivery)
                entry = asdict(Published(delivery.what, step, delivery.revision, commit.sha, commit.url))
                others = [each for each in self._record.published if each["what"] != delivery.what]
                self._record.published = [*others, entry]
            self._save()

    def _revision_of(self, delivery: Delivery) -> str:
        if delivery.what == "state":
            return self.settings.checkpoints_branch
        number = self._record.pull_request
        return hub.pull_request_ref(number) if number is not None else self.settings.branch

    def _pause(self, seconds: float, snapshot: Snapshot, *, ends_with_training: bool) -> bool:
        """Waits before another attempt; False where it is pointless: closed, or a newer snapshot has come.

        The end of a run cuts a wait of our own short, never one that the Hub asked for.
        """
        deadline = time.monotonic() + seconds
        with self._state:
            while time.monotonic() < deadline and not self._closed:
                if self._overtaken(snapshot):
                    return False
                if self._finishing and ends_with_training:
                    return True
                self._state.wait(timeout=max(0.0, deadline - time.monotonic()))
            return not self._closed

    # --- the record -----------------------------------------------------------------------------------------------

    def _supersede(self, snapshot: Snapshot) -> None:
        """Forgets a snapshot: it is done, or a newer one takes its place."""
        self._record.snapshots.remove(snapshot)
        self.spool.drop(snapshot)
        self._sender.forget(self.spool.folder / snapshot.name)

    def _save(self) -> None:
        try:
            self.spool.save(self._record)
        except OSError as error:
            log.error("the publisher's record could not be written: %s", error)
