"""Random access to the files in an archive, which is never extracted.

A tar lays its files one after the other, each behind a header. The headers are read once; then a file is its
place and its size, and `source[indices]` costs one seek an image. That index is kept beside the archive.
"""

import dataclasses
import io
import logging
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np

from vexplain._files import read_npz, write_whole

_LOG = logging.getLogger(__name__)
_BLOCK = 512  # bytes; headers and files start at multiples of it
_FORMAT = 1  # of the index


@dataclasses.dataclass(frozen=True)
class TarMember:
    """One file in an archive."""

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    def read_bytes(self) -> bytes:
        with open(self.archive, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclasses.dataclass(frozen=True, eq=False)
class TarMembers(Sequence[TarMember]):
    """The files of an archive in the order of their names."""

    archive: Path
    names: np.ndarray  # encoded; those in an archive in the archive begin with its name
    offsets: np.ndarray  # where each begins in the archive, in bytes
    sizes: np.ndarray  # in bytes

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> TarMember: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray) -> "TarMembers": ...

    def __getitem__(self, index: int | slice | np.ndarray) -> "TarMember | TarMembers":
        columns = (self.names[index], self.offsets[index], self.sizes[index])
        if isinstance(index, slice | np.ndarray):
            return TarMembers(self.archive, *columns)
        name = bytes(columns[0]).decode("utf-8", "surrogateescape")
        return TarMember(self.archive, name, int(columns[1]), int(columns[2]))


def tar_members(
    path: str | Path, *, nested: bool = False, index_folder: str | Path | None = None
) -> TarMembers:
    """Returns the files of an uncompressed tar, to be read in any order.

    The first call reads all headers and writes `NAME.tar.index.npz`; later ones read that, as long as the
    size and the time of the archive are the same. Folders, links and hidden files are passed over.

    Args:
        path: of the archive.
        nested: whether it holds tars, whose files are wanted.
        index_folder: where to keep the index; beside the archive if left out. If it cannot be written, the
            log says so, and the next call reads the headers again.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no tar, or it is cut off.
    """
    archive = Path(path)
    if not archive.is_file():
        raise FileNotFoundError(f"path is {str(archive)!r}: there is no such file")
    status = archive.stat()
    stamp = np.array([_FORMAT, nested, status.st_size, status.st_mtime_ns])
    folder = archive.parent if index_folder is None else Path(index_folder)
    index = folder / f"{archive.name}.index.npz"
    columns = _load(index, stamp)
    if columns is None:
        columns = _scan(archive, nested)
        _store(index, stamp, columns)
    return TarMembers(archive, *columns)


def _scan(archive: Path, nested: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names, offsets and sizes of all files, read from the headers."""
    _LOG.info("reading the headers of %s, once", archive)
    try:
        with open(archive, "rb") as file:
            rows = sorted(_files(file, nested))
    except (tarfile.TarError, OSError, OverflowError, ValueError) as error:  # a size of 2**62, in a header
        raise ValueError(
            f"path is {str(archive)!r}: it is no tar, or is cut off ({error}); compare its size with the "
            "published one, and download it again"
        ) from error
    names = np.array([name.encode("utf-8", "surrogateescape") for name, _, _ in rows], np.bytes_)
    offsets, sizes = (np.array([row[column] for row in rows], np.int64) for column in (1, 2))
    return names, offsets, sizes


def _files(file: io.BufferedReader, nested: bool) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each file, or of each file in each tar."""
    for tar, outer in _members(file):
        if not nested:
            yield str(PurePosixPath(outer.name)), outer.offset_data, outer.size
        elif outer.name.endswith(".tar"):
            opened: Any = tar.extractfile(outer)
            for _, inner in _members(opened, needs_end=False):
                name = f"{PurePosixPath(outer.name)}".removesuffix(".tar") + f"/{PurePosixPath(inner.name)}"
                yield name, outer.offset_data + inner.offset_data, inner.size


def _members(
    file: io.BufferedReader, *, needs_end: bool = True
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The files of a tar that are not hidden. It ends with a block of zeros, else it has been cut off."""
    end = 0
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK * member.isreg()
            if member.isreg() and not PurePosixPath(member.name).name.startswith("."):
                yield tar, member
    file.seek(end)
    block = file.read(_BLOCK)
    if block != bytes(_BLOCK) and (needs_end or block):
        raise tarfile.ReadError(f"it should go on or end after {end} bytes")


def _load(index: Path, stamp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The columns of a stored index, if there is one for this archive."""
    try:
        stored = read_npz(index)
        if np.array_equal(stored["stamp"], stamp):
            return stored["names"], stored["offsets"], stored["sizes"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:
        _LOG.warning("%s is broken and will be written again: %s", index, error)
    return None


def _store(index: Path, stamp: np.ndarray, columns: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    content = io.BytesIO()
    names, offsets, sizes = columns
    np.savez(content, stamp=stamp, names=names, offsets=offsets, sizes=sizes)
    try:
        write_whole(index, content.getvalue())
    except OSError as error:
        _LOG.warning("%s cannot be written (%s): pass index_folder= to keep the index", index, error)
