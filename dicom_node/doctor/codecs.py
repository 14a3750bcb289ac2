"""Codecs: whether they are there, decode what they should, and are shut in meanwhile.

One small picture is kept here in each of the forms that libraries with a permissive
licence read: columns that grow lighter. It is decoded in the very process that the node
decodes in, so that a kernel which does not let that process give up its rights is found.
"""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Final

import numpy as np
from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

from dicom_node.codec_process import CodecProcess
from dicom_node.decoding import CodedImage
from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.errors import CodecProcessError, FilterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydicom.uid import UID

    from dicom_node.decoding import Decode
    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding

_SIZE: Final = 32
_ROW: Final = bytes(range(0, 8 * _SIZE, 8))
_RLE: Final = struct.pack("<16L", 1, 64, *[0] * 14) + (b"\x1f" + _ROW) * _SIZE
_JPEG_LS: Final = (
    "/9j/9wALCAAgACABAREA/9oACAEBAAAAAIcdo7Vp/d27u/99tttttslf/3//F/9//31//3//X/9//3//"
    "f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//"
    "f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3//f/9//3/8/9k="
)
_JPEG_2000: Final = (
    "/0//UQApAAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAABBwEB/1IADAAAAAEABQQEAAH/"
    "XAATQEBISFBISFBISFBISFBISFD/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjL/"
    "kAAKAAAAAAA8AAH/k8fUBAgvz8AIBF/H2gYADQIFw+oFACIaCF2PwfOHADahma5jo1/A+QKAX6fHiLf/"
    "2Q=="
)
SAMPLES: Final[Mapping[UID, bytes]] = {
    uid.RLELossless: _RLE,
    uid.JPEGLSLossless: base64.b64decode(_JPEG_LS),
    uid.JPEG2000Lossless: base64.b64decode(_JPEG_2000),
}
"""The picture, coded, by transfer syntax."""
_OTHERS: Final = (uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1)
"""Which codec reads them is a site's choice; see the manual."""


def codecs(case: Case) -> Iterator[Finding]:
    """Yield what each codec makes of the picture."""
    with CodecProcess() as decode:
        yield from judged(SAMPLES, decode)
    if case.config is not None and not case.marks:
        return  # what was marked comes without loss
    lacking = [one.name for one in _OTHERS if not get_decoder(one).is_available]
    if lacking:
        yield note(
            f"no codec for {', '.join(lacking)}: what comes so is held by routes that "
            "mark",
            "pip install pylibjpeg-libjpeg, if its licence (GPL) suits you.",
        )


def judged(samples: Mapping[UID, bytes], decode: Decode) -> Iterator[Finding]:
    """Yield whether samples decode to the picture.

    Args:
        samples: Coded, by transfer syntax.
        decode: Calls the codecs.
    """
    wanted, read = np.frombuffer(_ROW * _SIZE, np.uint8), []
    for syntax, coded in samples.items():
        if not get_decoder(syntax).is_available:
            yield note(
                f"no codec for {syntax.name}: what comes so is held by routes that mark",
                "pip install 'miadmark[codecs]'",
            )
            continue
        try:
            frames = decode(_image(syntax), [coded])
        except CodecProcessError as error:
            yield wrong(str(error), error.hint)
            return
        except FilterError as error:
            yield wrong(f"{syntax.name} does not decode: {error}", _AGAIN)
            continue
        if np.array_equal(frames.words.ravel(), wanted):
            read.append(syntax.name)
        else:
            yield wrong(f"{syntax.name} decodes to another picture", _AGAIN)
    if read:
        yield ok(f"decode as they should, shut in: {', '.join(read)}")


_AGAIN: Final = (
    "Install its codec again: pip install --force-reinstall 'miadmark[codecs]'"
)


def _image(syntax: UID) -> CodedImage:
    return CodedImage(
        transfer_syntax=syntax,
        rows=_SIZE,
        columns=_SIZE,
        samples=1,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
    )
