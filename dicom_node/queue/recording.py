"""Has a queue keep its history: triggers are put into its file, once.

What a queue of an earlier version knows of its past is taken over.
"""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import TYPE_CHECKING, Final

from dicom_node.queue.statements import keep_trigger

if TYPE_CHECKING:
    from collections.abc import Iterator

_BACKFILL: Final = """
INSERT INTO event SELECT 'received', '', '', count(*) FROM instance HAVING count(*) > 0;
INSERT INTO event SELECT 'owed', route, destination, count(*) FROM job GROUP BY 2, 3;
INSERT INTO event
    SELECT CASE WHEN state <> 'sent' THEN state
                WHEN purpose LIKE 'mark %' THEN 'sent marked'
                WHEN purpose LIKE 'strip %' THEN 'sent stripped'
                WHEN purpose LIKE 'refer %' THEN 'sent referring'
                ELSE 'sent as it came' END,
           route, destination, count(*)
      FROM job WHERE state IN ('sent', 'held', 'quarantined', 'dropped')
     GROUP BY 1, 2, 3;
INSERT INTO pace SELECT substr(received, 1, 15), 'received', count(*)
  FROM instance GROUP BY 1;
INSERT INTO pace SELECT substr(settled, 1, 15), 'sent', count(*)
  FROM job WHERE settled <> '' GROUP BY 1;
INSERT INTO step SELECT id, 1, NULL, received, 'received', '' FROM instance;
"""
"""What a queue of an earlier version says of its past."""


def prepare(database: sqlite3.Connection) -> None:
    """Have a queue keep its history from now on; in a transaction of its own.

    Raises:
        sqlite3.Error: It cannot.
    """
    script = resources.files("dicom_node.queue").joinpath("history.sql")
    have = "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = 'job_ready'"
    statements = [one.strip() for one in _statements(script.read_text("utf-8"))]
    triggers = [one for one in statements if one.startswith("CREATE TRIGGER")]
    if not database.execute(have).fetchone():
        database.execute("BEGIN IMMEDIATE")
        try:
            if not database.execute(have).fetchone():
                for statement in statements:
                    if statement in triggers:
                        keep_trigger(database, statement)
                    else:
                        database.execute(statement)
                for statement in _statements(_BACKFILL):
                    database.execute(statement)
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise
    for statement in triggers:
        keep_trigger(database, statement)


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script, triggers whole."""
    found = ""
    for line in script.splitlines(keepends=True):
        found += line
        if sqlite3.complete_statement(found):
            yield found
            found = ""
