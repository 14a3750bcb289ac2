"""What marking routes have sent and not listed yet: a SQLite file that survives a kill.

An entry is written once the receiver has said that it has the object, and goes once a
list that names it is owed to the route. Between the two a kill may list an object twice,
under the same UID, in the same words; never leave it out. What was sent is sent, though:
where its entry cannot be written it is once it can, before anything is listed, and only a
process that ends before that leaves it out. The log says so.

Lists are known again by what is in them, all of it: their UIDs are known to whoever was
sent one, and anybody may write them into something else.

The entries hold what a list says of its patient; the state folder is its owner's alone.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom import uid

from dicom_node.errors import SpoolError
from dicom_node.listing import Listed, listing
from dicom_node.tables import FAILURES, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dicom_node.instance import OpenInstance
    from dicom_node.part10 import Part10
    from dicom_node.queueing import Queueing

logger = logging.getLogger(__name__)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sent (
    id                INTEGER PRIMARY KEY,
    route             TEXT NOT NULL,
    study             TEXT NOT NULL,
    sop_instance_uid  TEXT NOT NULL,
    listed            BLOB NOT NULL,  -- see Listed.to_bytes
    at                TEXT NOT NULL,
    UNIQUE (route, sop_instance_uid)
);
CREATE TABLE IF NOT EXISTS list (
    digest  BLOB PRIMARY KEY  -- SHA-256 of the data set of a list
) WITHOUT ROWID;
"""

_CLASS: Final = uid.KeyObjectSelectionDocumentStorage


class Quiet(NamedTuple):
    """A study of which nothing more was sent on a route for a while."""

    route: str
    study: str
    last: datetime
    """When the last of it was sent."""
    ids: tuple[int, ...]
    objects: tuple[Listed, ...]


class ToList(NamedTuple):
    """What a list is to say of a marked object, if that is sent."""

    study: str
    sop_instance_uid: str
    listed: bytes

    @classmethod
    def of(cls, marked: OpenInstance) -> ToList:
        """Return it.

        Raises:
            MalformedObjectError: It cannot be said.
        """
        one = Listed.of(marked)
        return cls(one.study_instance_uid, one.sop_instance_uid, one.to_bytes())


class Sent(NamedTuple):
    """A marked object that was sent and is not listed yet."""

    route: str
    study: str
    sop_instance_uid: str
    listed: bytes
    at: str


class Entries(NamedTuple):
    """All that is remembered."""

    sent: list[Sent]
    lists: list[bytes]
    """Digests of lists of ours."""


