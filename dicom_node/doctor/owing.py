"""What is owed: whether its files are there and open, and what waits for a person."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.doctor.tables import UNREADABLE, tables
from dicom_node.errors import SpoiledFileError
from dicom_node.hatch_folder import HatchFolder
from dicom_node.queue.job import JobState
from dicom_node.queue.statements import SQL
from dicom_node.review import left_behind
from dicom_node.sealed_file import SUFFIX
from dicom_node.sealed_stream import head_of, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from dicom_node.config import Config
    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding

_LONG: Final = timedelta(hours=1)


def owing(case: Case) -> Iterator[Finding]:
    """Yield what is to be said of the queue and the spool."""
    if not case.has_state:
        return
    try:
        with tables(case, "queue") as rows:
            if rows is None:
                return
            files = [name for (name,) in rows(SQL["lasting_files"])]
            counts = {what: int(count) for what, count in rows(SQL["counts"])}
            owed = {route: int(count) for route, count in rows(SQL["owed"])}
            ((since,),) = rows(SQL["waiting_since"])
    except UNREADABLE:
        return  # said of the databases
    spool = case.files / "spool"
    there = {one.name for one in spool.iterdir()} if spool.is_dir() else set()
    yield from judged_files(files, there)
    yield from _judged_seals(case, [spool / name for name in files])
    yield from judged_counts(counts, since and datetime.fromisoformat(since), case.now)
    if case.config is not None:
        for warning in left_behind(case.config, owed):
            yield note(warning)


def hatches(case: Case) -> Iterator[Finding]:
    """Yield whether programs on this machine can hand something in."""
    if case.config is not None:
        yield from _judged_hatches(case.config)


def judged_files(owed: Iterable[str], there: set[str]) -> Iterator[Finding]:
    """Yield if files that the queue owes are not in the spool.

    Args:
        owed: Names of files.
        there: Names of those in the spool.
    """
    missing = sum(name not in there for name in owed)
    if missing:
        yield wrong(
            f"{missing} files that are owed are not in the spool",
            "Was it moved, or emptied? Put it back, or ask the senders again; then "
            "miadmark discard gives the jobs up.",
        )


def judged_counts(
    counts: Mapping[str, int], since: datetime | None, now: datetime
) -> Iterator[Finding]:
    """Yield what waits for a person, or for long.

    Args:
        counts: How many jobs stand where.
        since: When the oldest came in that is on its way; None if there is none.
        now: Aware.
    """
    for state, says in (
        (JobState.HELD, "are held"),
        (JobState.QUARANTINED, "are quarantined"),
    ):
        if counts.get(state):
            yield note(
                f"{counts[state]} jobs {says} and wait for a person",
                "miadmark status says why; release tries again, discard gives up.",
            )
    if since is not None and now - since > _LONG:
        minutes = int((now - since) / timedelta(minutes=1))
        yield note(
            f"something has waited for {minutes} minutes and is not sent",
            "miadmark status says for what.",
        )
    owed = sum(counts.get(one, 0) for one in (JobState.WAITING, JobState.WORKING))
    yield ok(f"{owed} jobs on their way, {counts.get(JobState.SENT, 0)} sent")


def _judged_seals(case: Case, files: Iterable[Path]) -> Iterator[Finding]:
    """Yield if files of the spool were sealed with keys that are not here."""
    if case.keyring is None:
        return
    ours = {(key.version, key.id) for key in case.keyring.spool.all()}
    strange = spoiled = plain = 0
    for file in files:
        if file.suffix != SUFFIX:
            plain += file.exists()
            continue
        try:
            strange += key_of(head_of(file), file.name) not in ours
        except FileNotFoundError:
            continue  # it is missing, which is said, or was just sent
        except (OSError, SpoiledFileError):
            spoiled += 1
    if strange:
        yield wrong(
            f"{strange} files in the spool are sealed with keys that are not here",
            "Put the key folder back from its backup, where these files came in.",
        )
    if spoiled:
        yield wrong(
            f"{spoiled} files in the spool are damaged",
            "They are held when their turn comes; the same bytes sent again take their "
            "place.",
        )
    if plain and case.config is not None and case.config.storage.encrypt:
        yield note(f"{plain} files in the spool are not sealed; they are worked off")


def _judged_hatches(config: Config) -> Iterator[Finding]:
    for hatch in config.hatches:
        folder = HatchFolder(hatch.folder)
        if folder.folder.exists() and not folder.folder.is_dir():
            yield wrong(f"{folder.folder} is no folder", "Name another.")
        elif not folder.folder.exists():
            yield note(f"{folder.folder} is not there yet: the node makes it")
        elif not _is_open(folder.folder):
            yield wrong(
                f"{folder.folder} is not yours to take from",
                "The node's account has to be in its group: deploy/miadmark.tmpfiles",
            )
        else:
            refused = [*folder.refused.glob("*.dcm")] if folder.refused.is_dir() else []
            if refused:
                yield note(
                    f"{len(refused)} files were refused and lie in {folder.refused}",
                    "A sentence lies beside each. Move it back to try again.",
                )
            yield ok(f"{folder.folder}: {len(folder.waiting())} files wait in it")


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
