"""What is on record: the audit's chain, and the grants, each entry as it was written.

Of the audit its last file is looked at, and all of it only where that is asked for: of a
large site that takes minutes.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.audit_files import set_aside
from dicom_node.chain import START, Follower, Head, head_of
from dicom_node.checkpoints import confirmed, kept
from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.doctor.tables import UNREADABLE, tables
from dicom_node.errors import AuditError, LedgerError
from dicom_node.grants import Grants

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from dicom_node.authorising import Grant
    from dicom_node.chain import Entry
    from dicom_node.checkpoints import Checkpoint
    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding
    from dicom_node.keys.keyring import Keyring

_MANY: Final = 1000
_ENTRIES: Final = "SELECT number, body, signature FROM entry ORDER BY number"


def audit(case: Case) -> Iterator[Finding]:
    """Yield whether it is whole."""
    if not case.has_state:
        return
    path = case.folder / "audit.jsonl"
    files = set_aside(path) + ([path] if path.exists() else [])
    if case.keyring is None:
        if files:
            yield note("it is not looked at: the keys do not open")
        return
    if not files:
        yield note("there is none yet: keys that are made have an entry in it")
        return
    elsewhere = yield from _elsewhere(case)
    key = case.keyring.derive(b"audit")
    if case.is_full:
        yield _whole(path, key, case.keyring, elsewhere)
    else:
        yield _newest(path, key, elsewhere)


def grants(case: Case) -> Iterator[Finding]:
    """Yield whether the grants are those that this site has signed."""
    if not case.has_state or case.keyring is None:
        return
    try:
        with tables(case, "grants") as read:
            rows = [] if read is None else read(_ENTRIES)
    except UNREADABLE:
        return  # said of the databases
    known = case.keyring.grant_entries()
    if read is None and known:
        yield wrong(
            f"{case.folder / 'grants.sqlite'} is gone, and the keys know of {known} "
            "entries",
            "Put it back from its backup: nobody is granted anything until then.",
        )
    if read is None:
        return
    try:
        standing = [one for one in _signed(rows, case.keyring) if not one.revoked_by]
    except LedgerError as error:
        yield wrong(str(error), error.hint)
        return
    late = [one for one in standing if one.terms.not_after < case.now]
    if late:
        yield note(
            f"{len(late)} grants have run out: {', '.join(str(g.id) for g in late)}",
            "miadmark grant add proposes another.",
        )
    waiting = [one for one in standing if not one.is_approved and one not in late]
    if waiting:
        yield note(
            f"{len(waiting)} grants wait for another person",
            f"miadmark grant approve {waiting[0].id}, from another account.",
        )
    yield ok(f"{len(standing) - len(late) - len(waiting)} grants in force, as signed")


def _signed(rows: Sequence[tuple[object, ...]], keyring: Keyring) -> list[Grant]:
    """Return grants whose entries are as they were signed.

    Opening them makes tables where there are none, so that they are opened in a copy.

    Raises:
        LedgerError: One is not as it was signed, or there were more.
    """
    with tempfile.TemporaryDirectory(prefix="miadmark-") as folder:
        copy = Path(folder) / "grants.sqlite"
        with Grants(copy, keyring):
            pass  # it makes the table
        with closing(sqlite3.connect(copy)) as target, target:
            target.executemany("INSERT INTO entry VALUES (?, ?, ?)", rows)
        try:
            with Grants(copy, keyring) as found:
                return found.all()
        except LedgerError as error:
            says = str(error).replace(str(copy), "the table of grants")
            raise LedgerError(says, hint=error.hint) from error


def _elsewhere(
    case: Case,
) -> Generator[Finding, None, list[tuple[str, Checkpoint]]]:
    """Yield what is wrong with checkpoints kept elsewhere; return those there are."""
    folder = case.config.audit.checkpoints if case.config is not None else None
    if folder is None:
        return []
    if not folder.is_dir():
        yield wrong(
            f"{folder}, where checkpoints are kept, is not there",
            "Is it mounted? Without it nobody sees that the end was cut off.",
        )
        return []
    if not any(folder.glob("checkpoint-*.json")):
        yield note(f"{folder} holds no checkpoint yet")
        return []
    return kept(folder)


def _whole(
    path: Path,
    key: bytes,
    keyring: Keyring,
    elsewhere: Sequence[tuple[str, Checkpoint]],
) -> Finding:
    """Return what there is to say of every entry."""
    follower, count = Follower(path, key), 0
    verifiers = list(keyring.verifiers().values())

    def entries() -> Iterator[Entry]:
        while found := follower.read(_MANY):
            yield from found

    with closing(follower):
        try:
            for _ in confirmed(entries(), verifiers, elsewhere):
                count += 1
        except AuditError as error:
            return wrong(str(error), error.hint or _TELL)
    return ok(f"{count} entries, each as it was written")


def _newest(
    path: Path, key: bytes, elsewhere: Sequence[tuple[str, Checkpoint]]
) -> Finding:
    """Return what there is to say of the file that is written to."""
    promised = {checkpoint.number: (w, checkpoint) for w, checkpoint in elsewhere}
    aside = set_aside(path)
    try:
        before = _last_of(aside[-1]) if aside else START
    except ValueError:
        return wrong(f"the last entry of {aside[-1]} cannot be read", _TELL)
    follower, count = Follower(path, key, before), 0
    with closing(follower):
        try:
            while found := follower.read(_MANY):
                for entry in found:
                    count += 1
                    where, said = promised.get(entry.head.number, ("", None))
                    if said is not None and said.digest != entry.head.digest:
                        return wrong(
                            f"entry {entry.head.number} is another than the one that "
                            f"{where} is about",
                            _TELL,
                        )
        except AuditError as error:
            return wrong(str(error), error.hint or _TELL)
    last = follower.head.number
    if promised and max(promised) > last:
        where, said = promised[max(promised)]
        return wrong(
            f"the end was cut off: it has {last} entries, and {where} is about entry "
            f"{max(promised)}",
            _TELL,
        )
    older = f"; {before.number} older ones: --full" if before.number else ""
    return ok(f"its last {count} entries are as they were written{older}")


def _last_of(file: Path) -> Head:
    """Return the last entry of a file that was put aside.

    Raises:
        ValueError: It is none.
    """
    with file.open("rb") as stream:
        line = b""
        for line in stream:  # noqa: B007 the last is wanted
            pass
    return head_of(line)


_TELL: Final = (
    "miadmark audit verify says more. Keep the state folder as it is, and tell whoever "
    "looks after security."
)
