"""Figures that the processes of a node note beside their work: how long, how many now.

Nothing depends on them: they are kept in memory, written to a small file from time to
time without waiting for the disk, and lost where that cannot be done. What must not be
lost is counted elsewhere (:mod:`dicom_node.queue.history`).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from bisect import bisect_left
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

logger = logging.getLogger(__name__)

ASSOCIATIONS: Final = "associations"
"""How many are open, in each process that receives."""

BOUNDS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
"""Seconds: what took no longer than each is counted below it."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS duration (
    what    TEXT NOT NULL,
    bucket  INTEGER NOT NULL,     -- number of the bound; one more: longer than all
    times   INTEGER NOT NULL,
    total   REAL NOT NULL,        -- seconds
    PRIMARY KEY (what, bucket)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS level (
    what    TEXT NOT NULL,
    who     TEXT NOT NULL,
    value   REAL NOT NULL,
    PRIMARY KEY (what, who)
) WITHOUT ROWID;
"""


class Histogram(NamedTuple):
    """How long something took."""

    counts: tuple[int, ...]
    """For each of :data:`BOUNDS`, and one for what took longer."""
    total: float
    """Seconds."""


class Figures:
    """The figures of one process, of all its threads; written by :meth:`flush`."""

    def __init__(self, path: Path) -> None:
        """Keep where they go; the file is made when there is something to write."""
        self.path = path
        self._lock = threading.Lock()
        self._durations: dict[tuple[str, int], tuple[int, float]] = {}
        self._levels: dict[tuple[str, str], float] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write down what is left."""
        self.flush()

    def took(self, what: str, seconds: float) -> None:
        """Note how long something took."""
        key = (what, bisect_left(BOUNDS, seconds))
        with self._lock:
            times, total = self._durations.get(key, (0, 0.0))
            self._durations[key] = (times + 1, total + seconds)

    def stands(self, what: str, who: str, value: float) -> None:
        """Note how much there is of something now, at one process."""
        with self._lock:
            self._levels[what, who] = value

    def flush(self) -> None:
        """Write down what was noted; what cannot be written is lost."""
        with self._lock:
            durations, self._durations = self._durations, {}
            levels, self._levels = self._levels, {}
        if not durations and not levels:
            return
        try:
            with closing(_opened(self.path)) as database, database:
                database.executemany(
                    "INSERT INTO duration VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                    " SET times = times + excluded.times, total = total + excluded.total",
                    [(*key, *noted) for key, noted in durations.items()],
                )
                database.executemany(
                    "INSERT OR REPLACE INTO level VALUES (?, ?, ?)",
                    [(*key, value) for key, value in levels.items()],
                )
        except sqlite3.Error as error:
            logger.warning("figures cannot be written: %s", error)


def histograms(path: Path) -> dict[str, Histogram]:
    """Return how long each thing took, in all processes."""
    found: dict[str, Histogram] = {}
    for what, bucket, times, total in _rows(path, "SELECT * FROM duration"):
        before = found.get(what, Histogram((0,) * (len(BOUNDS) + 1), 0.0))
        counts = list(before.counts)
        counts[bucket] += times
        found[what] = Histogram(tuple(counts), before.total + total)
    return found


def level(path: Path, what: str) -> float:
    """Return how much there is of something, over all processes."""
    rows = _rows(path, "SELECT value FROM level WHERE what = ?", what)
    return float(sum(value for (value,) in rows))


def forget_levels(path: Path) -> None:
    """Forget how much there was at processes that are gone."""
    if path.exists():
        try:
            with closing(_opened(path)) as database, database:
                database.execute("DELETE FROM level")
        except sqlite3.Error as error:
            logger.warning("figures cannot be written: %s", error)


def _rows(path: Path, statement: str, *values: str) -> list[Any]:
    if not path.exists():
        return []
    try:
        with closing(_opened(path)) as database:
            return database.execute(statement, values).fetchall()
    except sqlite3.Error as error:
        logger.warning("figures cannot be read: %s", error)
        return []


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=0.2)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.executescript(_SCHEMA)
    return database
