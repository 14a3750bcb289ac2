"""What derived objects are called: a name that follows from the original's.

A new UID depends on the original's UID, the site's key and the style of its marks, and on
nothing else. So whoever refers to an object can be told its new name before, or without,
ever seeing it marked; and nobody without the key can tell which original it names.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Keyed = Callable[[bytes], bytes]
    """Returns 32 bytes that only this site can derive from what it is given."""


def derived_uid(keyed: Keyed, style: str, source: str) -> str:
    """Return the SOP Instance UID of what is derived from the instance ``source``.

    Args:
        keyed: Of this site.
        style: How it marks; two styles of one original are two objects.
        source: The original's SOP Instance UID.
    """
    return _uid(keyed(b"instance\0" + style.encode() + b"\0" + source.encode()))


def derived_series(keyed: Keyed, source: str) -> str:
    """Return the Series Instance UID of what is derived from instances of ``source``."""
    return _uid(keyed(b"series\0" + source.encode()))


def _uid(keyed: bytes) -> str:
    """Return a UID in the form of PS3.5 B.2: 2.25 and a UUID as a number."""
    return f"2.25.{uuid.UUID(bytes=keyed[:16], version=4).int}"
