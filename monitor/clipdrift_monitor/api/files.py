"""The files of versions, for jobs that share no folder with the monitor: read whole, and taken whole or not at all."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import RunEnd
from clipdrift_contract.files import lock_file
from clipdrift_contract.version_files import DESCRIPTIONS, file_at

MAX_FILE_BYTES = 2 << 30
MAX_FILES = 64
"""Of a version; a model, its weights, its card and signatures are some ten."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_CHUNK_BYTES = 1 << 20


class UnknownFileError(LookupError):
    """There is no such file; the message says what there is."""


class FileConflictError(ClipdriftError):
    """Another content is there under this name, and a version never changes."""


class BrokenFileError(ClipdriftError):
    """What came is not what was announced; nothing was kept."""


class VersionFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a version."""

    name: str
    num_bytes: int
    sha256: str


class VersionFiles(msgspec.Struct, frozen=True, kw_only=True):
    """All files of a version, by name."""

    items: tuple[VersionFile, ...]


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """Where a file is now."""

    uri: str


def folder_of(run: RunEnd) -> Path:
    """Where the files of a version lie.

    Raises:
        UnknownFileError: They are not on this machine.
    """
    folder = file_at(run.artifact_uri).parent
    if urlsplit(run.artifact_uri).scheme != "file" or not folder.is_dir():
        raise UnknownFileError(f"the files of {run.model} {run.version} are not here: its model is at {run.artifact_uri}")
    return folder


def list_files(folder: Path) -> VersionFiles:
    """What a version consists of."""
    paths = sorted(path for path in folder.iterdir() if is_name(path.name) and path.is_file() and not path.is_symlink())
    return VersionFiles(
        items=tuple(VersionFile(name=path.name, num_bytes=path.stat().st_size, sha256=_sha256(path)) for path in paths)
    )


def path_of(folder: Path, name: str) -> Path:
    """The file `name` of a version.

    Raises:
        UnknownFileError: There is none.
    """
    path = folder / name
    if not is_name(name) or not path.is_file() or path.is_symlink():
        there = ", ".join(one.name for one in list_files(folder).items)
        raise UnknownFileError(f"there is no file {name[:200]!r} in {folder.name}; there are: {there}")
    return path


def is_name(name: str) -> bool:
    """Whether a version may have a file of this name.

    Example:
        >>> is_name("model.onnx"), is_name("../model.onnx"), is_name(".hidden"), is_name("a.partial")
        (True, False, False, False)
    """
    return _NAME.fullmatch(name) is not None and ".partial" not in name


def is_version(version: str) -> bool:
    """Whether a version may be called so: it becomes a folder."""
    return _VERSION.fullmatch(version) is not None


class Incoming:
    """A file that is coming in, piece by piece. A context manager; what is not kept at its end is gone.

    Args:
        folder: Of the version; made where it is missing.
        name: Of the file.
        sha256: What it must come to, as hexadecimal digits.

    Raises:
        FileConflictError: The version has files enough, or another job hands in the same file.
    """

    def __init__(self, folder: Path, name: str, sha256: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / name
        self._partial = folder / f"{name}.partial"
        self._expected = sha256
        self._told = hashlib.sha256()
        self._num_bytes = 0
        if not self._path.exists() and sum(is_name(path.name) for path in folder.iterdir()) >= MAX_FILES:
            raise FileConflictError(f"a version has at most {MAX_FILES} files; {folder.name} has them")
        handle = lock_file(self._partial)
        if handle is None:
            raise FileConflictError(f"{name} of {folder.name} is being handed in already")
        os.ftruncate(handle, 0)
        self._file: BinaryIO = os.fdopen(handle, "wb")

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)
        self._file.close()

    def write(self, piece: bytes) -> None:
        """Take a piece.

        Raises:
            BrokenFileError: The file is larger than allowed.
        """
        self._num_bytes += len(piece)
        if self._num_bytes > MAX_FILE_BYTES:
            raise BrokenFileError(f"a file has at most {MAX_FILE_BYTES} bytes; this one has more")
        self._told.update(piece)
        self._file.write(piece)

    def keep(self) -> StoredFile:
        """Put it in its place.

        What describes the version (card, bill of materials, signature) is replaced: a job that is begun again measures anew.
        The model, and what it was made of, never changes.

        Raises:
            BrokenFileError: It is not what was announced.
            FileConflictError: Another content is there.
        """
        if self._told.hexdigest() != self._expected:
            raise BrokenFileError(
                f"{self._path.name} came with digest {self._told.hexdigest()}, announced was {self._expected}; nothing is kept"
            )
        if self._path.exists() and self._path.name not in DESCRIPTIONS:
            if _sha256(self._path) != self._expected:
                raise FileConflictError(
                    f"{self._path.parent.name} has another {self._path.name} already, and a version never changes"
                )
        else:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._partial.replace(self._path)
        return StoredFile(uri=self._path.resolve().as_uri())


def _sha256(path: Path) -> str:
    told = hashlib.sha256()
    for piece in pieces_of(path):
        told.update(piece)
    return told.hexdigest()


def pieces_of(path: Path) -> Iterator[bytes]:
    """A file's content, a mebibyte at a time."""
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece
