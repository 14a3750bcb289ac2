"""A word to stop that a signal may give at any moment.

A handler runs in the main thread, between any two of its instructions: also within
``wait``, while that holds the lock of the event. With a lock that its own holder may not
take again, which is what an event has, ``set`` would wait there for ever: the process
could neither stop nor go on, and would keep its port.
"""

from __future__ import annotations

import threading


class Stopping(threading.Event):
    """An event that handlers of signals may set.

    What is set just before a wait begins may be seen only when that is over: wait with a
    timeout.
    """

    def __init__(self) -> None:
        """Begin unset."""
        super().__init__()
        self._cond = threading.Condition(threading.RLock())
