"""The marks that originals went out with, so that each goes out with one mark only.

Two different marks of one original give each other away: their difference, or their mean,
is a step towards the picture without any. So what the search found for an original is
kept before anything of it leaves, and whatever happens afterwards, it is used again:
after a crash, on another route, when the same original comes in once more years later,
with other weights. Where it would nevertheless come to other pixels, there is an error,
and nothing leaves.

An original is its SOP Instance UID and its pixels; the mark also belongs to the way the
site marks (profile and mode) and to a finding that somebody drew: who changes those wants
another mark.

The table lies in the ledger's file. It holds keyed hashes and what only the site's keys
open. Shredding a record takes the mark away, and leaves the digest of what it came to.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicom_node.errors import AnotherMarkError, LedgerError
from dicom_node.ledger import SCHEMA
from dicom_node.tables import FAILURES, Tables, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dicom_node.queueing import Queueing
    from dicom_node.uids import Keyed
    from miadmark_core.search.finder import FoundMark

_NONCE_SIZE: Final = 12


class _Kept(NamedTuple):
    marked_digest: bytes
    sealed: bytes | None


class FoundMarks(Tables):
    """A table of what was found for which original; one connection, one thread."""

    def __init__(
        self,
        place: Path | Queueing,
        keyed: Keyed,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Open the table, or make it.

        Args:
            place: The ledger's.
            keyed: Of this site.
            random: Returns that many bytes nobody can predict.

        Raises:
            LedgerError: The file cannot be opened.
        """
        self._cipher = AESGCM(keyed(b"found marks"))
        self._random = random
        with _translated():
            self._database = opened(place, SCHEMA)

    def find(self, source: bytes) -> list[FoundMark] | None:
        """Return the marks that an original goes out with; None if it never did.

        Args:
            source: What the original is known by: ``MarkedInstance.source``.

        Raises:
            LedgerError: The file cannot be read.
        """
        kept = self._kept(source)
        if kept is None or kept.sealed is None:
            return None
        return self._opened(source, kept.sealed)

    def keep(
        self, source: bytes, found: Sequence[FoundMark], marked_digest: bytes
    ) -> None:
        """Say that an original goes out with these marks; durable when this returns.

        Args:
            source: What the original is known by.
            found: What the search found for it.
            marked_digest: Of the pixels that it came to.

        Raises:
            AnotherMarkError: It went out with another mark.
            LedgerError: It cannot be written; or somebody marked the same original at
                the same time, so that it has to be marked again, as he did.
        """
        with _translated():
            added = self._database.execute(
                "INSERT INTO marked (source, marked_digest, sealed) VALUES (?, ?, ?)"
                " ON CONFLICT (source) DO NOTHING",
                (source, marked_digest, self._sealed(source, found)),
            )
        if added.rowcount == 1:
            return
        kept = self._kept(source)
        if kept is not None and kept.marked_digest == marked_digest:
            return
        before = None if kept is None or not kept.sealed else kept.sealed
        if before is not None and not _are_equal(self._opened(source, before), found):
            raise LedgerError(
                "the same original was marked meanwhile, so it is marked again likewise"
            )
        raise AnotherMarkError(
            "the original went out with another mark before, and two marks of one "
            "original give each other away",
            hint="Its display window was changed since, or its record was shredded. "
            "Send it under a new SOP Instance UID if it has to go out once more.",
        )

    def _kept(self, source: bytes) -> _Kept | None:
        with _translated():
            row = self._database.execute(
                "SELECT marked_digest, sealed FROM marked WHERE source = ?", (source,)
            ).fetchone()
        return None if row is None else _Kept(*row)

    def _sealed(self, source: bytes, found: Sequence[FoundMark]) -> bytes:
        nonce = self._random(_NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, _encoded(found), source)

    def _opened(self, source: bytes, sealed: bytes) -> list[FoundMark]:
        nonce, ciphertext = sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:]
        try:
            return _decoded(self._cipher.decrypt(nonce, ciphertext, source))
        except InvalidTag:
            raise LedgerError(
                "a mark that was kept does not open",
                hint="Somebody has changed the ledger, or its keys are others. Tell "
                "whoever looks after security.",
            ) from None


def _encoded(found: Sequence[FoundMark]) -> bytes:
    """Return marks as bytes: a line that describes them, and their steps."""
    head = [
        {"shape": mark.steps.shape, "misled": mark.misled, "is_logo": mark.is_logo}
        for mark in found
    ]
    steps = b"".join(mark.steps.astype(np.int8).tobytes() for mark in found)
    return zlib.compress(json.dumps(head).encode("ascii") + b"\n" + steps)


def _decoded(encoded: bytes) -> list[FoundMark]:
    """Return the marks; the inverse of :func:`_encoded`."""
    from miadmark_core.search.finder import FoundMark

    line, _, steps = zlib.decompress(encoded).partition(b"\n")
    found, start = [], 0
    for one in json.loads(line):
        end = start + math.prod(one["shape"])
        grid = np.frombuffer(steps[start:end], np.int8).reshape(one["shape"])
        found.append(FoundMark(grid, one["misled"], is_logo=one["is_logo"]))
        start = end
    return found


def _are_equal(some: Sequence[FoundMark], others: Sequence[FoundMark]) -> bool:
    return len(some) == len(others) and all(
        np.array_equal(one.steps, other.steps) and one.is_logo == other.is_logo
        for one, other in zip(some, others, strict=True)
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise LedgerError(
            f"the marks that went out cannot be looked up or written down: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error
