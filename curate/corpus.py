"""
A corpus as its shards: which files, in which order, under which names.

Corpora stand in the order given; inside one, paths are sorted by their bytes. Folders are read
recursively, names that begin with a dot are skipped. A shard's name, the `shard` of every locator,
is its path relative to the corpora's common parent.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import pyarrow.fs as pafs

from curate.errors import ShardError

MAGIC = re.compile(r"[*?\[]")
SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")

CODECS = {".gz": "gzip", ".zst": "zstd"}
"""How a file of JSON Lines is packed, by the end of its name."""

JSON_LINES = tuple(name + packed for name in (".jsonl", ".ndjson") for packed in ("", *CODECS))
"""The ends of the names of files that are JSON Lines."""

SUFFIXES = (".parquet", *JSON_LINES)
"""The ends of the names of shards."""

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Words that name a split in a file's or folder's name, as the Hugging Face loaders read them."""


@dataclass(frozen=True, slots=True)
class Shard:
    """
    One file, of Parquet unless its name says that it is JSON Lines.

    `path` is what a user would type, `key` what its file system calls it.
    """

    name: str
    path: str
    key: str
    size: int
    filesystem: Any  # pyarrow.fs.FileSystem

    @property
    def is_json(self) -> bool:
        """Whether it is JSON Lines."""
        return self.key.endswith(JSON_LINES)

    @property
    def codec(self) -> str | None:
        """How it is packed as a whole, None if it is not."""
        packed = (CODECS[end] for end in CODECS if self.key.endswith(end))
        return next(packed, None) if self.is_json else None


@dataclass(frozen=True, slots=True)
class Corpus:
    """The shards of all corpora, in order; `other_files` counts what is none in folders."""

    shards: tuple[Shard, ...]
    other_files: int


@dataclass(frozen=True, slots=True)
class _Place:
    """One CORPUS argument: where it stands, what it holds, and what its names are relative to."""

    given: str
    filesystem: Any
    parent: str
    files: tuple[Any, ...]  # pyarrow.fs.FileInfo
    is_file: bool


def find_corpus(corpora: Sequence[str], *, split: str | None = None) -> Corpus:
    """
    The shards of files, folders, globs and URLs.

    Raises ShardError where a path holds no shards, where two corpora share a file, and where
    folders hold several splits and none was asked for.
    """
    places = [_open_place(given) for given in corpora]
    parent = _common_parent(places)
    shards, others = [], 0
    for place in places:
        found = [info for info in place.files if place.is_file or info.path.endswith(SUFFIXES)]
        others += len(place.files) - len(found)
        if not found:
            count = _count(place.files)
            what = f"expected .parquet or .jsonl files, found {count}"
            raise ShardError(f"{redacted(place.given)}: {what}")
        found.sort(key=lambda info: os.fsencode(info.path))
        chosen = found if place.is_file else _of_split(place, found, split)
        shards += [_shard(place, info, parent) for info in chosen]
    _check_distinct(shards)
    return Corpus(tuple(shards), others)


