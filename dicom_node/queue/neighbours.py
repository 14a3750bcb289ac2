"""The nodes that work off one queue: who is there, and whose work others take up.

Each holds a lock of the database's as long as its session lasts, which is over when the
node dies or is cut off. What a node that is gone had claimed is due at once, to whoever
claims next: the claim that it had counts no longer, whatever it still does.

Files lie in a folder, and the database knows which: a node that has another is refused,
since it would owe files that others do not find. That the others see the same folder is
proved by what each has written there.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dicom_node.durable import make_folder, write_durably
from dicom_node.errors import ConfigError, ServerError
from dicom_node.postgres import Server
from dicom_node.postgres_schema import bring_up
from dicom_node.queue.statements import as_text, statements_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from pathlib import Path
    from typing import Any

    from dicom_node.queueing import Queueing

logger = logging.getLogger(__name__)

GONE_AFTER_S: Final = 15.0
"""How long nobody sees a node whose session is over, until others take up its work."""
PATIENCE_S: Final = 45.0
"""How long a node waits at its start for whoever is in its way; seconds."""
_TEND_S: Final = 2.0
_LOOK_S: Final = 0.2
_IDENTITY: Final = "queue.id"
_NODES: Final = "nodes"
_SQL: Final = statements_in("neighbours.sql")
_ALONE: Final = "nodes"


class _InTheWayError(ConfigError):
    """Somebody is there who must not be; perhaps he is about to go."""


class Neighbours:
    """One node among those of its database; one connection, one thread at a time."""

    def __init__(
        self,
        place: Queueing,
        node: str,
        files: Path,
        *,
        clock: Callable[[], datetime],
        random: Callable[[int], bytes] = os.urandom,
        gone_after_s: float = GONE_AFTER_S,
    ) -> None:
        """Keep what it needs; nobody is asked yet.

        Args:
            place: Where the database is.
            node: How this one is called there.
            files: The folder that the files of the queue lie in.
            clock: Returns the time, aware.
            random: Returns that many bytes nobody can predict.
            gone_after_s: How long a node may be unseen; seconds.
        """
        self._server, self._node, self._files = Server(place), node, files
        self._is_shared = place.shared is not None
        self._clock, self._random = clock, random
        self._gone_after_s = gone_after_s
        self._token = random(16).hex()
        self._rules = ""
        self.differ = False
        """Whether another node that is there goes by other routes than this one."""
        self._session = 0

    def close(self) -> None:
        """End the session: others see that this one is gone."""
        self._server.close()

    def join(self, patience_s: float = PATIENCE_S) -> None:
        """Be one of the nodes of the database.

        Args:
            patience_s: How long whoever is in the way may take to be gone: what was here
                before may have been cut off a moment ago.

        Raises:
            ConfigError: It owes files that lie in another folder than this node's; this
                node runs already; or another is there that does not see the same folder.
            ServerError: The server cannot be reached.
        """
        bring_up(self._server)
        identity, end = self._identity(), time.monotonic() + patience_s
        while True:
            try:
                self._join(identity)
            except _InTheWayError:
                if time.monotonic() >= end:
                    raise
                time.sleep(_LOOK_S)
            else:
                return

    def _join(self, identity: str) -> None:
        with self._server.transaction(alone=_ALONE):
            known = self._rows("known_folder")
            if not known:
                self._rows("note_folder", id=identity)
            elif known[0][0] != identity:
                raise ConfigError(
                    f"the files that the queue owes do not lie in {self._files}",
                    hint="The database has worked with another folder: that of its node, "
                    "or the one that [queue] shared names on the others. Is it mounted?",
                )
            self._be_there()
            others = self._rows("others")
            if others and not self._is_shared:
                raise _InTheWayError(
                    f"another node works off the queue, and {self._files} is this one's",
                    hint="Several nodes need one folder for their files: [queue] shared.",
                )
            self._note()
        for name, token, _ in others:
            if self._seen_of(name) != token:
                raise ConfigError(
                    f"another node works off the queue, and does not see "
                    f"{self._files} as this one does",
                    hint="It has to be the same folder on all of them: is it mounted?",
                )

    def goes_by(self, rules: str) -> None:
        """Say by which routes this node goes; others are told when it is tended."""
        self._rules = rules

    def tend(self) -> int:
        """Say that this one is there, and end the leases of those that are gone.

        Returns:
            How many jobs are due by that.

        Raises:
            ServerError: The server cannot be reached.
        """
        with self._server.transaction(alone=_ALONE):
            self._be_there()
            self._rows("note_node", token=self._token, rules=self._rules)
            others = self._rows("others")
            self._see(rules for _, _, rules in others)
            gone = self._rows("gone", seconds=self._gone_after_s)
            names = json.dumps([name for (name,) in gone])
            now = as_text(self._clock())
            ended = self._done("end_leases", names=names, now=now)
            self._rows("forget_nodes", names=names)
        if ended:
            logger.warning("nodes are gone: jobs=%d are taken up by others", ended)
        return ended

    def _see(self, others: Iterable[str]) -> None:
        known = self._rules and any(rules not in {"", self._rules} for rules in others)
        if known and not self.differ:
            logger.warning(
                "another node goes by other routes: what only one of them knows waits, "
                "and what one has taken in to be marked, for a node that marks it"
            )
        self.differ = bool(known)

    def _be_there(self) -> None:
        """Hold the lock that says so; a session that is new has not got it yet."""
        session = self._server.session
        if session != self._session:
            ((is_held,),) = self._rows("be_there")
            if not is_held:
                raise _InTheWayError(
                    "this node runs already, from a copy of its state folder",
                    hint="Each node has a state folder of its own: delete database.json "
                    "in the copy.",
                )
            self._session = session

    def _note(self) -> None:
        make_folder(self._files / _NODES)
        write_durably(self._files / _NODES / self._node, self._token.encode("ascii"))
        self._rows("note_node", token=self._token, rules=self._rules)

    def _seen_of(self, name: str) -> str:
        try:
            return (self._files / _NODES / name).read_text("ascii")
        except (OSError, ValueError):
            return ""

    def _identity(self) -> str:
        """Return what the folder is known by; made once, by whoever is first."""
        file = self._files / _IDENTITY
        make_folder(self._files)
        try:
            return file.read_text("ascii")
        except FileNotFoundError:
            made = file.with_name(f".{_IDENTITY}.{self._token}")
            write_durably(made, self._random(16).hex().encode("ascii"))
            try:
                os.link(made, file)
            except FileExistsError:
                pass  # another node was faster
            finally:
                made.unlink()
            return file.read_text("ascii")

    def _rows(self, name: str, **values: object) -> list[Any]:
        return self._server.execute(_SQL[name], values | {"name": self._node}).rows

    def _done(self, name: str, **values: object) -> int:
        return self._server.execute(_SQL[name], values | {"name": self._node}).rowcount


@contextmanager
def among(neighbours: Neighbours) -> Iterator[None]:
    """Be one of the nodes until the end of a block, and take up what others leave.

    Raises:
        ConfigError: This one cannot be one of them.
        ServerError: The server cannot be reached.
    """
    over = threading.Event()

    def tend() -> None:
        is_told = False
        while not over.wait(_TEND_S):
            try:
                neighbours.tend()
                is_told = False
            except (ServerError, ConfigError, OSError) as error:
                if not is_told:
                    logger.error("the other nodes cannot be looked after: %s", error)  # noqa: TRY400
                is_told = True

    try:
        neighbours.join()
        tending = threading.Thread(target=tend, daemon=True)
        tending.start()
        try:
            yield
        finally:
            over.set()
            tending.join()
    finally:
        neighbours.close()
