"""Threads that do things side by side, one for each name, each one thing at a time.

A thread stays once it has begun: what was started by it, and ends with it, must not end
while others use it. What goes wrong in one is raised to whoever gives out the work.

Nothing here knows what is done.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]


class Hands:
    """The threads of a process; one thread gives them their work."""

    def __init__(self, finished: Callable[[], object] = lambda: None) -> None:
        """Begin with none.

        Args:
            finished: Called each time that something is finished, in its thread.
        """
        self._finished = finished
        self._changed = threading.Condition()
        self._todo: dict[str, Work] = {}
        self._busy: set[str] = set()
        self._trouble: list[BaseException] = []
        self._is_closing = False
        self._threads: dict[str, threading.Thread] = {}

    @property
    def busy(self) -> frozenset[str]:
        """Return the names of those that are at something."""
        with self._changed:
            return frozenset(self._busy)

    def begin(self, name: str, work: Work) -> None:
        """Have something done; returns at once.

        Args:
            name: Whose, and who is not busy.
            work: What is done.
        """
        with self._changed:
            assert name not in self._busy, name
            self._busy.add(name)
            self._todo[name] = work
            self._changed.notify_all()
        if name not in self._threads:
            # Whoever is waited for in vain must not keep the process from ending.
            self._threads[name] = threading.Thread(
                target=self._run, args=[name], name=name, daemon=True
            )
            self._threads[name].start()

    def require_well(self) -> None:
        """Raise what has gone wrong in a thread, each error once."""
        with self._changed:
            if not self._trouble:
                return
            error = self._trouble.pop(0)
        raise error

    def wait(self, within_s: float) -> bool:
        """Return once nobody is busy, or after so many seconds; say whether nobody is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, within_s)

    def close(self) -> None:
        """End the threads; those that are busy are left alone."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            idle = [t for name, t in self._threads.items() if name not in self._busy]
        for thread in idle:
            thread.join()

    def _run(self, name: str) -> None:
        while (work := self._next(name)) is not None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 it is raised elsewhere
                with self._changed:
                    self._trouble.append(error)
            with self._changed:
                self._busy.discard(name)
                self._changed.notify_all()
            self._finished()

    def _next(self, name: str) -> Work | None:
        """Return what is to be done; None to end."""
        with self._changed:
            self._changed.wait_for(lambda: name in self._todo or self._is_closing)
            return self._todo.pop(name, None)
