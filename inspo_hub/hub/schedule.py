"""Commits a growing folder to a dataset now and then; whatever the Hub does meanwhile, its writer goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inspo_hub.hub.client import ONCE, HubFailure, api, call
from inspo_hub.hub.fingerprint import bytes_hash
from inspo_hub.hub.push import MAIN, Upload, look, push

if TYPE_CHECKING:
    from huggingface_hub import CommitScheduler

log = logging.getLogger(__name__)

ALLOWED = ["*.jsonl"]


class ScheduledCommits:
    """A `huggingface_hub.CommitScheduler` that may start while the Hub is away; it is tried again every time.

    Files only grow. One whose push failed goes with the next; one that was never pushed goes after a restart.
    """

    def __init__(
        self,
        folder: Path,
        repo_id: str,
        *,
        every_minutes: float,
        private: bool,
        first: Mapping[str, bytes] | None = None,
    ) -> None:
        """`first` are files that the repository gets where it lacks them, such as its card."""
        self.repo_id = repo_id
        self._folder, self._every, self._private, self._first = folder, every_minutes, private, first or {}
        self._scheduler: CommitScheduler | None = None
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._start, name="scheduled-commits", daemon=True)
        self._thread.start()

    def push_now(self) -> None:
        """Pushes what is not there yet and waits for it. Raises HubFailure; the files stay for the next time."""
        call(lambda: self._ready().trigger().result(), patience=ONCE)

    def close(self) -> None:
        """A last push, and the end of the schedule; a failure is logged, for the rows lie on the disk."""
        self._closed.set()
        try:
            self.push_now()
        except HubFailure as failure:
            log.warning("%s did not take the last rows (%s); they are in %s", self.repo_id, failure, self._folder)
        if self._scheduler is not None:
            self._scheduler.stop()

    def _start(self) -> None:
        while not self._closed.is_set():
            try:
                call(self._ready, patience=ONCE)
            except HubFailure as failure:
                log.warning("%s cannot be written now (%s); rows are kept in %s", self.repo_id, failure, self._folder)
            else:
                return
            self._closed.wait(self._every * 60)

    def _ready(self) -> CommitScheduler:
        """The scheduler, made where there is none yet: that creates the repository and starts the first push."""
        from huggingface_hub import CommitScheduler

        with self._lock:
            if self._scheduler is None:
                client = api()
                client.create_repo(self.repo_id, repo_type="dataset", private=self._private, exist_ok=True)
                self._bring_first()
                self._scheduler = CommitScheduler(
                    repo_id=self.repo_id,
                    repo_type="dataset",
                    folder_path=self._folder,
                    every=self._every,
                    private=self._private,
                    allow_patterns=ALLOWED,
                    hf_api=client,
                )
            return self._scheduler

    def _bring_first(self) -> None:
        found = look(self.repo_id, MAIN, kind="dataset")
        missing = {name: text for name, text in self._first.items() if found is None or name not in found[1]}
        if missing:
            hashes = {name: bytes_hash(text) for name, text in missing.items()}
            push(Upload(self.repo_id, dict(missing), hashes, MAIN, "What the rows are", kind="dataset"))