def redacted(given: str) -> str:
    """A URL without the keys that it may hold: they are nobody else's to read or keep."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/@]*@", r"\1", given)


def _common_parent(places: Sequence[_Place]) -> str | None:
    """The folder that all names are relative to; None if the corpora stand on different hosts."""
    if len({place.filesystem.type_name for place in places}) > 1:
        return None
    return os.path.commonpath([place.parent for place in places])


def _shard(place: _Place, info: Any, parent: str | None) -> Shard:
    path = _as_typed(place.given, info.path)
    if info.type != pafs.FileType.File:
        raise ShardError(f"{path}: expected a file, found a link to nothing or a special file")
    name = info.path.lstrip("/") if parent is None else os.path.relpath(info.path, parent)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ShardError(f"{path}: expected a name in UTF-8, as it stands in the output") from None
    return Shard(name, path, info.path, info.size, place.filesystem)


def _open_place(given: str) -> _Place:
    if not given:
        raise ShardError("CORPUS: expected a path, found nothing")
    try:
        filesystem, path = _filesystem(given)
        magic = MAGIC.search(path)
        if magic and filesystem.get_file_info(path).type == pafs.FileType.NotFound:
            parent = os.path.dirname(path[: magic.start()])
            pattern = PurePosixPath(path[len(parent) :].lstrip("/")).parts
            files = [
                info
                for info in _files(filesystem, parent)
                if _match_parts(_parts(info.path, parent), pattern)
            ]
            return _Place(given, filesystem, parent, tuple(files), False)
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            return _Place(given, filesystem, os.path.dirname(path), (info,), True)
        if info.type == pafs.FileType.Directory:
            return _Place(given, filesystem, path, tuple(_files(filesystem, path)), False)
    except Exception as error:  # a remote file system may raise anything
        raise ShardError(f"{redacted(given)}: cannot be listed: {_one_line(error)}") from error
    raise ShardError(f"{redacted(given)}: no such file or folder")


def reopen(name: str, path: str) -> Shard:
    """A shard again, by the name and path that it had. Raises ShardError if it is gone."""
    place, _, query = path.partition("?") if SCHEME.match(path) else (path, "", "")
    folder, _, base = place.rpartition("/")
    try:
        filesystem, parent = _filesystem(f"{folder or '/'}?{query}" if query else folder or "/")
        info = filesystem.get_file_info(f"{parent.rstrip('/')}/{base}")
    except Exception as error:  # a remote file system may raise anything
        raise ShardError(f"{path}: cannot be opened: {_one_line(error)}") from error
    if info.type != pafs.FileType.File:
        raise ShardError(f"{path}: no such file; it was there when it was scanned")
    return Shard(name, path, info.path, info.size, filesystem)


@lru_cache(maxsize=64)
def _filesystem(given: str) -> tuple[Any, str]:
    if SCHEME.match(given):
        filesystem, path = pafs.FileSystem.from_uri(given)
        return filesystem, path.rstrip("/")
    return pafs.LocalFileSystem(), os.path.abspath(given)


def _as_typed(given: str, key: str) -> str:
    scheme = SCHEME.match(given)
    if scheme is None:
        return key
    query = given.partition("?")[2]
    return scheme[0] + key + (f"?{query}" if query else "")


def _files(filesystem: Any, folder: str) -> list[Any]:
    if filesystem.type_name == "local":
        found = filesystem.get_file_info(_local_paths(folder))
    else:
        selector = pafs.FileSelector(folder, recursive=True, allow_not_found=True)
        found = filesystem.get_file_info(selector)
    return [
        info
        for info in found
        if (info.type == pafs.FileType.File or _is_odd_shard(info))
        and not any(part.startswith(".") for part in _parts(info.path, folder))
    ]


def _local_paths(folder: str) -> list[str]:
    """All files below a folder. Links are followed, no folder twice; one to nothing is listed."""
    paths, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        paths += [os.path.join(parent, name) for name in files]
    return paths


def _is_odd_shard(info: Any) -> bool:
    """What has a shard's name and is no file is an error later on, not passed over."""
    return bool(info.type != pafs.FileType.Directory and info.path.endswith(SUFFIXES))


def _parts(path: str, parent: str) -> tuple[str, ...]:
    return PurePosixPath(path[len(parent) :].lstrip("/")).parts


def _match_parts(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a glob matches, part by part; `**` stands for any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_match_parts(parts[n:], pattern[1:]) for n in range(len(parts) + 1))
    return (
        bool(parts) and fnmatchcase(parts[0], pattern[0]) and _match_parts(parts[1:], pattern[1:])
    )


def _of_split(place: _Place, files: list[Any], split: str | None) -> list[Any]:
    splits: dict[str, list[Any]] = {}
    for info in files:
        splits.setdefault(_split_of(_parts(info.path, place.parent)), []).append(info)
    named = sorted(set(splits) - {""})
    if split is None:
        if len(named) > 1:
            counts = ", ".join(f"{name} ({_count(splits[name])})" for name in named)
            raise ShardError(
                f"{redacted(place.given)}: holds several splits: {counts}; choose with --split"
            )
        return files
    if SPLITS.get(split, split) not in splits:
        found = ", ".join(named) or "no named split"
        raise ShardError(f"{redacted(place.given)}: no files of split `{split}`, found {found}")
    return splits[SPLITS.get(split, split)]


def _split_of(parts: Sequence[str]) -> str:
    """The split that a file's name or one of its folders names, or an empty string."""
    numbered = re.match(r"(.+)-\d{5}-of-\d{5}\.", parts[-1])
    if numbered and parts[-1][numbered.end() - 1 :] in SUFFIXES:
        return SPLITS.get(numbered[1], numbered[1])
    for part in reversed(parts):
        for word in re.split(r"[-._ 0-9]+", part):
            if word in SPLITS:
                return SPLITS[word]
    return ""


def _check_distinct(shards: Iterable[Shard]) -> None:
    seen: set[tuple[str, str]] = set()
    for shard in shards:
        place = (shard.filesystem.type_name, shard.key)
        if place in seen:
            raise ShardError(f"{shard.path}: given twice")
        seen.add(place)


def _count(files: Sequence[Any]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files):,} files"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
