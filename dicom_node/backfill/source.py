"""Where an archive's objects come from; and the plainest of it, a folder."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dicom_node.errors import BackfillError, SourceError
from dicom_node.mapped import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Found(NamedTuple):
    """An object that is there."""

    name: str
    """Of this object and no other of the source: a path with slashes, which is also the
    name that its output gets."""
    sop_class_uid: str = ""
    """Where the source says so."""
    sop_instance_uid: str = ""
    """Likewise; what comes has to have it."""


class Source(Protocol):
    """What holds an archive."""

    @property
    def address(self) -> str:
        """Return what it is called in manifests: the same for the same, no secrets."""
        ...

    def count(self) -> int | None:
        """Return how many objects there are, without waiting; None: not known yet."""
        ...

    def listing(self) -> Iterator[Found]:
        """Yield what is there; each once.

        Raises:
            SourceError: It cannot be used just now.
        """
        ...

    def fetch(self, found: Found, to: Path) -> None:
        """Write an object into the file ``to``, which is not there yet.

        Raises:
            SourceError: The source cannot be used just now.
            NodeError: This object is not to be had.
            OSError: Likewise, or the file cannot be written.
        """
        ...

    def require_there(self) -> None:
        """Return if the source answers at all, to something small.

        Raises:
            SourceError: It does not.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class FolderSource:
    """All files of a folder, and of those in it."""

    def __init__(self, folder: Path) -> None:
        """Keep where it is.

        Raises:
            BackfillError: It is no folder.
        """
        if not folder.is_dir():
            raise BackfillError(f"{folder} is no folder")
        self._folder = folder.resolve()
        self._count: int | None = None
        self._counting: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Return its path."""
        return str(self._folder)

    def count(self) -> int | None:
        """Begin to count when first asked: names take a small part of what files take."""
        if self._counting is None:
            self._counting = threading.Thread(target=self._counted, daemon=True)
            self._counting.start()
        return self._count

    def _counted(self) -> None:
        with suppress(SourceError):
            self._count = sum(1 for _ in self.listing())

    def listing(self) -> Iterator[Found]:
        """Yield the files, those of a folder in the order of their names."""
        yield from self._files(self._folder)

    def _files(self, folder: Path) -> Iterator[Found]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except PermissionError as error:
            if folder == self._folder:
                raise _unusable(folder, error) from error
            # As lost+found: it fails by its own name, and stops nothing behind it.
            yield Found(folder.relative_to(self._folder).as_posix())
            return
        except OSError as error:
            raise _unusable(self._folder, error) from error
        for entry in found:
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(path)
            else:
                yield Found(path.relative_to(self._folder).as_posix())

    def fetch(self, found: Found, to: Path) -> None:
        """Copy a file; what is no file, and no link to one, is refused."""
        path = self._folder / found.name
        if path.is_dir() and not path.is_symlink():
            raise BackfillError("it is a folder that may not be listed")
        if not path.is_file():
            raise BackfillError(
                "it is no file",
                hint="Links to folders are not followed: back-fill what they lead to.",
            )
        with path.open("rb") as stream, to.open("xb") as copy:
            while piece := stream.read(CHUNK):
                copy.write(piece)

    def require_there(self) -> None:
        """Return if the folder can be read."""
        try:
            os.scandir(self._folder).close()
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def close(self) -> None:
        """Do nothing."""


def _unusable(folder: Path, error: OSError) -> SourceError:
    return SourceError(
        f"{folder} cannot be read: {error.strerror}",
        hint="Is it mounted, and may this user list it? The same command goes on later.",
    )
