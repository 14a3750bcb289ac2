"""A data set in P-DATA-TF PDUs, each as long as the peer takes (PS3.8 9.3.5).

A file is read into one buffer and sent from there. Nothing here knows a socket, or what
is in the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dicom_node.dimse import LAST, PDV_HEADER, pdu_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.mapped import Readable
    from dicom_node.throttle import Throttle

_PIECE: Final = 256 * 1024
"""Bytes that are sent at a time, at most."""
LEAST: Final = 8
"""Bytes of a PDU that a fragment fits into: it is of even length (PS3.8 9.3.1)."""


class Fragments:
    """What data sets are cut into for one peer, one after another."""

    def __init__(self, largest: int, throttle: Throttle | None) -> None:
        """Make the buffer.

        Args:
            largest: Bytes of a PDU that the peer takes, :data:`LEAST` or more; 0 for any.
            throttle: Holds it to a speed.
        """
        assert largest == 0 or largest >= LEAST, "nothing fits"
        self._throttle = throttle
        piece = _PIECE if throttle is None else min(_PIECE, throttle.piece)
        # Fragments are of even length (PS3.8 9.3.1).
        self._size = min(largest - 6 if largest else piece, piece) & ~1
        self._buffer = memoryview(bytearray(PDV_HEADER + self._size))

    def of(self, context: int, stream: Readable, size: int) -> Iterator[memoryview]:
        """Yield a data set, PDU by PDU, each once it may be sent.

        Args:
            context: Presentation context.
            stream: Where it lies; read from where it stands.
            size: Bytes of it.

        Yields:
            What is good until the next is asked for.

        Raises:
            OSError: It cannot be read, or is shorter.
        """
        is_last = False
        while not is_last:
            count = min(size, self._size)
            is_last = count == size
            _fill(stream, self._buffer[PDV_HEADER : PDV_HEADER + count])
            flags = LAST if is_last else 0
            self._buffer[:PDV_HEADER] = pdu_header(context, flags, count)
            if self._throttle is not None:
                self._throttle.wait(count)
            yield self._buffer[: PDV_HEADER + count]
            size -= count


def _fill(stream: Readable, view: memoryview) -> None:
    """Fill ``view`` from a file."""
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])
        if not count:
            raise OSError("the file is shorter than it was")
        done += count
