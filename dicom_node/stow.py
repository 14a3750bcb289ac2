"""STOW-RS out: store instances on a web server, and say truthfully what became of each.

A file is streamed as it lies in the spool, byte for byte (:mod:`dicom_node.outgoing` says
in which form): a client that reads a data set and writes it again may change bytes that
are not its own, and holds all of it in memory. Several instances go in one request.

An instance is sent when the server names it among those that it has stored. Redirections
are not followed: whoever they lead to has not been authorised.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from dicom_node.decoding import decode_frames
from dicom_node.errors import NodeError, SendInterruptedError
from dicom_node.outgoing import Receiver
from dicom_node.stow_forms import Forms
from dicom_node.stow_item import Item, Parcel
from dicom_node.stow_message import UNSAID, AnswerError, Kind, outcomes
from dicom_node.stow_requests import StowRequests, UnreadableError
from dicom_node.stow_verdict import (
    FOR_ONE,
    FORBIDDEN,
    NAMES_EACH,
    NOT_KNOWN,
    end,
    trouble,
    unexplained,
)
from dicom_node.web_connection import WebConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from dicom_node.decoding import Decode
    from dicom_node.destination import Destination
    from dicom_node.outgoing import Computing
    from dicom_node.sealed_file import Stored
    from dicom_node.stow_item import Allow
    from dicom_node.stow_message import Outcome
    from dicom_node.throttle import Throttle
    from dicom_node.web_connection import Answer

logger = logging.getLogger(__name__)

_End = tuple[Item, Exception | Kind | None]


class StowSending:
    """A connection to one server."""

    def __init__(
        self,
        destination: Destination,
        decode: Decode = decode_frames,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        throttle: Throttle | None = None,
        boundary: Callable[[], str] = lambda: secrets.token_hex(24),
    ) -> None:
        """Prepare; nothing is opened before it is needed.

        Args:
            destination: Where to send.
            decode: Calls the codecs, for what came compressed.
            clock: Returns the time, aware.
            throttle: Holds it to a speed.
            boundary: Returns what nobody can guess, and no file holds.
        """
        self.destination = destination
        self._clock = clock
        self._connection = WebConnection(destination)
        self._requests = StowRequests(destination, self._connection, throttle, boundary)
        self._forms = Forms(destination, decode)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._connection.close()

    def send(
        self,
        file: Stored,
        allow: Allow = lambda _: None,
        computing: Computing = nullcontext,
    ) -> None:
        """Return once the server has said that it has the instance in ``file``.

        Args:
            file: What to send.
            allow: See :class:`Parcel`.
            computing: Likewise.

        Raises:
            SendRefusedError: It said no, and would say so again.
            SendInterruptedError: Something came between; the same may work later.
        """
        (error,) = self.send_all([Parcel(file, allow, computing)])
        if error is not None:
            raise error

    def send_all(self, parcels: Sequence[Parcel]) -> list[Exception | None]:
        """Send instances, several in a request, and return what is wrong with each.

        Returns:
            In the order of ``parcels``: None for what the server has, and else what
            :meth:`send` or its ``allow`` raises.
        """
        # Nobody has anything before that is said.
        unsaid = SendInterruptedError(f"{self.destination.named}: it was not sent")
        ends: list[Exception | None] = [unsaid] * len(parcels)
        waiting: list[Item] = []
        for number, parcel in enumerate(parcels):
            try:
                waiting.append(self._forms.made_ready(number, parcel))
            except Exception as error:  # noqa: BLE001 it is returned
                ends[number] = error
        try:
            while waiting:
                batch = self._batch(waiting)
                del waiting[: len(batch)]
                for item, said in self._sent(batch):
                    if said is None or isinstance(said, Exception):
                        ends[item.number] = said
                        item.clear()
                        continue
                    try:
                        waiting.append(self._forms.another(item))
                    except Exception as error:  # noqa: BLE001 it is returned
                        ends[item.number] = error
        finally:
            for item in waiting:
                item.clear()
        return ends

    def receiver(self, sop_class: str, syntax: str) -> Receiver:  # noqa: ARG002 as over associations
        """Return who would be sent an instance.

        Raises:
            SendInterruptedError: Nobody can be reached.
        """
        return Receiver(
            ae_title=self.destination.ae_title,
            address=self.destination.address,
            fingerprint=self._connection.open(),
        )

    def probe(self) -> None:
        """Return if the server answers, and knows this node.

        Raises:
            SendInterruptedError: It does not.
        """
        answer = self._requests.options()
        if answer.status in {204, 405}:
            return  # it knows the address, if not the method
        named, wait = self.destination.named, answer.retry_after
        wrong = trouble(named, answer.status, wait, self._clock())
        if wrong is not None:
            raise wrong

    def _batch(self, waiting: Sequence[Item]) -> list[Item]:
        """Return what goes in the next request."""
        room = self.destination.request_mb * (1 << 20)
        batch: list[Item] = []
        for item in waiting:
            room -= item.size
            # Of two that have one name, what is answered would be said of either.
            is_named = any(item.sop_instance == one.sop_instance for one in batch)
            if batch and (room < 0 or is_named):
                break
            batch.append(item)
        return batch

    def _sent(self, batch: Sequence[Item]) -> Iterator[_End]:
        """Yield what becomes of each; ``Kind.SYNTAX`` where another form may do."""
        try:
            receiver = self.receiver("", "")
        except Exception as error:  # noqa: BLE001 it is returned
            said = self._unforeseen(error)
            yield from ((item, said) for item in batch)
            return
        allowed = []
        for item in batch:
            try:
                item.parcel.allow(receiver)
            except Exception as error:  # noqa: BLE001 it is returned
                yield item, error
            else:
                allowed.append(item)
        if not allowed:
            return
        try:
            answer = self._requests.store(allowed)
        except UnreadableError as error:
            # Half a request is on its way, and nobody has anything of it.
            yield error.item, error.why
            yield from self._sent([item for item in allowed if item is not error.item])
            return
        except Exception as error:  # noqa: BLE001 it is returned
            said = self._unforeseen(error, may_have_it=True)
            yield from ((item, said) for item in allowed)
            return
        yield from self._ends(answer, allowed)

    def _unforeseen(self, error: Exception, *, may_have_it: bool = False) -> Exception:
        """Return trouble around a request; what nobody foresaw is no instance's fault."""
        if isinstance(error, NodeError):
            return error
        logger.error("failed destination=%s", self.destination.name, exc_info=error)
        said = SendInterruptedError(
            f"{self.destination.named}: nothing can be asked there: "
            f"{type(error).__name__}",
            hint="Look at the log of that time, and at the destination's url.",
        )
        said.__cause__, said.may_have_it = error, may_have_it
        return said

    def _ends(self, answer: Answer, batch: Sequence[Item]) -> Iterator[_End]:
        named = self.destination.named
        wrong = trouble(named, answer.status, answer.retry_after, self._clock())
        if wrong is not None and self._is_well(answer):
            wrong = None
        said: dict[str, Outcome] | None = None
        if wrong is None and answer.status in NAMES_EACH:
            with suppress(AnswerError):
                said = outcomes(answer.content)
        if wrong is not None:
            yield from ((item, wrong) for item in batch)
        elif said is not None:
            for item in batch:
                yield item, end(named, said.get(item.sop_instance, UNSAID))
        elif len(batch) > 1 and answer.status in {*FOR_ONE, *FORBIDDEN}:
            # One of them is at fault, and it is not said which.
            for item in batch:
                yield from self._sent([item])
        else:
            for item in batch:
                yield item, unexplained(named, answer.status)

    def _is_well(self, answer: Answer) -> bool:
        """Say whether the server, which has said no, lets this node in all the same."""
        if answer.status not in FORBIDDEN:
            return False
        try:
            asked = self._requests.options()
        except Exception:  # noqa: BLE001 then it is not
            return False
        if asked.status == 405:
            # It knows the address, and may not have looked at who asks.
            return answer.status not in NOT_KNOWN
        return 200 <= asked.status < 300
