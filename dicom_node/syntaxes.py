"""The transfer syntaxes that a site may name, none of them lossy.

A receiver that takes nothing but lossy ones gets nothing: what a picture has lost once
it does not lose again here. An object that came lossy is still sent as it came, since
that loses nothing more.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pydicom import uid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom.uid import UID


class Syntax(StrEnum):
    """How a destination may be sent its objects."""

    AS_IS = "as-is"
    """In the transfer syntax that the object is in already, whichever that is."""
    EXPLICIT = "explicit"
    JPEG_LS = "jpeg-ls"
    JPEG_2000 = "jpeg-2000"
    HTJ2K = "htj2k"
    """Objects that are in it already: no library here writes it."""
    RLE = "rle"
    IMPLICIT = "implicit"


UIDS: Final[Mapping[Syntax, UID]] = {
    Syntax.EXPLICIT: uid.ExplicitVRLittleEndian,
    Syntax.JPEG_LS: uid.JPEGLSLossless,
    Syntax.JPEG_2000: uid.JPEG2000Lossless,
    Syntax.HTJ2K: uid.HTJ2KLossless,
    Syntax.RLE: uid.RLELossless,
    Syntax.IMPLICIT: uid.ImplicitVRLittleEndian,
}

DEFAULT: Final = tuple(Syntax)
"""As it is costs nothing and changes nothing. Uncompressed comes next, since it needs no
codec at the other end; then the smallest and fastest of the lossless ones; implicit last,
since private elements lose their value representation in it."""
