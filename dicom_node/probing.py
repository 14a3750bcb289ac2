"""Asks destinations that are down whether they are there again, beside all other work."""

from __future__ import annotations

import logging
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from dicom_node.errors import SendError, SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dicom_node.config import Config
    from dicom_node.destination import Destination
    from dicom_node.reachability import Reachability

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.25


class Probing:
    """A thread that asks, each destination in another thread: some take long to say no.

    Several processes may have one: whom one asks, the others do not. That nobody can be
    asked is said once, and once that it is over.
    """

    def __init__(
        self,
        config: Config,
        reachability: Callable[[], Reachability],
        probe: Callable[[Destination], None],
        clock: Callable[[], datetime],
    ) -> None:
        """Keep what it needs; it begins with :meth:`start`.

        Args:
            config: Who there is.
            reachability: Opens the table, for the thread that is to use it.
            probe: Returns if a destination answers, and raises SendError if not.
            clock: Returns the time, aware.
        """
        self._config, self._reachability = config, reachability
        self._probe, self._clock = probe, clock
        self._stopping = threading.Event()
        self._said: SimpleQueue[tuple[str, str]] = SimpleQueue()
        """Name of who was asked, and why he is down; empty if he answered."""
        self._thread = threading.Thread(target=self._run, name="probing", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what was asked last may be answered to nobody."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        is_told = False
        with self._reachability() as table:
            while not self._stopping.wait(_LOOK_S):
                try:
                    self._turn(table)
                except SpoolError as error:
                    if not is_told:
                        logger.error(  # noqa: TRY400 - the sentence says all
                            "nobody is asked whether it is there again: %s. %s",
                            error,
                            error.hint,
                        )
                    is_told = True
                else:
                    if is_told:
                        logger.warning("who is down is asked again")
                    is_told = False

    def _turn(self, table: Reachability) -> None:
        for name in table.to_ask(self._clock()):
            (destination,) = self._config.members(name)
            threading.Thread(target=self._ask, args=[destination], daemon=True).start()
        while True:
            try:
                name, reason = self._said.get_nowait()
            except Empty:
                return
            if reason:
                table.silent(name, reason)
            else:
                table.answered(name)
                logger.info("answers destination=%s", name)

    def _ask(self, destination: Destination) -> None:
        try:
            self._probe(destination)
        except SendError as error:
            self._said.put((destination.name, str(error)))
        else:
            self._said.put((destination.name, ""))