class Listings:
    """What is still to be listed; one connection, which several threads may use."""

    def __init__(self, place: Path | Queueing, keyed: Callable[[bytes], bytes]) -> None:
        """Open them, or make them.

        Args:
            place: Their file, or a database on a server.
            keyed: 32 bytes that only this node can derive from what it is given.

        Raises:
            SpoolError: It cannot be opened.
        """
        self._keyed = keyed
        self._unwritten = deque[Sent]()
        """What was sent, and is not written down yet."""
        self._writing = threading.Lock()
        with _translated():
            self._database = opened(place, _SCHEMA)

    @property
    def is_behind(self) -> bool:
        """Return whether something that was sent is not written down yet."""
        return bool(self._unwritten)

    def close(self) -> None:
        """Close the file; what could not be written down yet is now, or never."""
        try:
            error = self._last_try()
            if error is not None:
                count = len(self._unwritten)
                logger.error("never listed objects=%d reason=%s", count, error)
        finally:
            self._database.close()

    def _last_try(self) -> SpoolError | None:
        """Write down each that can be; return what is wrong with one that cannot."""
        wrong = None
        for _ in range(len(self._unwritten)):
            try:
                self._write()
            except SpoolError as error:
                wrong = error
        return wrong if self._unwritten else None

    def note(self, route: str, one: ToList, now: datetime) -> None:
        """Remember that a marked object was sent; what says no study is left out.

        Args:
            route: On which.
            one: What a list is to say of it.
            now: When it was sent; aware.
        """
        if not one.study:
            return
        sent = Sent(
            route=route,
            study=one.study,
            sop_instance_uid=one.sop_instance_uid,
            listed=one.listed,
            at=_text(now),
        )
        self._unwritten.append(sent)
        try:
            self._write()
        except SpoolError as error:
            instance = one.sop_instance_uid
            logger.warning("not listed yet instance=%s reason=%s", instance, error)

    def _write(self) -> None:
        """Write down what was sent, as far as the first that cannot be.

        Raises:
            SpoolError: One cannot be written; the next time all others come before it.
        """
        with self._writing, _translated():
            while self._unwritten:
                try:
                    self._database.execute(
                        "INSERT INTO sent (route, study, sop_instance_uid, listed, at)"
                        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (route, sop_instance_uid)"
                        " DO UPDATE SET study = excluded.study,"
                        " listed = excluded.listed, at = excluded.at",
                        self._unwritten[0],
                    )
                except Exception:
                    self._unwritten.rotate(-1)
                    raise
                self._unwritten.popleft()

    def quiet(self, route: str, before: datetime) -> Quiet | None:
        """Return a study of which nothing was sent since ``before``; None if none.

        Args:
            route: On which it was sent.
            before: Aware.

        Raises:
            SpoolError: The file cannot be read, or what was sent not be written down.
        """
        self._write()
        with _translated():
            found = self._database.execute(
                "SELECT study, max(at) FROM sent WHERE route = ?"
                " GROUP BY study HAVING max(at) <= ? ORDER BY max(at) LIMIT 1",
                (route, _text(before)),
            ).fetchone()
            if found is None:
                return None
            study, last = found
            rows = self._database.execute(
                "SELECT id, listed FROM sent WHERE route = ? AND study = ? ORDER BY id",
                (route, study),
            ).fetchall()
        return Quiet(
            route,
            study,
            datetime.fromisoformat(last),
            tuple(number for number, _ in rows),
            tuple(Listed.from_bytes(listed) for _, listed in rows),
        )

    def document(self, study: Quiet) -> Part10:
        """Return the list of a study: the same as often as it is asked for.

        It is known as a list of ours when this returns.

        Raises:
            MalformedObjectError: It cannot be made.
            SpoolError: It cannot be remembered.
        """
        document = listing(study.objects, keyed=self._keyed, now=study.last)
        self.remember(document)
        return document

    def remember(self, document: Part10) -> None:
        """Remember that a list is ours.

        Raises:
            SpoolError: It cannot be written.
        """
        with _translated():
            self._database.execute(
                "INSERT INTO list (digest) VALUES (?) ON CONFLICT DO NOTHING",
                (_digest(document),),
            )

    def forget(self, study: Quiet) -> None:
        """Forget what is listed now; what was sent again since is not.

        Raises:
            SpoolError: It cannot be written.
        """
        with _translated():
            self._database.executemany(
                "DELETE FROM sent WHERE id = ? AND at <= ?",
                [(number, _text(study.last)) for number in study.ids],
            )

    def keep_only(self, routes: Sequence[str]) -> None:
        """Forget what was sent on routes that list nothing any more.

        Raises:
            SpoolError: It cannot be written.
        """
        with _translated():
            known = self._database.execute("SELECT DISTINCT route FROM sent").fetchall()
            for (route,) in known:
                if route not in routes:
                    self._database.execute("DELETE FROM sent WHERE route = ?", (route,))

    def entries(self) -> Entries:
        """Return all that is remembered, for another node.

        Raises:
            SpoolError: The file cannot be read.
        """
        with _translated():
            sent = self._database.execute(
                "SELECT route, study, sop_instance_uid, listed, at FROM sent ORDER BY id"
            ).fetchall()
            lists = self._database.execute("SELECT digest FROM list").fetchall()
        return Entries([Sent(*row) for row in sent], [bytes(one) for (one,) in lists])

    def take(self, entries: Entries) -> None:
        """Remember what another node has sent and not listed, and which lists are ours.

        Raises:
            SpoolError: It cannot be written.
        """
        with _translated(), self._database.transaction():
            self._database.executemany(
                "INSERT INTO sent (route, study, sop_instance_uid, listed, at)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                entries.sent,
            )
            self._database.executemany(
                "INSERT INTO list (digest) VALUES (?) ON CONFLICT DO NOTHING",
                [(digest,) for digest in entries.lists],
            )

    def wrote(self, instance: OpenInstance) -> bool:
        """Say whether an object is a list of ours, which leaves as it is.

        Raises:
            SpoolError: The file cannot be read.
        """
        if instance.file.meta.get("MediaStorageSOPClassUID") != _CLASS:
            return False  # what is large is not gone through for nothing
        with _translated():
            found = self._database.execute(
                "SELECT 1 FROM list WHERE digest = ?", (_digest(instance.file),)
            ).fetchone()
        return found is not None


def _text(moment: datetime) -> str:
    """Return a moment as text that sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _digest(file: Part10) -> bytes:
    return hashlib.sha256(file.dataset).digest()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise SpoolError(
            f"what is to be listed cannot be kept: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error
