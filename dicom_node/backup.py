"""A copy of a state folder, made while the node runs, and the way back.

The copy is whole or is not taken for one: a list of its files with their digests is
written last. In it the queue owes nothing whose file has gone meanwhile, and the ledger
has the record of everything that the queue is to send. What is only coming in is left
out: nobody was told that it is here.

Where the state goes with a database on a server, what lies there, and in the folder that
all its nodes share, is not in the copy: :func:`left_out` says so.

What is not promised: that a state that was put back knows what happened since. What was
sent in between is sent again, and may be marked again, so it is for going back before
anything was sent, and for the day when the folder is gone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.attachment import attached
from dicom_node.audit_files import as_it_stands
from dicom_node.durable import make_folder, sync_folder, write_durably
from dicom_node.errors import ConfigError, NodeError
from dicom_node.state_format import FILE, FORMAT, UNFINISHED, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator

LIST: Final = "backup.json"
_QUEUE: Final = "queue.sqlite"
_DATABASE: Final = ".sqlite"
_AUDIT: Final = "audit.jsonl"
_GROWING: Final = ".jsonl"
_LEFT_OUT: Final = (
    "-wal",
    "-shm",
    "-journal",
    ".lock",
    ".part",
    ".stop",
    ".at",
    ".bell",
    ".in",
    ".ask",
    ".answer",
)
_NOT_STATE: Final = frozenset({"reserve", "reload.ask", "reload.answer", LIST})
_FILES_OF_QUEUE: Final = (
    "SELECT file FROM instance WHERE file IS NOT NULL "
    "UNION SELECT filtered FROM job WHERE filtered IS NOT NULL "
    "AND COALESCE(purpose, '') NOT LIKE 'strip %'"
)
"""But for originals that were restored: they are made again, and may be on no disk."""
_TRIES: Final = 20


def back_up(state: Path, target: Path) -> int:
    """Copy ``state`` to the new folder ``target``; return how many files it has.

    Raises:
        ConfigError: There is no such state, or something at ``target`` already.
        NodeError: A database is damaged, or the queue changes faster than its files can
            be copied.
        OSError: Something cannot be read or written.
    """
    found = attached(state)
    is_shared = found is not None and found.place.shared is not None
    if not is_shared and not (state / "keys").is_dir():
        raise ConfigError(f"{state} is no state folder: it has no keys")
    made_in = format_of(state)
    _make_empty(target)
    if found is None:
        _copy_queue(state, target)  # most of it, while keys may change
    with nullcontext() if is_shared else _keys_held(state / "keys"):
        # No key goes that opens what is copied here, and none comes that seals it.
        if found is None:
            _copy_queue(state, target)
        names = _names(state)
        for name in names:
            if name.suffix == _DATABASE and name.name != _QUEUE:
                _copy_database(state / name, target / name)
        for name in names:
            if name.parts[0] == "keys":
                _copy_if_there(state / name, target / name)
    for name in _names(state):
        is_other = name.suffix not in {_DATABASE, _GROWING}
        if is_other and name.parts[0] not in {"spool", "keys"}:
            _copy_if_there(state / name, target / name)
    _copy_audit(state, target)  # it says what was sent, so that is not sent twice
    files = {str(name): _digest(target / name) for name in _names(target)}
    _finish(target)
    content = json.dumps({"format": made_in, "files": files}, indent=1)
    write_durably(target / LIST, content.encode())
    return len(files)


def left_out(state: Path) -> list[str]:
    """Return what is no part of a copy of ``state``, in words.

    Raises:
        ConfigError: The folder does not say which database it goes with.
    """
    found = attached(state)
    if found is None:
        return []
    said = [
        f"the database at {found.place.told}: queue, ledger, grants (pg_dump has it)"
    ]
    if found.place.shared is not None:
        said.append(
            f"{found.place.shared}: keys, spool, codestreams (with the storage)"
        )
    else:
        said.append(f"{state / 'spool'}: files that the queue in the database owes")
    return said


def put_back(backup: Path, state: Path) -> int:
    """Make a new state folder of a backup; return how many files it has.

    Raises:
        ConfigError: It is no whole backup, a later version has made it, or there is
            something at ``state`` already.
        OSError: Something cannot be read or written. What is there then is opened by
            nothing, and can be deleted.
    """
    made_in, files = _listed(backup)
    for name, digest in files.items():
        if not (backup / name).is_file() or _digest(backup / name) != digest:
            raise ConfigError(
                f"{backup / name} is not what was backed up",
                hint="Take another backup; this one was damaged or changed.",
            )
    _make_empty(state)
    # First of all: nothing opens a folder that says so, until it is whole.
    write_durably(state / FILE, UNFINISHED)
    for name in files:
        if name != FILE:
            _copy(backup / name, state / name)
    _finish(state)
    content = json.dumps({"format": made_in}).encode()
    write_durably(state / FILE, content)
    return len(files)


def _listed(backup: Path) -> tuple[int, dict[str, str]]:
    """Return the format of a backup, and its files with their digests."""
    try:
        found = json.loads((backup / LIST).read_bytes())
        made_in, files = int(found["format"]), dict(found["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{backup} is no whole backup",
            hint=f"{LIST} is written last: without it, making it was interrupted.",
        ) from error
    if made_in > FORMAT:
        raise ConfigError(
            f"{backup} is in format {made_in}, and this version knows formats up to "
            f"{FORMAT}",
            hint="Use the version that made it, or a later one.",
        )
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigError(f"{backup / LIST} names {name!r}, outside the backup")
    return made_in, files


def _make_empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} is not empty", hint="Name a new folder; nothing is overwritten."
        )
    make_folder(folder)
    folder.chmod(0o700)


def _finish(folder: Path) -> None:
    """Make folders durable, for their owner only."""
    for each, _, _ in os.walk(folder):
        Path(each).chmod(0o700)
        sync_folder(Path(each))


def _names(folder: Path) -> list[Path]:
    """Return what belongs to a state, by names that start at its folder."""
    found = []
    for where, folders, files in os.walk(folder):
        if Path(where) == folder / "spool":
            folders[:] = [one for one in folders if one != "incoming"]
        found += [
            (Path(where) / file).relative_to(folder)
            for file in files
            if not file.endswith(_LEFT_OUT)
            and not (Path(where) == folder and file in _NOT_STATE)
        ]
    return sorted(found)


def _copy_queue(state: Path, target: Path) -> None:
    """Copy the queue, and the files that it owes.

    Files go while they are copied, since they are sent: so the queue is copied again
    until it owes none that has gone meanwhile.
    """
    if not (state / _QUEUE).exists():
        return
    before: set[str] = set()
    for _ in range(_TRIES):
        _copy_database(state / _QUEUE, target / _QUEUE)
        with closing(sqlite3.connect(target / _QUEUE)) as queue:
            owed = {name for (name,) in queue.execute(_FILES_OF_QUEUE)}
        missing = {
            name
            for name in owed
            if not (target / "spool" / name).exists()
            and not _copy_if_there(state / "spool" / name, target / "spool" / name)
        }
        # What is still owed and still not there was lost before.
        if missing <= before:
            _forget(target / "spool", owed)
            return
        before = missing
    raise NodeError(
        f"{state} changes faster than it can be copied",
        hint="Stop the node, or let it receive nothing for a moment, and try again.",
    )


def _forget(spool: Path, owed: set[str]) -> None:
    """Delete what was copied and is owed no longer."""
    if spool.is_dir():
        for file in spool.iterdir():
            if file.name not in owed:
                file.unlink()


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(source, timeout=30)) as original,
            closing(sqlite3.connect(target)) as copy,
        ):
            original.backup(copy)
            # One file, which whoever carries it off cannot leave half behind.
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise NodeError(f"{source} cannot be copied: {error}") from error
    target.chmod(source.stat().st_mode & 0o777)
    _sync(target)


def _copy_audit(state: Path, target: Path) -> None:
    """Copy the audit as it is at one moment, as far as its last whole line."""
    path = state / _AUDIT
    aside, stream = as_it_stands(path)
    with stream:
        for file in aside:
            _copy(file, target / file.name)
        content = stream.read()
        mode = os.fstat(stream.fileno()).st_mode if content else 0o600
    if content:
        whole = content[: content.rfind(b"\n") + 1]
        write_durably(target / _AUDIT, whole, mode & 0o777)


def _copy_if_there(source: Path, target: Path) -> bool:
    try:
        _copy(source, target)
    except FileNotFoundError:
        target.unlink(missing_ok=True)
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)  # with its mode, and when it was written
    _sync(target)


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _keys_held(folder: Path) -> Iterator[None]:
    """Keep other processes from changing keys meanwhile."""
    lock = os.open(folder / "ring.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
