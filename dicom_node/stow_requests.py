"""What a STOW-RS server is asked: whether it is there, and to store instances.

A request is as long as it has said, or is broken off: files are streamed as they lie, and
one that has become shorter, or cannot be read, is named to whoever sends it with others.
Nothing here judges what is answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dicom_node.errors import SendInterruptedError
from dicom_node.stow_message import ANSWER_TYPE, body, body_size, content_type
from dicom_node.web_connection import bearer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dicom_node.destination import Destination
    from dicom_node.stow_item import Item
    from dicom_node.throttle import Throttle
    from dicom_node.web_connection import Answer, WebConnection

_PIECE: Final = 256 * 1024


class UnreadableError(Exception):
    """A file cannot be sent; the others of a request are not at fault."""

    def __init__(self, item: Item, why: Exception) -> None:
        """Keep which, and why."""
        super().__init__(str(why))
        self.item, self.why = item, why


class StowRequests:
    """The requests to one server."""

    def __init__(
        self,
        destination: Destination,
        connection: WebConnection,
        throttle: Throttle | None,
        boundary: Callable[[], str],
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            destination: The server.
            connection: To it.
            throttle: Holds it to a speed.
            boundary: Returns what nobody can guess, and no file holds.
        """
        self._destination, self._connection = destination, connection
        self._throttle, self._boundary = throttle, boundary

    def options(self) -> Answer:
        """Return what a request is answered that stores nothing.

        Raises:
            SendInterruptedError: Nobody can be reached, or the connection broke.
        """
        self._connection.open()
        return self._connection.ask("OPTIONS", self._path, self._headers())

    def store(self, batch: Sequence[Item]) -> Answer:
        """Send instances in one request, on the connection that is open.

        Raises:
            UnreadableError: One of them cannot be read, or is not as long as it was.
            SendInterruptedError: The connection broke.
        """
        boundary = self._boundary()
        size = body_size(boundary, [item.size for item in batch])
        headers = self._headers() | {
            "Content-Type": content_type(boundary),
            "Content-Length": str(size),
        }
        content = body(boundary, (self._pieces(item) for item in batch))
        return self._connection.ask("POST", self._path, headers, content)

    def _pieces(self, item: Item) -> Iterator[bytes]:
        """Yield a file as it is to be sent.

        Raises:
            UnreadableError: It cannot be read, or is not as long as it was.
        """
        left, throttle = item.size, self._throttle
        most = _PIECE if throttle is None else min(_PIECE, throttle.piece)
        try:
            with item.opened() as stream:
                while left:
                    piece = stream.read(min(left, most))
                    _require(piece, item)
                    left -= len(piece)
                    if throttle is not None:
                        throttle.wait(len(piece))
                    yield piece
        except OSError as error:
            said = SendInterruptedError(f"{item.path} cannot be read: {error.strerror}")
            raise UnreadableError(item, said) from error
        except Exception as error:
            raise UnreadableError(item, error) from error

    def _headers(self) -> dict[str, str]:
        return {"Accept": ANSWER_TYPE} | bearer(self._destination)

    @property
    def _path(self) -> str:
        return f"{self._destination.url_parts.path.rstrip('/')}/studies"


def _require(piece: bytes, item: Item) -> None:
    if not piece:
        raise SendInterruptedError(f"{item.path} is shorter than it was")
