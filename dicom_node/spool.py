"""Files of instances on their way: made durable, and deleted when nobody is owed them.

Names are random and say nothing: a UID from outside never becomes a path. Whoever gets
a name back may promise that the file survives a power cut.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.durable import make_folder, sync_folder
from dicom_node.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from dicom_node.mapped import Buffer


logger = logging.getLogger(__name__)

_OUTGOING: Final = ".out.dcm"
"""Ends the names of what the worker has made to be sent."""


class Spool:
    """A folder of instance files, and one beside it for those that are coming in."""

    def __init__(
        self, folder: Path, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Make the folders, if they are not there.

        Raises:
            SpoolError: They cannot be made.
        """
        self._folder, self._random = folder, random
        self.incoming = folder / "incoming"
        with _translated(folder):
            make_folder(self.incoming)
            folder.chmod(0o700)

    def path(self, name: str) -> Path:
        """Return where the file of that name lies."""
        return self._folder / name

    def holds(self, name: str) -> bool:
        """Say whether the file of that name is there."""
        return self.path(name).exists()

    def take(self, part: Path, *, is_synced: bool = False) -> str:
        """Take over a file in :attr:`incoming`; it is durable when this returns.

        Args:
            part: Which.
            is_synced: Whether what is in it is on disk.

        Returns:
            Its name from now on.

        Raises:
            SpoolError: The disk is full or broken; the file is no promise to anyone.
        """
        if not is_synced:
            with _translated(self._folder), part.open("rb") as stream:
                os.fsync(stream.fileno())
        return self._named(part, f"{self._random(16).hex()}.dcm")

    def _named(self, part: Path, name: str) -> str:
        """Give a file whose content is durable its name, durably.

        Where that fails there is no file: a second try might say that all is well of
        what the first has lost.
        """
        try:
            with _translated(self._folder):
                part.replace(self._folder / name)
                sync_folder(self._folder)
        except SpoolError:
            self.delete([name])
            raise
        return name

    def write(self, content: Iterable[Buffer], *, lasts: bool = True) -> str:
        """Write a new file to be sent; it is durable when this returns.

        Args:
            content: Piece by piece.
            lasts: False for what is made again after a power cut: it is not durable.

        Returns:
            Its name.

        Raises:
            SpoolError: The disk is full or broken.
        """
        name = f"{self._random(16).hex()}{_OUTGOING}"
        part = self.incoming / f"{name}.part"
        try:
            with (
                _translated(self._folder),
                open(part, "xb", opener=_for_the_owner) as stream,
            ):
                stream.writelines(content)
                if lasts:
                    stream.flush()
                    os.fsync(stream.fileno())
            if lasts:
                return self._named(part, name)
            with _translated(self._folder):
                part.replace(self._folder / name)
        except SpoolError:
            part.unlink(missing_ok=True)
            raise
        return name

    def delete(self, names: Collection[str]) -> None:
        """Delete files that nobody is owed; one that is gone already is no error.

        One that cannot be deleted now is left to a sweep.
        """
        for name in names:
            try:
                self.path(name).unlink(missing_ok=True)
            except OSError:
                logger.exception("left over file=%s", name)

    def sweep(self, needed: Collection[str]) -> int:
        """Delete what a crash has left: files that no job needs. Only before receiving.

        Returns:
            How many there were. None of them was ever acknowledged, or all have been
            sent.
        """
        return _swept(file for file in self._files() if file.name not in needed)

    def sweep_left(
        self, needed: Callable[[], Collection[str]], before: float, *, alone: bool
    ) -> int:
        """Delete what is left by others that have died, while instances come in.

        What has just come in and is not owed yet is younger than ``before``.

        Args:
            needed: Asked for what is needed once the files have been seen.
            before: When they were written last; seconds since 1970.
            alone: Whether nobody else makes files to be sent: theirs go whatever their
                age.

        Returns:
            How many there were.
        """
        old = [
            file
            for file in self._files()
            if (alone and _OUTGOING in file.name) or _written(file) < before
        ]
        kept = needed() if old else ()
        return _swept(file for file in old if file.name not in kept)

    def _files(self) -> list[Path]:
        # Not rglob, which minds a folder that goes meanwhile.
        walked = os.walk(self._folder)
        return [Path(folder, name) for folder, _, names in walked for name in names]


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return float("inf")  # somebody was faster


def _swept(files: Iterable[Path]) -> int:
    count = 0
    for file in files:
        file.unlink(missing_ok=True)
        count += 1
    return count


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(
            f"{folder} cannot be written: {error.strerror}",
            hint="Check its disk: full, read-only, or gone?",
        ) from error
