"""Looks into files without downloading them: byte ranges, safetensors headers; and the Hub's price list."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from inspo_hub.errors import ResolutionError
from inspo_hub.hub.client import ONCE, HubFailure, Patience, api, call, resolution_error
from inspo_hub.hub.types import Hardware, Pinned

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_AHEAD = 2**20
"""Bytes that a first or a following read of a remote file asks for at least: a request costs more than a megabyte."""
MAX_HEADER = 100_000_000
"""The format's own limit for the header of a safetensors file."""
RANGE_S = 30.0
PRICES_S = 5.0


def read_range(pinned: Pinned, path: str, start: int, stop: int, *, patience: Patience = ONCE) -> bytes:
    """Bytes [start, stop) of a pinned file, fewer at its end; from the disk or the cache where it is there."""
    local = local_file(pinned, path)
    if local is not None:
        with local.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)
    try:
        return call(lambda: _request(pinned, path, start, stop), patience=patience)
    except HubFailure as failure:
        raise resolution_error(
            failure.fault, kind=pinned.kind, repo_id=pinned.id, doing=f"reading a part of {path}", sha=pinned.sha
        ) from None


def local_file(pinned: Pinned, path: str) -> Path | None:
    """The pinned file on this disk: in the local folder, or in the client's cache; None where it is not there."""
    if pinned.path is not None:
        return pinned.path / path if pinned.path.is_dir() else pinned.path
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(pinned.id, path, revision=pinned.sha, repo_type=pinned.kind)
    return Path(found) if isinstance(found, str) else None


def _request(pinned: Pinned, path: str, start: int, stop: int) -> bytes:
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    client = api()
    url = hf_hub_url(pinned.id, path, repo_type=pinned.kind, revision=pinned.sha, endpoint=client.endpoint)
    headers = {**build_hf_headers(library_name="inspo_hub"), "range": f"bytes={start}-{stop - 1}"}
    response = get_session().get(url, headers=headers, timeout=RANGE_S, follow_redirects=True)
    if response.status_code == 416:  # behind the end of the file
        return b""
    hf_raise_for_status(response)
    content: bytes = response.content
    return content if response.status_code == 206 else content[start:stop]


class _RemoteFile(io.RawIOBase):
    """A pinned file of known size, read by ranges."""

    def __init__(self, pinned: Pinned, path: str, size: int) -> None:
        self.pinned, self.path, self.size, self.at = pinned, path, size, 0
        self.fetched = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        stop = min(self.size, self.at + len(buffer))
        if stop <= self.at:
            return 0
        content = read_range(self.pinned, self.path, self.at, stop)
        buffer[: len(content)] = content
        self.at += len(content)
        self.fetched += len(content)
        return len(content)


def open_file(pinned: Pinned, path: str, size: int) -> BinaryIO:
    """A seekable file of a pinned repository or folder, of which no more is fetched than is read."""
    local = local_file(pinned, path)
    if local is not None:
        return local.open("rb")
    # The end of a parquet file is read first, its beginning never as a whole: the buffer is the read-ahead.
    return io.BufferedReader(_RemoteFile(pinned, path, size), READ_AHEAD)


def safetensors_header(pinned: Pinned, path: str) -> dict[str, Any]:
    """Tensor name -> {dtype, shape, data_offsets} of one file, without its tensors and without `__metadata__`."""
    where = f"{pinned.kind} {pinned}, {path}"
    start = read_range(pinned, path, 0, READ_AHEAD)
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if not 0 < length <= MAX_HEADER:
        raise _broken_header(where, "its first bytes give no length of a header")
    text = start[8 : 8 + length]
    if len(text) < length:
        text += read_range(pinned, path, 8 + len(text), 8 + length)
    try:
        header = json.loads(text)
        return {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    except (ValueError, AttributeError) as error:
        raise _broken_header(where, str(error)) from error


def _broken_header(where: str, why: str) -> ResolutionError:
    return ResolutionError(
        f"this is no safetensors file: {why}",
        where=where,
        expected="weights in the safetensors format",
        fix="choose another revision; where the file lies on this disk, download it again",
    )


def hardware() -> list[Hardware] | None:
    """The machines of the Hub's Jobs with their prices, as the client lists them now; None where it cannot be asked.

    A plan without the Hub is a plan all the same: this waits for seconds, tries once, and never raises for a Hub that
    is away.
    """
    from huggingface_hub import get_session

    client = api()
    if not hasattr(client, "list_jobs_hardware"):
        return None
    session = get_session()
    before = session.timeout
    session.timeout = PRICES_S
    try:
        listed = call(client.list_jobs_hardware, patience=ONCE)
    except (HubFailure, KeyError, TypeError):  # the last two: a list of another form than this client knows
        return None
    finally:
        session.timeout = before
    return list(_hardware(listed))


def _hardware(listed: list[Any]) -> Iterator[Hardware]:
    for one in listed:
        gpu = one.accelerator
        yield Hardware(
            name=one.name,
            cpu=str(one.cpu),
            ram=str(one.ram),
            disk=str(one.ephemeral_storage),
            usd_per_unit=float(one.unit_cost_usd),
            unit=one.unit_label,
            accelerator=gpu.model if gpu else "",
            accelerator_type=gpu.type if gpu else "",
            accelerators=int(gpu.quantity) if gpu else 0,
            vram=str(gpu.vram) if gpu else "",
        )
