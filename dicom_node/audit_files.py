"""The files of an audit: the one that is written to, and those put aside before it.

A file that has grown big is put aside under the number of its first entry, and the next
one goes on where it ends: ``audit-000000000001.jsonl``, then ``audit.jsonl``. What a line
holds is not known here.
"""

from __future__ import annotations

import fcntl
import os
from io import BytesIO
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def set_aside(path: Path) -> list[Path]:
    """Return the files that were put aside, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-{'[0-9]' * 12}{path.suffix}"))


def first_of(file: Path) -> int:
    """Return the number of the first entry of a file that was put aside."""
    return int(file.stem[-12:])


def aside(path: Path, first: int) -> Path:
    """Return what a file is called once it is put aside.

    Args:
        path: The file that is written to.
        first: Number of its first entry.
    """
    return path.with_name(f"{path.stem}-{first:012d}{path.suffix}")


def as_it_stands(path: Path) -> tuple[list[Path], IO[bytes]]:
    """Return the files of an audit at one moment: those put aside, and the last, open.

    Nobody writes to those that were put aside; the last may grow while it is read.

    Args:
        path: The file that is written to.

    Raises:
        OSError: It cannot be read.
    """
    while True:
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            # It was just put aside, or there never was one.
            return set_aside(path), BytesIO()
        try:
            fcntl.flock(stream, fcntl.LOCK_SH)  # against whoever would put it aside
            if is_at(path, stream.fileno()):
                files = set_aside(path)
                fcntl.flock(stream, fcntl.LOCK_UN)
                return files, stream
        except OSError:
            stream.close()
            raise
        stream.close()


def is_at(path: Path, stream: int) -> bool:
    """Say whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(stream), path.stat())
    except FileNotFoundError:
        return False
