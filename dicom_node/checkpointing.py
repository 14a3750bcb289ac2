"""Checkpoints made when they are due: in the chain, and in a folder besides."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.audit import Event
from dicom_node.audit_files import set_aside
from dicom_node.chain import chain_of
from dicom_node.checkpoints import Checkpoint, facts_of, keep, name_of, written_in
from dicom_node.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from dicom_node.audit import Audit
    from dicom_node.chain import Head
    from miadmark_core.sealing.signing import Signer

EVERY_ENTRIES: Final = 1000
EVERY: Final = timedelta(seconds=60)
"""When the next one is due, whichever comes first; if anything was added."""

_MADE: Final = b'"event": "checkpoint"'
"""In the line of each that is in the chain."""


class Checkpointing:
    """Makes checkpoints when they are due."""

    def __init__(
        self,
        audit: Audit,
        signer: Callable[[], Signer],
        clock: Callable[[], datetime],
        folder: Path | None = None,
    ) -> None:
        """Keep what it needs.

        Args:
            audit: Whose.
            signer: Returns what the site signs with.
            clock: Returns the time, aware.
            folder: Where to keep them besides.
        """
        self._audit, self._signer = audit, signer
        self._clock, self._folder = clock, folder
        self._chain = ""
        self._done = 0
        """The last entry that need not be signed for."""
        self._since: datetime | None = None
        """Since when there are others."""
        self._unkept: list[Checkpoint] = []
        """Made, and not in the folder yet."""
        self._is_compared = False

    def tend(self, *, at_once: bool = False) -> bool:
        """Make one if it is due; say whether one was made.

        Args:
            at_once: It is due if anything was added at all: the node ends.

        Raises:
            AuditError: It cannot be written down.
            KeyFolderError: The site cannot sign now.
            KeyServiceError: Likewise.
            OSError: What was made cannot be kept in the folder yet: it is later.
        """
        try:
            return self._made_if_due(at_once=at_once)
        finally:
            self._keep()

    def _made_if_due(self, *, at_once: bool) -> bool:
        now, number = self._clock(), self._audit.head().number
        if number <= self._done:
            return False
        self._since = self._since or now
        is_due = number - self._done >= EVERY_ENTRIES or now - self._since >= EVERY
        if not is_due and not at_once:
            return False
        signer, made = self._signer(), []

        def facts(last: Head) -> dict[str, str | int]:
            at = now.isoformat(timespec="milliseconds")
            made.append(Checkpoint.made(self._chain_of(), last, at, signer))
            return facts_of(made[0])

        self._done = self._audit.add_after(Event.CHECKPOINT, facts).number
        self._since = None
        if self._folder is not None:
            self._unkept.append(made[0])
        return True

    def _chain_of(self) -> str:
        self._chain = self._chain or chain_of(self._audit.path)
        return self._chain

    def _keep(self) -> None:
        """Keep those in the folder that are not there yet, oldest first."""
        if self._folder is None:
            return
        if not self._is_compared:
            self._unkept = self._missing() + self._unkept
            self._is_compared = True
        while self._unkept:
            keep(self._unkept[0], self._folder)
            del self._unkept[0]

    def _missing(self) -> list[Checkpoint]:
        """Return those in the end of the chain that an earlier process has not kept."""
        assert self._folder is not None  # only then it is asked
        there = {file.name for file in self._folder.iterdir()}
        return [
            one
            for one in self._in_chain()
            if one not in self._unkept
            and one.digest.isalnum()  # it becomes a part of a file's name
            and name_of(one) not in there
        ]

    def _in_chain(self) -> Iterator[Checkpoint]:
        """Yield those in the file that is written to, and the one before it; unchecked.

        Whoever verifies checks them, here and there.
        """
        for file in (*set_aside(self._audit.path)[-1:], self._audit.path):
            with suppress(FileNotFoundError), file.open("rb") as lines:
                for line in lines:
                    if _MADE in line:
                        with suppress(ValueError, AttributeError, AuditError):
                            values = json.loads(line)
                            yield written_in(values, file.name)
