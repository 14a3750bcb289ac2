"""The folder of a hatch: what another program hands in lies there until it is taken.

What :meth:`HatchFolder.put` has returned survives a power cut, whether the node runs or
not; the node takes it in once it runs, and only then deletes it. What it refuses lies in
the folder ``refused`` until a person has looked, a sentence beside it. Whoever can write
to the folder may send: its permissions are what a peer's certificate is on the network.
Names are random: a UID from outside never becomes a path. Nothing here but the standard
library is needed, since it also runs where the other program does.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from dicom_node.durable import make_folder, stream_durably, sync_folder, write_durably
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dicom_node.hatch import Hatch

_OBJECT: Final = ".dcm"
_PART: Final = ".part"
_FOR_THE_GROUP: Final = 0o640
"""The node may be another user than who hands in; both are in the folder's group."""


class HatchFolder:
    """The folder, from either side of it."""

    def __init__(self, folder: Path) -> None:
        """Keep where it is; nothing is made yet."""
        self.folder, self.refused = folder, folder / "refused"

    def make(self) -> None:
        """Make the folder, for this user only, unless somebody has made it for others.

        Raises:
            OSError: It cannot be made.
        """
        if not self.folder.is_dir():
            make_folder(self.folder)
            self.folder.chmod(0o700)
        if not self.refused.is_dir():
            self.refused.mkdir(mode=0o700)
            sync_folder(self.folder)

    def put(self, content: Iterable[bytes]) -> str:
        """Hand in a DICOM file, piece by piece; durable when this returns its name.

        Raises:
            OSError: It cannot be written, and nobody has it.
        """
        name = f"{os.urandom(16).hex()}{_OBJECT}"
        stream_durably(self.folder / name, content, _FOR_THE_GROUP)
        return name

    def waiting(self) -> list[Path]:
        """Return what was handed in and not taken yet, oldest first.

        Raises:
            OSError: The folder cannot be read.
        """
        return [file for _, file in sorted(_objects(self.folder))]

    def taken(self, file: Path) -> None:
        """Delete what the node has made its own; one that is gone is no error.

        Raises:
            OSError: It cannot be deleted.
        """
        file.unlink(missing_ok=True)

    def refuse(self, file: Path, reason: str) -> None:
        """Put what the node does not take aside, and say why.

        Raises:
            OSError: It cannot be put there; it is still handed in.
        """
        reason_file = (self.refused / file.name).with_suffix(".txt")
        write_durably(reason_file, f"{reason}\n".encode())
        file.replace(self.refused / file.name)
        sync_folder(self.refused)
        sync_folder(self.folder)

    def sweep(self, before: float) -> int:
        """Delete what a program that died was writing; return how much.

        Args:
            before: When it was written last, at the latest; seconds since 1970.

        Raises:
            OSError: The folder cannot be read.
        """
        left = [
            file
            for file in self.folder.iterdir()
            if file.name.startswith(".")
            and file.suffix == _PART
            and file.stat().st_mtime < before
        ]
        for file in left:
            file.unlink(missing_ok=True)
        return len(left)


def make_folders(hatches: Iterable[Hatch]) -> None:
    """Make the folders of hatches, so that others can hand in.

    Raises:
        ConfigError: One cannot be made.
    """
    for hatch in hatches:
        try:
            HatchFolder(hatch.folder).make()
        except OSError as error:
            raise ConfigError(
                f"hatch {hatch.name!r}: {hatch.folder} cannot be made: {error.strerror}",
                hint="The account that the node runs under has to be able to write it.",
            ) from error


def _objects(folder: Path) -> Iterable[tuple[int, Path]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            is_named = entry.name.endswith(_OBJECT) and not entry.name.startswith(".")
            if is_named and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # somebody has just taken it
                    yield entry.stat().st_mtime_ns, folder / entry.name
