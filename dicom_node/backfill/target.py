"""Where an archive's objects go: a folder, or a node's hatch."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol

from dicom_node.durable import make_folder, sync_folder
from dicom_node.errors import BackfillError, SourceError
from dicom_node.mapped import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicom_node.hatch import Hatch


_PART: Final = re.compile(r"\.[0-9a-f]{32}\.miadmark-part")
"""The names of what is not whole yet."""
_OF_ONE: Final = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ}
)
"""What is wrong with one name: it is too long, or the file of one object is the folder of
another, as keys of a bucket may be."""


class Target(Protocol):
    """What takes the outputs."""

    @property
    def address(self) -> str:
        """Return what it is called in manifests: the same for the same, no secrets."""
        ...

    def put(self, name: str, file: Path) -> None:
        """Write ``file`` there; durable when this returns. What has its name is replaced.

        Raises:
            SourceError: The target cannot be used just now.
            NodeError: It cannot take a file of that name.
        """
        ...

    def get(self, name: str, to: Path) -> None:
        """Read back what was put there, into the file ``to``.

        Raises:
            SourceError: It cannot be read.
        """
        ...

    def remove(self, name: str) -> None:
        """Take away what was put there.

        Raises:
            SourceError: It cannot be.
        """
        ...


def plain(name: str) -> PurePosixPath:
    """Return a name from outside as a path that leads nowhere else.

    Raises:
        BackfillError: It would, or cannot be the name of a file.
    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
        raise BackfillError(
            "its name cannot be that of a file here",
            hint="Empty parts, dots alone and control characters are refused.",
        )
    return PurePosixPath(name)


class FolderTarget:
    """Files in a folder, below the names that they have at the source."""

    def __init__(self, folder: Path) -> None:
        """Keep where it is; it is made when something is put there."""
        self._folder = folder.resolve()

    @property
    def address(self) -> str:
        """Return its path."""
        return str(self._folder)

    def put(self, name: str, file: Path) -> None:
        """Write a file beside its name, sync it, and give it its name."""
        path = self._folder / plain(name)
        if _PART.fullmatch(path.name):
            raise BackfillError(
                "it has the name of what is half written here",
                hint="A run that was killed has left it there: it is no object.",
            )
        # The same for each run: what a run that was killed has left is overwritten. No
        # longer than others, as a name may be as long as a name can be.
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
        part = path.with_name(f".{digest[:32]}.miadmark-part")
        try:
            make_folder(path.parent)
            with file.open("rb") as stream, part.open("wb") as copy:
                while piece := stream.read(CHUNK):
                    copy.write(piece)
                copy.flush()
                os.fsync(copy.fileno())
            part.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            if error.errno in _OF_ONE and self._folder.is_dir():
                raise BackfillError(
                    f"no file here can have its name: {error.strerror}"
                ) from error
            raise _unusable(self._folder, error) from error

    def get(self, name: str, to: Path) -> None:
        """Copy a file."""
        try:
            with (
                (self._folder / plain(name)).open("rb") as stream,
                to.open("xb") as copy,
            ):
                while piece := stream.read(CHUNK):
                    copy.write(piece)
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def remove(self, name: str) -> None:
        """Delete a file."""
        path = self._folder / plain(name)
        try:
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise _unusable(self._folder, error) from error


class HatchTarget:
    """The hatch of a node: what is put there is the node's to mark, and to lose.

    An object that is put there twice, because a run was killed in between, is owed once:
    the node knows it by its bytes.
    """

    def __init__(self, hatch: Hatch) -> None:
        """Keep which it is."""
        from dicom_node.hatch_folder import HatchFolder

        self._folder = HatchFolder(hatch.folder)

    @property
    def address(self) -> str:
        """Return the path of its folder."""
        return f"hatch {self._folder.folder.resolve()}"

    def put(self, _: str, file: Path) -> None:
        """Hand in a file."""
        try:
            self._folder.make()
            self._folder.put(_pieces(file))
        except OSError as error:
            raise _unusable(self._folder.folder, error) from error

    def waiting(self) -> int:
        """Return how much was handed in and not taken yet.

        Raises:
            SourceError: The folder cannot be read.
        """
        try:
            return len(self._folder.waiting()) if self._folder.folder.is_dir() else 0
        except OSError as error:
            raise _unusable(self._folder.folder, error) from error

    def get(self, _: str, to: Path) -> None:
        """Refuse: what was handed in is the node's."""
        raise BackfillError(f"what was handed in cannot be read back into {to.name}")

    def remove(self, _: str) -> None:
        """Do nothing: what was handed in is the node's."""


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(CHUNK):
            yield piece


def _unusable(folder: Path, error: OSError) -> SourceError:
    return SourceError(
        f"{folder} cannot be used: {error.strerror}",
        hint="Is its disk full, read-only, or gone? The same command goes on later.",
    )
