"""A connection to a PostgreSQL server, for whatever keeps tables there.

What is committed is durable when that returns; a transaction that fails has changed
nothing, unless the server went away while it was told to commit: then nobody here knows,
and that is said.
A connection that broke is made again when it is next used. Nothing is sent twice: whoever
is told of a failure does it again, or tells whom it concerns.

This is the only module that knows psycopg. It knows nothing of tables.
"""

from __future__ import annotations

import re
import select
import threading
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from dicom_node.errors import ConfigError, ServerError, UnsureError
from dicom_node.extras import extra

with extra("postgres", "a database on a PostgreSQL server"):
    import psycopg
    from psycopg.adapt import Loader
    from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from dicom_node.queueing import Queueing

_DEFAULTS: Final = {
    "application_name": "miadmark",
    "connect_timeout": 10,
    # A server that is cut off is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
"""Unless the address says otherwise."""

# Who cannot go on after half a minute says so; who stops in the middle lets go, and who
# is cut off is noticed within half a minute on that side too.
_BEGIN: Final = """
SELECT set_config('lock_timeout', '30s', false),
       set_config('tcp_keepalives_idle', '10', false),
       set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '4', false),
       set_config('idle_in_transaction_session_timeout', '120s', false),
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN set_config('synchronous_commit', 'on', false) END,
       pg_is_in_recovery()
"""
_ALONE: Final = "SELECT pg_advisory_xact_lock(hashtextextended(?, 0))"
_NAMED: Final = re.compile(r"(?<!:):([a-z_][a-z0-9_]*)")


class _Whole(Loader):
    """Sums of whole numbers are whole numbers."""

    def load(self, data: Any) -> int:
        return int(bytes(data))


class Answer(NamedTuple):
    """What a statement came to."""

    rows: list[Any]
    rowcount: int
    """How many it returned, or changed."""

    def fetchone(self) -> Any:
        """Return its first row; None if there is none."""
        return self.rows[0] if self.rows else None

    def fetchall(self) -> list[Any]:
        """Return its rows."""
        return self.rows


class Server:
    """One connection, made on first use, which several threads may use."""

    def __init__(self, place: Queueing) -> None:
        """Keep where it goes."""
        self._place = place
        self._connection: psycopg.Connection[Any] | None = None
        self._is_in_transaction = False
        self._lock = threading.RLock()
        self._sessions = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    @property
    def session(self) -> int:
        """Return which connection it is, of those that were made; locks end with it."""
        self._open()
        return self._sessions

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def execute(
        self, statement: str, values: dict[str, object] | Sequence[object] = ()
    ) -> Answer:
        """Carry out one statement; outside a transaction it is one by itself.

        Args:
            statement: With ``:names`` of values, or with a ``?`` for each.
            values: By name, or in order.

        Raises:
            ServerError: It has failed: in a transaction, nothing of that is done. By
                itself it may have been, where the server went away meanwhile.
        """
        with self._lock, _told():
            connection = self._open()
            given: Any
            if isinstance(values, dict):
                given = {name: _plain(value) for name, value in values.items()}
            else:
                given = [_plain(value) for value in values]
            # Statements are those of this program.
            cursor = connection.execute(_translated(statement), given)
            rows = cursor.fetchall() if cursor.description else []
            return Answer(rows, cursor.rowcount)

    def executemany(self, statement: str, values: Iterable[Sequence[object]]) -> None:
        """Carry out a statement for each of ``values``."""
        for one in values:
            self.execute(statement, one)

    def executescript(self, script: str) -> None:
        """Carry out statements that take no values.

        Raises:
            ServerError: One has failed.
        """
        with self._lock, _told():
            connection = self._open()
            connection.execute(script)

    @contextmanager
    def transaction(
        self, *, alone: str = "", lasts: bool = True, reads: bool = False
    ) -> Iterator[None]:
        """Do what is done in a block as one, and durably.

        Args:
            alone: What nobody else may be at meanwhile, wherever he is.
            lasts: False for what a power cut of the server may undo.
            reads: Nothing is changed: what is read is of one moment.

        Raises:
            UnsureError: It may have been done, or not: the server went away.
            ServerError: It has not been done.
        """
        begin = "BEGIN"
        if reads:
            begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        elif not lasts:
            begin = "BEGIN; SET LOCAL synchronous_commit TO OFF"
        with self._lock:
            self.executescript(begin)
            self._is_in_transaction = True
            try:
                if alone:
                    self.execute(_ALONE, (f"miadmark {alone}",))
                yield
            except BaseException:
                self._is_in_transaction = False
                self._roll_back()
                raise
            self._is_in_transaction = False
            self._commit()

    def _commit(self) -> None:
        connection = self._connection
        if connection is None:
            raise ServerError("it went away")
        try:
            cursor = connection.execute("COMMIT")
        except psycopg.Error as error:
            is_gone = connection.closed
            self._roll_back()
            if is_gone:
                raise UnsureError("it went away while it was told to commit") from error
            raise ServerError(_primary(error)) from error
        if cursor.statusmessage != "COMMIT":  # it was a failed one
            raise ServerError("it has not committed")

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            self.close()

    def _open(self) -> psycopg.Connection[Any]:
        """Return the connection; made again if it is known to be broken."""
        connection = self._connection
        if connection is not None and _is_broken(connection):
            self.close()
            connection = None
        if connection is None:
            if self._is_in_transaction:  # what was done in it is gone
                raise ServerError("it went away")
            connection = self._connection = self._connected()
            self._sessions += 1
        return connection

    def _connected(self) -> psycopg.Connection[Any]:
        with _told():
            connection = psycopg.connect(
                **settings(self._place),  # type: ignore[arg-type]
                autocommit=True,
            )
        connection.adapters.register_loader("numeric", _Whole)
        try:
            with _told():
                (*_, only_reads) = connection.execute(_BEGIN).fetchone() or (True,)
        except BaseException:
            connection.close()
            raise
        if only_reads:
            connection.close()
            raise ServerError("it only reads: it is a standby")
        return connection


def settings(place: Queueing) -> dict[str, object]:
    """Return what a connection is made with.

    Raises:
        ConfigError: The password cannot be read.
        ServerError: The address is none.
    """
    with _told():
        found = {**_DEFAULTS, **conninfo_to_dict(place.database)}
    if place.password_file is not None:
        found["password"] = _password(place.password_file)
    return found


def _password(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip("\r\n")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the password of the database cannot be read from {file}",
            hint="By the account that the node runs under.",
        ) from error


def _is_broken(connection: psycopg.Connection[Any]) -> bool:
    """Say whether a connection is known to be broken, without asking the server."""
    if connection.closed:
        return True
    try:
        heard, _, _ = select.select([connection.fileno()], [], [], 0)
        if heard:  # nobody was asked anything: it says that it goes
            connection.pgconn.consume_input()
            heard, _, _ = select.select([connection.fileno()], [], [], 0)
            return bool(heard) or connection.closed
    except (psycopg.Error, OSError, ValueError):
        return True
    return False


@cache
def _translated(statement: str) -> str:
    """Return a statement with its values named as psycopg names them."""
    text = _NAMED.sub(r"%(\1)s", statement.replace("%", "%%"))
    return text.replace("?", "%s")


def _plain(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise ServerError(_primary(error)) from error


def _primary(error: psycopg.Error) -> str:
    """Return what went wrong, without the values that it went wrong with."""
    text = error.diag.message_primary or str(error)
    return " ".join(text.split())[:300] or type(error).__name__
