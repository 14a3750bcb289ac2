"""The folder in which a site keeps what must not be lost, and what lies where in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dicom_node.attachment import Attached, attach, attached
from dicom_node.audit import Audit
from dicom_node.codestreams import Codestreams
from dicom_node.durable import make_folder
from dicom_node.errors import ConfigError, KeyFolderError
from dicom_node.figures import Figures
from dicom_node.found_marks import FoundMarks
from dicom_node.grants import Grants
from dicom_node.keys.joining import FOLDER as JOINING
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.sealer import opening_of
from dicom_node.ledger import Ledger
from dicom_node.listings import Listings
from dicom_node.queue.handing import Handing
from dicom_node.queue.history import History
from dicom_node.queue.job import Lane
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.queue.sqlite_commitments import SqliteCommitments
from dicom_node.reachability import Reachability
from dicom_node.renamings import Renamings
from dicom_node.rewrapping import LedgerOpener
from dicom_node.room import Room
from dicom_node.slots import Slots
from dicom_node.spool import Spool
from dicom_node.state_format import require_known

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from dicom_node.chain import Head
    from dicom_node.config import Config
    from dicom_node.opening import Opening
    from dicom_node.queue.sql_commitments import SqlCommitments
    from dicom_node.queue.sql_queue import SqlQueue
    from dicom_node.queueing import Queueing
    from dicom_node.spool_keys import SpoolKeys
    from dicom_node.storage import Storage


def now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class State:
    """A state folder; whatever is not there yet is made on first use.

    Whatever opens something of it raises ConfigError if a later version has used it.
    """

    folder: Path
    clock: Callable[[], datetime] = now

    @property
    def attached(self) -> Attached | None:
        """Return the database that it goes with; None if it has files of its own."""
        return attached(self.folder)

    def attach(self, place: Queueing) -> Attached | None:
        """Have it go with what a configuration says.

        Raises:
            ConfigError: It has a queue or a ledger of its own, or goes with a database
                and the configuration names none.
        """
        self._make()
        return attach(self.folder, place)

    @property
    def node(self) -> str:
        """Return what tells the files of this node from those of others beside them."""
        found = self.attached
        return "" if found is None or found.place.shared is None else f"{found.node}-"

    @property
    def files(self) -> Path:
        """Return the folder of keys and spool: that of all nodes, where they share it."""
        found = self.attached
        return self.folder if found is None else found.place.shared or self.folder

    def _tables(self, file: str) -> Path | Queueing:
        """Return where tables are: on a server, or in a file of the folder."""
        self._make()
        found = self.attached
        return self.folder / file if found is None else found.place

    def keys(self) -> Keyring:
        """Return the keys of this site, made now if there are none.

        Raises:
            KeyFolderError: They cannot be read or made.
        """
        self._make()
        folder = self.files / "keys"
        if Keyring.exists(folder):
            return Keyring(folder)
        if (self.folder / JOINING).exists():
            raise KeyFolderError(
                f"{self.folder} waits for the keys of its site",
                hint="Have the lead admit this node, then: miadmark nodes join.",
            )
        return Keyring.make(folder, self.clock())

    def ledger(self) -> Ledger:
        """Open the ledger."""
        return Ledger(self._tables("ledger.sqlite"))

    def renamings(self, keyring: Keyring) -> Renamings:
        """Open what was renamed, which lies in the ledger's file."""
        return Renamings(self._tables("ledger.sqlite"), keyring.derive)

    def found_marks(self, keyring: Keyring) -> FoundMarks:
        """Open what originals went out with, which lies in the ledger's file."""
        return FoundMarks(self._tables("ledger.sqlite"), keyring.derive)

    def grants(self, keyring: Keyring) -> Grants:
        """Open the grants, which the site's keys sign."""
        return Grants(self._tables("grants.sqlite"), keyring)

    def audit(self, keyring: Keyring) -> Audit:
        """Return the audit, whose entries the site's keys authenticate."""
        self._make()
        return Audit(self.folder / "audit.jsonl", keyring.derive(b"audit"), self.clock)

    def queue(self, passed: Collection[str] = (), lane: Lane | None = None) -> SqlQueue:
        """Open the queue; see :class:`SqliteQueue`."""
        self._make()
        if found := self.attached:
            from dicom_node.queue.postgres import PostgresQueue

            return PostgresQueue(found.place, node=found.node, passed=passed, lane=lane)
        return SqliteQueue(self.folder / "queue.sqlite", passed=passed, lane=lane)

    def commitments(self) -> SqlCommitments:
        """Open what is to be kept and not promised, beside the queue."""
        if found := self.attached:
            from dicom_node.queue.postgres_commitments import PostgresCommitments

            return PostgresCommitments(found.place, found.node)
        self.queue().close()  # or its tables may not be there
        return SqliteCommitments(self.folder / "queue.sqlite")

    def handing(self, passed: Collection[str] = ()) -> Handing:
        """Open what is owed, to be handed to another node, or taken from one."""
        self.commitments().close()  # or its tables may not be there
        return Handing(self.folder / "queue.sqlite", passed)

    def history(self) -> History:
        """Open what people are shown of the queue."""
        self._make()
        if found := self.attached:
            from dicom_node.queue.postgres_history import PostgresHistory

            return PostgresHistory(found.place)
        path = self.folder / "queue.sqlite"
        if not path.exists():
            self.queue().close()
        return History(path)

    def figures(self) -> Figures:
        """Return where a process notes how long things take."""
        self._make()
        return Figures(self.folder / "figures.sqlite")

    def listings(self, keyring: Keyring) -> Listings:
        """Open what is still to be listed."""
        return Listings(self._tables("listings.sqlite"), keyring.derive)

    def reachability(self, config: Config) -> Reachability:
        """Open what is known of how destinations are."""
        self._make()
        path = self.folder / "destinations.sqlite"
        return Reachability(path, config.destinations, config.breaker)

    def slots(self) -> Slots:
        """Return how many associations destinations have."""
        self._make()
        return Slots(self.folder / "slots")

    def spool(self, keys: SpoolKeys | None = None, *, encrypts: bool = True) -> Spool:
        """Return the spool; see :class:`Spool`."""
        self._make()
        return Spool(self.files / "spool", keys=keys, encrypts=encrypts)

    def codestreams(self) -> Codestreams:
        """Return the sealed copies of what compressed originals came in."""
        self._make()
        return Codestreams(self.files / "codestreams")

    def room(self, storage: Storage) -> Room:
        """Return who looks after the disk of it, and that of the spool."""
        return Room(self.folder, storage, spooling=self.files)

    def bell(self, lane: Lane) -> Path:
        """Return where whoever works in a lane is woken."""
        return self.folder / f"{lane.value}.bell"

    @property
    def bells(self) -> tuple[Path, ...]:
        """Return where all are woken who work off the queue."""
        return tuple(self.bell(lane) for lane in Lane)

    @property
    def rejections(self) -> Path:
        """Return the folder where those that receive leave whom they turned away."""
        return self.folder / "rejections"

    def audit_end(self) -> Head:
        """Return the last entry of the audit; unchecked, so it takes no keys."""
        self._make()
        return Audit(self.folder / "audit.jsonl", b"", self.clock).head()

    @property
    def audit_sent(self) -> Path:
        """Return the file that says how far the audit was sent to a syslog server."""
        return self.folder / "audit-syslog.json"

    def _make(self) -> None:
        """Make the folder, for its owner only: originals pass through it."""
        make_folder(self.folder)
        if self.folder.stat().st_mode & 0o077:
            try:
                self.folder.chmod(0o700)
            except PermissionError:
                raise ConfigError(
                    f"{self.folder} belongs to somebody else, and is open to others",
                    hint="Originals pass through it. Name a folder below it (state in "
                    "[node], or --state): it is made for its owner only.",
                ) from None
        require_known(self.folder)


def opening_with(keyring: Keyring, ledger: Ledger) -> Opening:
    """Return what opens records with all that a site has: keys, and its ledger."""
    opening = opening_of(keyring)
    openers = [LedgerOpener(keyring, ledger), *opening.openers]
    return replace(opening, openers=openers, records=ledger)


def keys_of(state: State, wanted: str) -> Keyring:
    """Return the site's keys, if they are those that a configuration names.

    Args:
        state: Where they are.
        wanted: Their fingerprint; empty if it names none.

    Raises:
        ConfigError: They are others: somebody has put another key folder there.
    """
    keyring = state.keys()
    found = keyring.site("").fingerprint
    if wanted and found != wanted.lower():
        raise ConfigError(
            f"the keys in {keyring.folder} have the fingerprint {found}, and the "
            f"configuration wants {wanted}",
            hint="After keys rotate signing it is another: see miadmark keys list. "
            "Otherwise tell whoever looks after security.",
        )
    return keyring
