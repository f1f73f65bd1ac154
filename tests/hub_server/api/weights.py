"""What safetensors files say of themselves, read from their headers."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..accounts import check_gate
from ..errors import bad_request, entry_missing
from ..http import Request, Response
from ..store import Commit
from . import HUB

if TYPE_CHECKING:
    from ..server import HubServer


def header_of(content: bytes) -> dict[str, Any] | None:
    """The JSON header of a safetensors file; None where the file is something else."""
    if len(content) < 8:
        return None
    (length,) = struct.unpack("<Q", content[:8])
    try:
        header = json.loads(content[8 : 8 + length]) if length <= len(content) - 8 else None
    except ValueError:
        return None
    return header if isinstance(header, dict) else None


def parameters_of(commit: Commit) -> dict[str, Any] | None:
    """How many parameters of which type the weights of a commit hold, as model pages show."""
    counts: Counter[str] = Counter()
    for path, blob in commit.files.items():
        header = header_of(blob.content) if path.endswith(".safetensors") and "/" not in path else None
        for name, tensor in (header or {}).items():
            if name != "__metadata__":
                counts[tensor["dtype"]] += math.prod(tensor["shape"])
    return {"parameters": dict(counts), "total": sum(counts.values())} if counts else None


@HUB.route("GET", "/api/models/{repo}/safetensors-metadata/{path}")
def sharded_metadata(server: HubServer, request: Request, repo: str, path: str) -> Response:
    found = server.visible("model", repo, request)
    check_gate(found, request.token, server.endpoint)
    commit = server.commit_of(found, "main")
    if path not in commit.files:
        raise entry_missing(path, commit.sha)
    index = json.loads(commit.files[path].content)
    shards = sorted(set(index["weight_map"].values()))
    headers = {shard: header_of(commit.files[shard].content) for shard in shards if shard in commit.files}
    if len(headers) < len(shards) or None in headers.values():
        raise bad_request("a shard of the index is missing or is not safetensors")
    return Response.json({"index": {"metadata": index.get("metadata")}, "headers": headers})
