"""The only room that talks to the Hub: resolve to a commit, check access, download and verify, upload and verify.

Importing it imports neither the Hub's client nor torch.
"""

from __future__ import annotations

from inspo_hub.hub.checkpoints import HubCheckpoint, download_checkpoint, latest_checkpoint
from inspo_hub.hub.client import DEFAULT_PATIENCE, HubFailure, Patience, has_token, repo_url
from inspo_hub.hub.collections import CollectionItem, gather
from inspo_hub.hub.faults import Fault, classify, client_errors
from inspo_hub.hub.fetch import (
    download_size,
    fetch,
    fetch_files,
    fetch_run,
    wanted_files,
    weight_files,
    weights_identity,
)
from inspo_hub.hub.files import PICKLE_SUFFIXES, cache_dir, is_weight_file, select, write_bytes, write_json
from inspo_hub.hub.fingerprint import bytes_hash, digest, file_hash, local_fingerprint
from inspo_hub.hub.inference import ChatAnswer, ChatEndpoint, ChatPart
from inspo_hub.hub.jobs import (
    TOKEN_SECRET,
    Job,
    JobRequest,
    cancel_job,
    find_jobs,
    job_lines,
    look_at_job,
    missing_secrets,
    start_job,
)
from inspo_hub.hub.preflight import DiskNeed, WriteTarget, card_problems, preflight, refuse
from inspo_hub.hub.push import Upload, find_pull_request, look, open_pull_request, pull_request_ref, push, push_folder
from inspo_hub.hub.redact import redact
from inspo_hub.hub.remote import READ_AHEAD, hardware, local_file, open_file, read_range, safetensors_header
from inspo_hub.hub.resolve import cached_shas, list_files, metadata, resolve
from inspo_hub.hub.schedule import ScheduledCommits
from inspo_hub.hub.spaces import set_space_secret, space_secrets
from inspo_hub.hub.types import Commit, FileHash, Hardware, Kind, Pinned, RepoFile, RepoMetadata

__all__ = [
    "DEFAULT_PATIENCE",
    "PICKLE_SUFFIXES",
    "READ_AHEAD",
    "TOKEN_SECRET",
    "ChatAnswer",
    "ChatEndpoint",
    "ChatPart",
    "CollectionItem",
    "Commit",
    "DiskNeed",
    "Fault",
    "FileHash",
    "Hardware",
    "HubCheckpoint",
    "HubFailure",
    "Job",
    "JobRequest",
    "Kind",
    "Patience",
    "Pinned",
    "RepoFile",
    "RepoMetadata",
    "ScheduledCommits",
    "Upload",
    "WriteTarget",
    "bytes_hash",
    "cache_dir",
    "cached_shas",
    "cancel_job",
    "card_problems",
    "classify",
    "client_errors",
    "digest",
    "download_checkpoint",
    "download_size",
    "fetch",
    "fetch_files",
    "fetch_run",
    "file_hash",
    "find_jobs",
    "find_pull_request",
    "gather",
    "hardware",
    "has_token",
    "is_weight_file",
    "job_lines",
    "latest_checkpoint",
    "list_files",
    "local_file",
    "local_fingerprint",
    "look",
    "look_at_job",
    "metadata",
    "missing_secrets",
    "open_file",
    "open_pull_request",
    "preflight",
    "pull_request_ref",
    "push",
    "push_folder",
    "read_range",
    "redact",
    "refuse",
    "repo_url",
    "resolve",
    "safetensors_header",
    "select",
    "set_space_secret",
    "space_secrets",
    "start_job",
    "wanted_files",
    "weight_files",
    "weights_identity",
    "write_bytes",
    "write_json",
]
