"""The machine: room on the disk of the state, and how many files a node may open."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.draining import is_draining
from dicom_node.reloading import LOCK
from dicom_node.room import Room
from dicom_node.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.config import Config
    from dicom_node.doctor.case import Case
from dicom_node.doctor.finding import Finding

_NEARLY: Final = 2
"""Times what is wanted, below which there is not much left."""
_SPARE: Final = 200
"""Files that a process opens beside its connections."""
_DIFFERING: Final = "Max open files"


def disk(case: Case) -> Iterator[Finding]:
    """Yield whether something can be taken in, and for how long that will be so."""
    if case.state is None or case.is_shut:
        return
    place = next(one for one in (case.state, *case.state.parents) if one.exists())
    wanted = case.config.storage if case.config is not None else Storage()
    if case.has_state and is_draining(case.state):
        yield note("the node is being emptied into another, and takes in nothing more")
    elif lack := _lack(case, place, wanted):
        yield wrong(
            f"nothing is taken in: {lack}",
            "Make room, or find out why nothing is sent: miadmark status.",
        )
        return
    yield from judged_room(os.statvfs(place), wanted)
    has_run = (case.state / "queue.sqlite").exists()
    if has_run and wanted.reserve and not (case.state / "reserve").exists():
        yield note(
            "the reserve was given up, or was never made: the disk has been full",
            "A node that starts, or finds room again, makes it.",
        )


def _lack(case: Case, place: Path, wanted: Storage) -> str:
    """Return what is missing where the state is, or the spool."""
    spooling = case.files if case.has_state else place
    return Room(place, wanted, spooling=spooling).lack()


def judged_room(seen: os.statvfs_result, wanted: Storage) -> Iterator[Finding]:
    """Yield whether a disk that has room will soon have none.

    Args:
        seen: What is free.
        wanted: What is to be left free.
    """
    free = seen.f_bavail * seen.f_frsize
    if free < _NEARLY * wanted.least_free:
        yield note(
            f"{free >> 20} MB are free, and below {wanted.least_free_mb:.0f} nothing is "
            "taken in",
            "Make room.",
        )
    elif seen.f_files and seen.f_favail < _NEARLY * wanted.least_free_inodes:
        yield note(
            f"{seen.f_favail} inodes are free, and below {wanted.least_free_inodes} "
            "nothing is taken in"
        )
    else:
        yield ok(f"{free >> 20} MB are free")


def limits(case: Case) -> Iterator[Finding]:
    """Yield whether a node that runs, or would be started here, may open enough files."""
    if case.config is None or case.is_shut:
        return
    need, text = needed_files(case.config), ""
    holder = holder_of(Path("/proc/locks").read_text("utf-8"), case.folder / LOCK)
    if holder:
        try:
            text = Path(f"/proc/{holder}/limits").read_text("utf-8")
        except OSError:
            yield note("what the running node may open is not yours to see")
    most = most_files(text) if text else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    who = "the running node" if text else "a node that is started from here"
    yield judged_files(most, need, who)


def needed_files(config: Config) -> int:
    """Return how many files one receiving process may have to open at once.

    Each connection is a descriptor, so are the two ends that wake its thread, and an
    association has the file that it writes.
    """
    return config.guard.max_waiting + 4 * config.node.max_associations + _SPARE


def judged_files(most: int, need: int, who: str) -> Finding:
    """Return whether a process may open as many files as it may have to.

    Args:
        most: What it may; below 0 without limit.
        need: What it may have to.
        who: It is.
    """
    if 0 <= most < need:
        return wrong(
            f"{who} may open {most} files, and may need {need} in a crowd",
            "LimitNOFILE=65536 in the unit; ulimit -Hn in a shell; or less of "
            "max_waiting and max_associations.",
        )
    return ok(f"{who} may open {'any number of' if most < 0 else most} files")


def most_files(text: str) -> int:
    """Return how many files a process may open at most; -1 without limit.

    Args:
        text: What ``/proc/PID/limits`` says.
    """
    for line in text.splitlines():
        if line.startswith(_DIFFERING):
            hard = line.removeprefix(_DIFFERING).split()[1]
            return int(hard) if hard.isdecimal() else -1
    return -1


def holder_of(locks: str, path: Path) -> int:
    """Return which process holds a lock on a file; 0 if none does, or nobody knows.

    Args:
        locks: What ``/proc/locks`` says.
        path: Of the file, which need not be there.
    """
    if not path.exists():
        return 0
    inode = path.stat().st_ino
    for line in locks.splitlines():
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK":
            process, where = words[4], words[5]
            if where.rpartition(":")[2] == str(inode) and process.isdecimal():
                return int(process)
    return 0
