"""Which processes of a node are there: each holds a lock, as long as it does its work.

The kernel drops a lock with its holder, so that nobody is called and nothing is asked.
Some processes hold a lock anyway, so that there is only one of them; those that do not
hold one that they share with others of their kind.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dicom_node.supervising import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECEIVING: Final = "receiving"
"""Name of those that accept what comes, and not of those that leave."""


@contextmanager
def present(state: Path, name: str) -> Iterator[None]:
    """Be seen by :func:`is_present` until the end of a block.

    Args:
        state: The state folder.
        name: Of the process, or its kind.
    """
    with (state / f"{name}.lock").open("ab") as stream:
        # Whoever looks holds it for a moment.
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield


def is_present(state: Path, name: str) -> bool:
    """Say whether a process of that name is there.

    Args:
        state: The state folder.
        name: Of the process, or its kind.
    """
    lock = state / f"{name}.lock"
    if not lock.exists():  # looking leaves nothing behind
        return False
    held = locked(lock)
    if held is None:
        return True
    held.close()
    return False
