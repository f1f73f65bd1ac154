"""The two binary formats of Xet storage, read as its public specification describes them.

A xorb is a row of chunks, each a header of 8 bytes and its data, stored plain or as an LZ4 frame. A shard says of which
chunks of which xorbs each file consists, in records of 48 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

RECORD = 48
_BOOKEND = b"\xff" * 32
_HAS_VERIFICATION, _HAS_METADATA = 1 << 31, 1 << 30


class BadFormat(ValueError):
    """What was sent is not what it should be."""


def hash_text(raw: bytes) -> str:
    """A hash as text: four numbers of 64 bits, little-endian."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


@dataclass(frozen=True)
class Term:
    """A run of chunks of one xorb, from `start` to before `end`."""

    xorb: str
    start: int
    end: int


@dataclass(frozen=True)
class Chunk:
    """Where a chunk lies in its xorb, header included, and how long its content is."""

    at: int
    stored: int
    scheme: int
    length: int


class Xorb:
    """The chunks of a xorb; a footer after them, which clients may send, is left alone."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @cached_property
    def chunks(self) -> list[Chunk]:
        found, at = [], 0
        while at + 8 <= len(self.raw) and self.raw[at] == 0 and self.raw[at : at + 7] != b"XETBLOB":
            stored = int.from_bytes(self.raw[at + 1 : at + 4], "little")
            length = int.from_bytes(self.raw[at + 5 : at + 8], "little")
            if at + 8 + stored > len(self.raw):
                raise BadFormat("a chunk ends after its xorb")
            found.append(Chunk(at, 8 + stored, self.raw[at + 4], length))
            at += 8 + stored
        if not found:
            raise BadFormat("a xorb without chunks")
        return found

    def content(self, chunk: Chunk) -> bytes:
        data = self.raw[chunk.at + 8 : chunk.at + chunk.stored]
        if chunk.scheme not in (0, 1, 2):
            raise BadFormat(f"unknown compression {chunk.scheme}")
        content = data if chunk.scheme == 0 else unpack_lz4(data)
        content = ungroup(content) if chunk.scheme == 2 else content
        if len(content) != chunk.length:
            raise BadFormat(f"a chunk of {len(content)} bytes that should have {chunk.length}")
        return content


def files_of_shard(raw: bytes) -> Iterator[tuple[str, list[Term]]]:
    """The hash of each file that a shard registers, and the terms of which it consists."""
    at = RECORD  # the header
    while True:
        head = raw[at : at + RECORD]
        if len(head) < RECORD:
            raise BadFormat("a shard that ends before its bookend")
        if head[:32] == _BOOKEND:
            return
        flags, entries = struct.unpack("<2I", head[32:40])
        terms = []
        for number in range(1, entries + 1):
            record = raw[at + number * RECORD : at + (number + 1) * RECORD]
            _, _, start, end = struct.unpack("<4I", record[32:])
            terms.append(Term(hash_text(record[:32]), start, end))
        yield hash_text(head[:32]), terms
        at += RECORD * (1 + entries + (entries if flags & _HAS_VERIFICATION else 0) + bool(flags & _HAS_METADATA))


def ungroup(grouped: bytes) -> bytes:
    """Bytes that were sorted by their place in groups of four, back in their order."""
    content, at = bytearray(len(grouped)), 0
    for place in range(4):
        size = len(range(place, len(grouped), 4))
        content[place::4] = grouped[at : at + size]
        at += size
    return bytes(content)


def unpack_lz4(frame: bytes) -> bytes:
    """The content of an LZ4 frame; its checksums are not looked at."""
    if frame[:4] != b"\x04\x22\x4d\x18":
        raise BadFormat("not an LZ4 frame")
    flags = frame[4]
    at = 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    content = bytearray()
    while size := int.from_bytes(frame[at : at + 4], "little"):
        at += 4
        block = frame[at : at + (size & 0x7FFFFFFF)]
        at += len(block) + (4 if flags & 16 else 0)
        if size >> 31:
            content += block
        else:
            _unpack_block(block, content)
    return bytes(content)


def _unpack_block(block: bytes, content: bytearray) -> None:
    """Append a block's content: runs of literals, each followed by a copy of what came before."""
    at = 0

    def length(base: int) -> int:
        nonlocal at
        total = base
        if base == 15:
            while (more := block[at]) == 255:
                total, at = total + 255, at + 1
            total, at = total + more, at + 1
        return total

    while at < len(block):
        token = block[at]
        at += 1
        literals = length(token >> 4)
        content += block[at : at + literals]
        at += literals
        if at >= len(block):
            return  # the last run has no copy
        distance = int.from_bytes(block[at : at + 2], "little")
        at += 2
        size = length(token & 15) + 4
        start = len(content) - distance
        if distance == 0 or start < 0:
            raise BadFormat("a copy from before the start")
        piece = content[start : start + size]
        content += (piece * (size // len(piece) + 1))[:size]
