"""The state folder: whose it is, who may read it, its format, where it lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.state_format import FORMAT, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding

_MOUNTS: Final = Path("/proc/self/mounts")
_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"})
"""File systems on which SQLite's write-ahead log is not safe."""
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def folder(case: Case) -> Iterator[Finding]:
    """Yield what is to be said of it."""
    if case.state is None:
        return
    if not case.state.exists():
        yield from _not_yet(case.state)
        return
    if not case.state.is_dir():
        yield wrong(f"{case.state} is no folder", "Name another: state in [node].")
        return
    if case.is_shut:
        yield wrong(
            f"{case.state} belongs to user {case.state.stat().st_uid}, and you may not "
            "look into it: much else is not looked at",
            "Ask again under the account of the node, or as root.",
        )
        return
    found = format_of(case.state)  # what it raises is what is wrong
    if found > FORMAT:
        yield wrong(
            f"it is in format {found}, and this version knows formats up to {FORMAT}",
            "Use the version that has used it, or go back: miadmark state restore.",
        )
    yield from judged_owner(case.state, case.state.stat(), os.geteuid())
    yield from judged_place(case.state, kind_at(case.state, _MOUNTS.read_text("utf-8")))
    for part in ("keys", "spool", "codestreams"):
        yield from _require_private(case.state / part)
    yield ok(f"{case.state} is in format {found}")


def judged_owner(path: Path, found: os.stat_result, uid: int) -> Iterator[Finding]:
    """Yield if a folder is open to others, or is somebody else's.

    Args:
        path: Where it is.
        found: What is known of it.
        uid: Of whoever looks.
    """
    if found.st_mode & 0o077:
        yield wrong(
            f"{path} is open to others than its owner (mode {found.st_mode & 0o777:o}): "
            "originals pass through it",
            f"chmod 700 {path}",
        )
    if found.st_uid != uid and uid == 0:
        yield note(
            f"it belongs to user {found.st_uid}: the node has to run under that account",
            "Commands that change it, too: sudo -u that user.",
        )
    elif found.st_uid != uid:
        yield wrong(
            f"it belongs to user {found.st_uid}, and you are user {uid}",
            "Run the node and its commands under the account that owns it.",
        )


def kind_at(path: Path, mounts: str) -> tuple[str, bool]:
    """Return the kind of file system that a path is on, and whether it is read-only.

    Args:
        path: Absolute or not; links are followed.
        mounts: What ``/proc/self/mounts`` says.
    """
    best, kind, is_read_only = "", "", False
    wanted = path.resolve()
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 4:
            continue
        place = words[1].replace("\\040", " ")
        # Of two on one place, the later one lies above.
        if wanted.is_relative_to(place) and len(place) >= len(best):
            best, kind = place, words[2]
            is_read_only = "ro" in words[3].split(",")
    return kind, is_read_only


def judged_place(path: Path, place: tuple[str, bool]) -> Iterator[Finding]:
    """Yield if a state folder should not lie where it lies.

    Args:
        path: Of the folder.
        place: See :func:`kind_at`.
    """
    kind, is_read_only = place
    if is_read_only:
        yield wrong(f"{path} is on a file system that is mounted read-only")
    if kind in _REMOTE:
        yield wrong(
            f"{path} is on a network file system ({kind}), where databases can break",
            "Put the state folder on a disk of this machine.",
        )
    if kind in _IN_MEMORY:
        yield note(
            f"{path} is in memory ({kind}): a power cut takes keys, ledger and queue",
            "For trying out only. Put the state folder on a disk.",
        )


def _not_yet(path: Path) -> Iterator[Finding]:
    above = next(one for one in path.absolute().parents if one.exists())
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=True):
        yield wrong(
            f"{path} is not there, and {above} is not yours to make it in",
            f"As root: install -d -m 700 -o ACCOUNT {path}",
        )
    else:
        yield note(f"{path} is not there yet", "miadmark init, or: miadmark keys init")


def _require_private(part: Path) -> Iterator[Finding]:
    if part.is_dir() and part.stat().st_mode & 0o077:
        yield wrong(
            f"{part} is open to others (mode {part.stat().st_mode & 0o777:o})",
            f"chmod 700 {part}",
        )
