"""Coded frames to stored values: one frame, or some, at a time.

Here the codecs are called, and nowhere else. They are native code, written for files that
mean well, so a node does not call :func:`decode_frames` itself: it runs in a process of
its own, see :mod:`dicom_node.codec_process`, which is called in the same way. What the
frames are of has been checked before, and is not checked again.

DICOM objects, fragments and offset tables are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from dicom_node.errors import (
    CodecCrashError,
    MalformedObjectError,
    UnsupportedPixelDataError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedImage:
    """What a codec has to know of the frames of an object (PS3.3 C.7.6.3)."""

    transfer_syntax: str
    rows: int
    columns: int
    samples: int
    photometric_interpretation: str
    bits_allocated: int
    """8 or 16."""
    bits_stored: int
    pixel_representation: int

    @property
    def frame_size(self) -> int:
        """Return how many bytes a decoded frame takes."""
        return self.rows * self.columns * self.samples * self.bits_allocated // 8

    @property
    def word(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Return the type that a sample is kept in, little endian."""
        return np.dtype(f"<u{self.bits_allocated // 8}")

    def shape(self, frames: int) -> tuple[int, int, int, int]:
        """Return the shape of decoded frames."""
        return (frames, self.rows, self.columns, self.samples)


class DecodedFrames(NamedTuple):
    """Frames as they came out of a codec."""

    words: NDArray[np.unsignedinteger[Any]]
    """``(frames, rows, columns, samples)``, the stored values in their words."""
    photometric_interpretation: str
    """Of the words: YBR of JPEG and JPEG 2000 comes out as RGB."""


Decode = Callable[[CodedImage, Sequence[bytes]], DecodedFrames]
"""Decodes the coded frames of an image; raises FilterError where it cannot."""


def decode_frames(image: CodedImage, frames: Sequence[bytes]) -> DecodedFrames:
    """Return frames decoded, in this very process.

    Args:
        image: What they are frames of.
        frames: Coded, one at least. They need not be all of the object's.

    Raises:
        UnsupportedPixelDataError: The codec is not installed.
        CodecCrashError: The codec found itself in a state that it should not be in.
        MalformedObjectError: A frame does not decode, or not to the image it is of.
    """
    syntax = uid.UID(image.transfer_syntax)
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise UnsupportedPixelDataError(
            f"no codec for {syntax.name} is installed",
            hint="pip install 'miadmark[codecs]'; for JPEG pylibjpeg-libjpeg as well.",
        )
    options: dict[str, Any] = {
        "rows": image.rows,
        "columns": image.columns,
        "number_of_frames": 1,
        "samples_per_pixel": image.samples,
        "photometric_interpretation": image.photometric_interpretation,
        "planar_configuration": 0,
        "bits_allocated": image.bits_allocated,
        "bits_stored": image.bits_stored,
        "pixel_representation": image.pixel_representation,
        "pixel_keyword": "PixelData",
    }
    is_in_words = syntax == uid.RLELossless
    if is_in_words:  # whole: pydicom would cut them to Bits Stored, from the lowest bit
        options |= {"bits_stored": image.bits_allocated, "pixel_representation": 0}
    words = np.empty(image.shape(len(frames)), image.word)
    told = set()
    for number, frame in enumerate(frames):
        try:
            pixels, properties = decoder.as_array(
                encapsulate([frame], has_bot=False),
                # RLE's samples are stored values as they are; others may be YBR.
                raw=is_in_words,
                **options,
            )
        except MemoryError:
            raise
        except BaseException as error:
            if type(error).__name__ == "PanicException":
                # What Rust raises instead of a crash, and nobody catches by accident.
                raise CodecCrashError(
                    f"the codec of the pixel data ({syntax.name}) gave up in a panic",
                    hint="Only this object is held. Ask its sender for it uncompressed.",
                ) from error
            if not isinstance(error, Exception):
                raise
            raise MalformedObjectError(
                f"the pixel data ({syntax.name}) cannot be decoded: "
                f"{type(error).__name__}",
                hint="Ask its sender for the object uncompressed.",
            ) from error
        if pixels.size != words[number].size:
            raise MalformedObjectError(
                "the compressed pixel data does not hold the image"
            )
        words[number] = pixels.reshape(words[number].shape).astype(image.word)
        told.add(str(properties["photometric_interpretation"]))
    (photometric,) = told
    return DecodedFrames(words, photometric)
