"""What was found: fine, worth knowing, or wrong; a sentence, and what to do about it.

Pure. Sentences name files, numbers, routes and destinations; never a patient, a key or
a pixel.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How much something matters."""

    OK = "ok"
    """It was looked at, and is as it should be."""
    NOTE = "note"
    """The node works; somebody may want to know, or could not be told."""
    WRONG = "wrong"
    """Something does not work, will not for long, or is open to others."""


class Finding(NamedTuple):
    """One of them."""

    level: Level
    says: str
    """In lower case, without a full stop."""
    hint: str = ""
    """What to try next."""


class Named(NamedTuple):
    """A finding, and the name of the check that made it."""

    about: str
    finding: Finding


def ok(says: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(Level.OK, says)


def note(says: str, hint: str = "") -> Finding:
    """Return that something is worth knowing."""
    return Finding(Level.NOTE, says, hint)


def wrong(says: str, hint: str = "") -> Finding:
    """Return that something is wrong."""
    return Finding(Level.WRONG, says, hint)
