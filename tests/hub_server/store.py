"""What a repository is: files by content, commits with parents, branches, tags and pull requests.

Object ids are git's own (blob, tree, commit: sha1 of the object) and LFS's (sha256 of the bytes), so that a client that
compares local hashes with remote ones compares the same numbers as on the production Hub.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

LFS_PATTERNS = re.findall(
    r"\S+",
    """
    *.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz
    *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors *.tar *.tar.* *.tflite *.tgz
    *.wasm *.xz *.zip *.zst *tfevents*
    """,
)
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()
LFS_FROM_BYTES = 10 * 1024 * 1024  # above this size the Hub takes no file through git
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # commits are one second apart, so that histories sort and runs repeat


def git_oid(kind: str, body: bytes) -> str:
    """The sha1 that git gives an object of this kind (`git hash-object -t <kind>`)."""
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Blob:
    """The bytes of one file and both names that the Hub gives them."""

    content: bytes
    lfs: bool
    sha256: str
    oid: str  # git's id of what git stores: the bytes, or the LFS pointer to them
    pointer_size: int

    @classmethod
    def of(cls, content: bytes, *, lfs: bool) -> Blob:
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
        return cls(content, lfs, sha256, git_oid("blob", pointer if lfs else content), len(pointer))

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: the whole tree as a mapping from path to blob, and where it came from."""

    sha: str
    parent: str | None
    files: Mapping[str, Blob]
    title: str
    description: str
    author: str
    date: datetime


@dataclass(slots=True)
class PullRequest:
    """A discussion; with a head (`refs/pr/N`) where it is a pull request."""

    number: int
    title: str
    author: str
    created: datetime
    is_pull_request: bool
    status: str = "open"
    events: list[dict[str, object]] = field(default_factory=list)
    merge_commit: str | None = None


class Tree:
    """Files and folders of one commit, with git's ids for the folders."""

    def __init__(self, files: Mapping[str, Blob]) -> None:
        self.files = dict(files)
        self.children: dict[str, set[str]] = {"": set()}
        for path in files:
            for folder in _folders_of(path):
                self.children.setdefault(folder, set())
            parts = path.split("/")
            for depth in range(len(parts)):
                self.children["/".join(parts[:depth])].add("/".join(parts[: depth + 1]))
        self._oids: dict[str, str] = {}

    def is_folder(self, path: str) -> bool:
        return path in self.children

    def oid(self, folder: str = "") -> str:
        """Git's id of a folder: entries sorted as git sorts them (folders as if they ended in a slash)."""
        if folder not in self._oids:
            entries = []
            for path in self.children[folder]:
                name = posixpath.basename(path).encode()
                if self.is_folder(path):
                    entries.append((name + b"/", b"40000 " + name, self.oid(path)))
                else:
                    entries.append((name, b"100644 " + name, self.files[path].oid))
            body = b"".join(head + b"\0" + bytes.fromhex(oid) for _, head, oid in sorted(entries))
            self._oids[folder] = git_oid("tree", body)
        return self._oids[folder]

    def walk(self, folder: str, *, recursive: bool) -> Iterator[str]:
        """Paths under a folder, folders before what they hold, in the order of their names."""
        for path in sorted(self.children[folder]):
            yield path
            if recursive and self.is_folder(path):
                yield from self.walk(path, recursive=True)


class Repo:
    """One repository of the server: refs, commits, and who may see it."""

    def __init__(self, kind: str, name: str, *, private: bool, gated: str | bool, clock: Iterator[int]) -> None:
        self.kind, self.name, self.private, self.gated = kind, name, private, gated
        self.commits: dict[str, Commit] = {}
        self.refs: dict[str, str] = {}  # "refs/heads/main" -> sha
        self.tag_messages: dict[str, str] = {}
        self.discussions: dict[int, PullRequest] = {}
        self.access: set[str] = set()  # users let through the gate
        self.requests: dict[str, datetime] = {}  # users who asked
        self.settings: dict[str, object] = {}  # what a Space's endpoints keep: sdk, variables, secrets, hardware
        self.uploaded: set[str] = set()  # sha256 of LFS objects that this repository may point to
        self._clock = clock
        self.created = self._now()

    def _now(self) -> datetime:
        return EPOCH + timedelta(seconds=next(self._clock))

    @property
    def prefix(self) -> str:
        return "" if self.kind == "model" else f"{self.kind}s/"

    @property
    def namespace(self) -> str:
        return self.name.split("/")[0]

    def resolve(self, revision: str) -> Commit | None:
        """The commit of a branch, tag, full ref, sha, or first digits of a sha; None where there is none."""
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        if len(revision) >= 7:
            found = [commit for sha, commit in self.commits.items() if sha.startswith(revision)]
            return found[0] if len(found) == 1 else None
        return None

    def ref_to_write(self, revision: str) -> str | None:
        """The full name of the branch or pull request that a commit to this revision moves, or None."""
        ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        return ref if ref in self.refs and not ref.startswith("refs/tags/") else None

    def history(self, sha: str | None) -> Iterator[Commit]:
        while sha is not None:
            commit = self.commits[sha]
            yield commit
            sha = commit.parent

    def lfs_attributes(self, files: Mapping[str, Blob]) -> list[str]:
        """The patterns of .gitattributes whose files git keeps as LFS pointers."""
        attributes = files[".gitattributes"].content.decode() if ".gitattributes" in files else ""
        return [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]

    def wants_lfs(self, path: str, size: int, sample: bytes, files: Mapping[str, Blob]) -> bool:
        """Whether the Hub takes this file as LFS: by .gitattributes, by size, or because it is not text."""
        name = posixpath.basename(path)
        matched = any(
            fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(path, pattern)
            for pattern in self.lfs_attributes(files)
        )
        return size > 0 and (matched or size > LFS_FROM_BYTES or b"\0" in sample)

    def commit(
        self, ref: str, files: Mapping[str, Blob], *, title: str, description: str = "", author: str, parent: str | None
    ) -> Commit:
        """Write a commit of exactly these files and point `ref` at it."""
        date = self._now()
        stamp = f"{author} <{author}@users.noreply> {int(date.timestamp())} +0000"
        lines = [f"tree {Tree(files).oid()}", *([f"parent {parent}"] if parent else []), f"author {stamp}"]
        body = "\n".join([*lines, f"committer {stamp}", "", title, "", description, ""])
        commit = Commit(git_oid("commit", body.encode()), parent, dict(files), title, description, author, date)
        self.commits[commit.sha] = commit
        self.refs[ref] = commit.sha
        return commit

    def next_discussion(self, title: str, author: str, *, is_pull_request: bool) -> PullRequest:
        number = next(n for n in itertools.count(1) if n not in self.discussions)
        discussion = PullRequest(number, title, author, self._now(), is_pull_request)
        self.discussions[number] = discussion
        return discussion


def _folders_of(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
