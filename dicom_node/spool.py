"""Files of instances on their way: made durable, and deleted when nobody is owed them.

Names are random and say nothing: a UID from outside never becomes a path. Whoever gets
a name back may promise that the file survives a power cut.

With keys, what is written is sealed (:mod:`dicom_node.sealed_stream`). Whether a file is
can be read off its name, so that those of a time without keys are worked off as they are.
What is deleted is not written over: a disk that keeps it has what nobody opens once the
key has been replaced and destroyed.

What is made again after a power cut need not be on a disk at all: as long as there is
room it is in the memory of whoever made it, under a name like any other.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections import Counter
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from dicom_node.durable import make_folder, sync_folder
from dicom_node.errors import KeyFolderError, SpoiledFileError, SpoolError
from dicom_node.memory_file import MemoryFile
from dicom_node.sealed_file import SUFFIX, SealedFile, for_the_owner
from dicom_node.sealed_stream import Sealing, head_of, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from dicom_node.mapped import Buffer
    from dicom_node.sealed_file import Stored
    from dicom_node.spool_keys import SpoolKeys

logger = logging.getLogger(__name__)

_OUTGOING: Final = ".out."
"""In the names of what the worker has made to be sent."""
_PLAIN: Final = ".dcm"
_IN_MEMORY: Final = 64 << 20
"""Bytes of all that is in memory only, at most."""


class InUse(NamedTuple):
    """What the files of a spool say of the keys that they are sealed with."""

    keys: Counter[tuple[int, bytes]]
    """Version and id of each key, and how many files name it."""
    unread: tuple[str, ...]
    """Names of files that could not be read just now: any key may be theirs."""


class Spool:
    """A folder of instance files, and one beside it for those that are coming in."""

    def __init__(
        self,
        folder: Path,
        random: Callable[[int], bytes] = os.urandom,
        *,
        keys: SpoolKeys | None = None,
        encrypts: bool = True,
    ) -> None:
        """Make the folders, if they are not there.

        Args:
            folder: Where.
            random: Returns that many bytes nobody can predict, never the same.
            keys: Open what is sealed; without them only what is not can be read.
            encrypts: Whether to seal what is written, where there are keys.

        Raises:
            SpoolError: They cannot be made.
        """
        self._folder, self._random = folder, random
        self._keys, self._encrypts = keys, encrypts and keys is not None
        self._in_memory: dict[str, MemoryFile] = {}
        self._changing = threading.Lock()
        self.incoming = folder / "incoming"
        with _translated(folder):
            make_folder(self.incoming)
            folder.chmod(0o700)

    def path(self, name: str) -> Path:
        """Return where the file of that name lies."""
        return self._folder / name

    def file(self, name: str) -> Stored:
        """Return the file of that name, to be opened and read.

        Raises:
            KeyFolderError: It is sealed, and there are no keys.
        """
        return self._in_memory.get(name) or self._source(self.path(name))

    def coming(self, part: Path) -> Stored:
        """Return a file in :attr:`incoming`; see :meth:`file`."""
        return self._source(part)

    def _source(self, path: Path) -> Stored:
        if path.suffix != SUFFIX:
            return path
        if self._keys is None:
            raise KeyFolderError(f"{path} is sealed, and there are no keys for it")
        return SealedFile(path, self._keys)

    def holds(self, name: str) -> bool:
        """Say whether the file of that name is there, and is what it was.

        One that cannot be read is not: nobody can be promised anything of it.
        """
        file = self.file(name)
        try:
            if isinstance(file, SealedFile):
                with file.open() as stream:
                    stream.require_whole()
                return True
            return file.exists()
        except FileNotFoundError:
            return False
        except (OSError, SpoiledFileError, KeyFolderError) as error:
            # The last: it names a key that nobody has.
            logger.error("cannot be read file=%s: %s", name, type(error).__name__)  # noqa: TRY400
            return False

    def keys_in_use(self) -> InUse:
        """Return which keys files are sealed with, those coming in among them.

        Raises:
            SpoolError: The folder cannot be listed, so nobody knows.
        """
        keys, unread = Counter[tuple[int, bytes]](), list[str]()
        # First what is coming in: it moves into the folder, and never back.
        files = dict.fromkeys([*_listed(self.incoming), *_listed(self._folder)])
        for file in files:
            if SUFFIX not in file.suffixes:
                continue
            try:
                keys[key_of(head_of(file), file.name)] += 1
            except FileNotFoundError:
                continue  # it is gone meanwhile
            except OSError as error:
                logger.warning("cannot be read file=%s: %s", file.name, error.strerror)
                unread.append(file.name)
            except SpoiledFileError:
                continue  # no key opens it; that is told of when it is read
        return InUse(keys, tuple(unread))

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
        if part.suffix == SUFFIX:
            return self._named(part, part.name)  # another name would not open it
        return self._named(part, f"{self._random(16).hex()}{_PLAIN}")

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
            lasts: False for what is made again after a power cut: it is not durable, and
                only this process is sure to find it.

        Returns:
            Its name.

        Raises:
            SpoolError: The disk is full or broken.
        """
        ending = SUFFIX if self._encrypts else _PLAIN
        name = f"{self._random(16).hex()}{_OUTGOING}{ending[1:]}"
        if not lasts:
            content = self._held(name, content)
            if name in self._in_memory:
                return name
        part = self.incoming / f"{name}.part"
        try:
            with (
                _translated(self._folder),
                open(part, "xb", opener=for_the_owner) as stream,
            ):
                self._fill(stream, name, content)
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

    def _held(self, name: str, content: Iterable[Buffer]) -> Iterable[Buffer]:
        """Hold what there is room for in memory; return what has to be written else."""
        begun, rest = io.BytesIO(), iter(content)
        with self._changing:
            room = self._room()
        for part in rest:
            if begun.tell() + len(part) > room:
                return chain([begun.getvalue(), part], rest)
            begun.write(part)
        file = MemoryFile(name, begun.getvalue())
        with self._changing:
            if file.size <= self._room():
                self._in_memory[name] = file
        return [file.content]

    def _room(self) -> int:
        """Return how many more bytes may be held in memory."""
        return _IN_MEMORY - sum(one.size for one in self._in_memory.values())

    def _fill(self, stream: IO[bytes], name: str, content: Iterable[Buffer]) -> None:
        if self._keys is None or not self._encrypts:
            stream.writelines(content)
            return
        sealing = Sealing(name, self._keys.newest(), stream.write)
        for part in content:
            sealing.write(part)
        sealing.finish()

    def delete(self, names: Collection[str]) -> None:
        """Delete files that nobody is owed; one that is gone already is no error.

        One that cannot be deleted now is left to a sweep.
        """
        for name in names:
            with self._changing:
                if self._in_memory.pop(name, None) is not None:
                    continue
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
        with self._changing:
            left = [f.name for f in self._in_memory.values() if f.written < before]
        kept = needed() if old or left else ()
        self.delete({*left}.difference(kept))
        return _swept(file for file in old if file.name not in kept)

    def _files(self) -> list[Path]:
        return _listed(self._folder)


def _listed(folder: Path) -> list[Path]:
    """Return all files below a folder.

    Raises:
        SpoolError: It cannot be listed: that is not to be taken for nothing there.
    """

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a folder that goes meanwhile
            raise SpoolError(
                f"{folder} cannot be listed: {error.strerror}",
                hint="Check its disk, and how many files this account may open.",
            ) from error

    # Not rglob, which minds a folder that goes meanwhile.
    walked = os.walk(folder, onerror=failed)
    return [Path(where, name) for where, _, names in walked for name in names]


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


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(
            f"{folder} cannot be written: {error.strerror}",
            hint="Check its disk: full, read-only, or gone?",
        ) from error
