"""The original that is sent next: it is restored while the one before is on its way.

Restoring takes computing, sending takes waiting: for the network, for the disk and for an
answer. Here is the thread that does the one during the other, for one line. One at a time
is made ahead, and whoever has it made takes it before he begins another.

Nothing here knows how it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dicom_node.hands import Hands

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.destination import Destination
    from dicom_node.outgoing import Receiver
    from dicom_node.queue.job import Job

_LONGEST_S: Final = 600.0
"""What is waited for at a time; what takes longer is waited for again."""


class NotNowError(Exception):
    """It cannot be made ahead: it is made when its time comes."""


class NextOriginal:
    """One job that is made ready ahead, in a thread of its own; used by one thread."""

    def __init__(self, name: str) -> None:
        """Begin with none.

        Args:
            name: Of the line.
        """
        self._name, self._hands = f"{name} ahead", Hands()
        self._job: Job | None = None
        self._destination = ""
        self._end: Job | Exception | None = None

    @property
    def is_busy(self) -> bool:
        """Return whether a job is being made ready, or was and is not taken yet."""
        return self._job is not None

    def begin(self, job: Job, destination: str, make: Callable[[Job], Job]) -> None:
        """Have a job made ready; returns at once.

        Args:
            job: Which; nothing else is made meanwhile.
            destination: Who is to be sent it.
            make: Returns it ready, or raises.
        """
        assert self._job is None, "something is made already"
        self._job, self._destination = job, destination

        def made() -> None:
            try:
                self._end = make(job)
            except Exception as error:  # noqa: BLE001 it is raised when its time comes
                self._end = error

        self._hands.begin(self._name, made)

    def taken(self, job: Job, destination: str) -> Job | None:
        """Return a job as it was made ready; None if that was another, or not now.

        Args:
            job: Which.
            destination: Who is sent it: what another may not have is another's trouble.

        Raises:
            Exception: It could not be made, as if it had been tried now.
        """
        if self._job is None or self._job.id != job.id:
            return None
        is_for_another = self._destination != destination
        end = self._finished()
        if is_for_another or isinstance(end, NotNowError):
            return None
        if isinstance(end, Exception):
            raise end
        return end

    def wait(self, within_s: float) -> bool:
        """Say whether nothing is being made any more, after so many seconds at most."""
        return self._hands.wait(within_s)

    def clear(self) -> None:
        """Let be what was made, once it is: whoever needs it finds it in the queue."""
        self._finished()

    def close(self) -> None:
        """End the thread, unless it is at something."""
        self._hands.close()

    def _finished(self) -> Job | Exception | None:
        while not self._hands.wait(_LONGEST_S):
            pass
        self._hands.require_well()
        end, self._end, self._job = self._end, None, None
        return end


class Known:
    """Who is being sent something just now, for what is made ready meanwhile.

    Whoever it is is asked for anew on the very association that an original leaves on.
    """

    def __init__(
        self, destination: Destination, receiver: Receiver, kind: tuple[str, str]
    ) -> None:
        """Keep what is known.

        Args:
            destination: To whom.
            receiver: Who that has turned out to be.
            kind: SOP class and transfer syntax of what is taken there.
        """
        self.destination = destination
        self._receiver, self._kind = receiver, kind

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        """Return who would be sent an instance of that class and transfer syntax.

        Raises:
            NotNowError: Nobody knows whether such instances are taken.
        """
        if (sop_class, syntax) != self._kind:
            raise NotNowError
        return self._receiver
