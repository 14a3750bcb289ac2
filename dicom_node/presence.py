"""Which processes of a node are there: each holds a lock, as long as it does its work.

The kernel drops a lock with its holder, so that nobody is called and nothing is asked.
Some processes hold a lock anyway, so that there is only one of them. Of those that there
are several of, each holds one of its own, so that they can be counted.
"""

from __future__ import annotations

import fcntl
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dicom_node.supervising import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECEIVING: Final = "receiving"
"""Kind of those that accept what comes, and not of those that leave."""


@contextmanager
def present(state: Path, name: str) -> Iterator[None]:
    """Be seen by :func:`is_present` until the end of a block.

    Args:
        state: The state folder.
        name: Of the process.
    """
    with (state / f"{name}.lock").open("ab") as stream:
        # Whoever looks holds it for a moment.
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield


@contextmanager
def present_among(state: Path, kind: str) -> Iterator[None]:
    """Be counted by :func:`how_many` until the end of a block.

    Each holds the first lock that nobody else of its kind does.

    Args:
        state: The state folder.
        kind: Of the process.
    """
    for number in itertools.count():
        if (held := locked(state / f"{kind}-{number}.lock")) is not None:
            with held:
                yield
            return


def is_present(state: Path, name: str) -> bool:
    """Say whether a process of that name is there.

    Args:
        state: The state folder.
        name: Of the process.
    """
    lock = state / f"{name}.lock"
    if not lock.exists():  # looking leaves nothing behind
        return False
    return _is_held(lock, is_shared=False)


def how_many(state: Path, kind: str) -> int:
    """Return how many processes of a kind are there.

    Args:
        state: The state folder.
        kind: Of the processes.
    """
    locks = state.glob(f"{kind}-*.lock")
    return sum(_is_held(lock, is_shared=True) for lock in locks)


def _is_held(lock: Path, *, is_shared: bool) -> bool:
    held = locked(lock, is_shared=is_shared)
    if held is None:
        return True
    held.close()
    return False
