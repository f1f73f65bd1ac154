"""The only room that talks to the Hub: resolve to a commit, check access, download and verify, upload and verify.

Importing it imports neither the Hub's client nor torch.
"""

from __future__ import annotations

from inspo_hub.hub.client import DEFAULT_PATIENCE, HubFailure, Patience
from inspo_hub.hub.faults import Fault, classify
from inspo_hub.hub.fetch import download_size, fetch, wanted_files, weights_identity
from inspo_hub.hub.files import cache_dir, select
from inspo_hub.hub.fingerprint import bytes_hash, digest, file_hash, local_fingerprint
from inspo_hub.hub.redact import redact
from inspo_hub.hub.resolve import cached_shas, list_files, metadata, resolve
from inspo_hub.hub.types import Commit, FileHash, Kind, Pinned, RepoFile, RepoMetadata

__all__ = [
    "DEFAULT_PATIENCE",
    "Commit",
    "Fault",
    "FileHash",
    "HubFailure",
    "Kind",
    "Patience",
    "Pinned",
    "RepoFile",
    "RepoMetadata",
    "bytes_hash",
    "cache_dir",
    "cached_shas",
    "classify",
    "digest",
    "download_size",
    "fetch",
    "file_hash",
    "list_files",
    "local_fingerprint",
    "metadata",
    "redact",
    "resolve",
    "select",
    "wanted_files",
    "weights_identity",
]
