"""Put a mark into an instance: decode, search, embed, seal, derive, and prove it.

Nothing leaves here before the bytes about to be sent have been stripped again and
compared with the original, pixel by pixel and element by element. Where that fails, or
anything else does, there is an error and no object: never an unmarked one, never one
that could not be restored.

How marks are found is an argument, so this module imports no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from pydicom import uid

from dicom_node import (
    binding,
    derivation,
    instance,
    pixel_data,
    private_block,
    windowing,
)
from dicom_node.elements import PIXEL_DATA, Limits, scan, splice
from dicom_node.errors import (
    AlreadyMarkedError,
    FilterError,
    NodeError,
    NotAnImageError,
    UnsupportedPixelDataError,
)
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.original import Original, changed
from miadmark_core.covering import Ends, opacity_grid
from miadmark_core.errors import MarkingError, MiadMarkError
from miadmark_core.mark import MarkGrid, amplitude_for
from miadmark_core.marking import cover_image, mark_image
from miadmark_core.metrics import psnr_db, ssim
from miadmark_core.sealing.record import seal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from dicom_node.keys.provider import KeyProvider
    from dicom_node.part10 import Part10
    from dicom_node.pixel_data import PixelLayout
    from dicom_node.windowing import Presentation
    from miadmark_core.image import HostImage
    from miadmark_core.marking import MarkedImage
    from miadmark_core.sealing.record import SealedRecord
    from miadmark_core.search.finder import FoundMark, Wanted

    Find = Callable[[Sequence[Wanted]], list[FoundMark]]

FRAMES_PER_GRID: Final = 8
"""Neighbouring frames that share a grid: work saved, and nothing gained by averaging
them."""

LEAST_PSNR_DB: Final = 35.0
"""Of every frame, as the display window shows it; logos are there to be seen."""

LABELS: Final = frozenset(
    {
        uid.SegmentationStorage,
        uid.UID("1.2.840.10008.5.1.4.1.1.66.7"),  # Label Map Segmentation Storage
        uid.SurfaceSegmentationStorage,
        uid.ParametricMapStorage,
        uid.RTDoseStorage,
    }
)
"""Objects whose pixels are labels or quantities: a mark would change what they say, and
there is no picture in them that a classifier would diagnose."""


class Report(NamedTuple):
    """What marking came to, in figures without a patient."""

    psnr_db: float
    """Of the worst frame."""
    ssim: float
    """Of the worst frame that was looked at: one for each grid."""
    misled: dict[str, bool]
    """Whether each surrogate gives another answer, for all grids."""


class MarkedInstance(NamedTuple):
    """A marked object, its record, and what marking came to."""

    file: Part10
    record: SealedRecord
    marked_digest: bytes
    sop_instance_uid: str
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prepared:
    original: OpenInstance
    attributes: Dataset
    layout: PixelLayout
    native: bytes
    image: HostImage
    has_foreign_bits: bool
    presentation: Presentation
    host_digest: bytes
    seed: int


def mark(
    originals: Sequence[OpenInstance], *, find: Find, keys: KeyProvider, now: datetime
) -> list[MarkedInstance | NodeError | MiadMarkError]:
    """Return each object marked, or why it cannot be; in order.

    Objects are searched together, since that is faster than one by one.

    Args:
        originals: What to mark. Not modified.
        find: Finds the marks: :meth:`miadmark_core.search.finder.Finder.find`.
        keys: Of this site.
        now: Aware.
    """
    outcomes: dict[int, MarkedInstance | NodeError | MiadMarkError] = {}
    prepared: dict[int, _Prepared] = {}
    for index, original in enumerate(originals):
        try:
            prepared[index] = _prepare(original, keys)
        except Exception as error:  # noqa: BLE001 see _named
            outcomes[index] = _named(error)
    wanted = {index: _wanted(p) for index, p in prepared.items()}
    found = iter(find([frame for frames in wanted.values() for frame in frames]))
    for index, p in prepared.items():
        marks = [next(found) for _ in wanted[index]]
        try:
            outcomes[index] = _finish(p, marks, keys, now)
        except Exception as error:  # noqa: BLE001 see _named
            outcomes[index] = _named(error)
    return [outcomes[index] for index in range(len(originals))]


def _named(error: Exception) -> NodeError | MiadMarkError:
    """Return an error with a sentence, whatever happened.

    One odd object must not stop the others that it is marked with.
    """
    if isinstance(error, (NodeError, MiadMarkError)):
        return error
    named = FilterError(
        f"marking failed unexpectedly: {type(error).__name__}",
        hint="The object is odd, or this is a mistake of ours; it is not sent.",
    )
    named.__cause__ = error
    return named


def _prepare(original: OpenInstance, keys: KeyProvider) -> _Prepared:
    if private_block.find(original.elements) is not None:
        raise AlreadyMarkedError(
            "the object carries a mark already",
            hint="Restore it first, or route it as it is.",
        )
    attributes = original.attributes(
        *instance.IDENTIFYING_TAGS,
        *pixel_data.TAGS,
        *windowing.TAGS,
        *derivation.TAGS,
    )
    if attributes.get("SOPClassUID") in LABELS:
        raise NotAnImageError("the object holds labels or quantities, not a picture")
    pixel_data.require_picture(original.elements)
    layout = pixel_data.layout_of(attributes)
    native, layout = pixel_data.native(
        original.elements, layout, original.file.transfer_syntax
    )
    decoded = pixel_data.decode(native, layout)
    shown = windowing.presentation(decoded.image, attributes, layout)
    if shown.peak < 1:
        raise UnsupportedPixelDataError(
            f"the image spans {shown.window.width:.0f} stored values: too few for a "
            "mark within its budget",
            hint="A mark may change 8/255 of the display window at most.",
        )
    host_digest = decoded.image.digest()
    uid_bytes = str(attributes.get("SOPInstanceUID", "")).encode()
    seed = keys.derive(b"mark\0" + uid_bytes + b"\0" + host_digest)
    return _Prepared(
        original=original,
        attributes=attributes,
        layout=layout,
        native=native,
        image=decoded.image,
        has_foreign_bits=decoded.has_foreign_bits,
        presentation=shown,
        host_digest=host_digest,
        seed=int.from_bytes(seed[:8]) >> 1,
    )


def _wanted(prepared: _Prepared) -> list[Wanted]:
    """Return one frame for each grid: of those that share it, the one with most in it."""
    from miadmark_core.search.finder import Wanted

    window, peak = prepared.presentation
    pixels = prepared.image.pixels
    fullest = [
        max(
            range(start, min(start + FRAMES_PER_GRID, len(pixels))),
            key=lambda number: float(window.shown(pixels[number]).std()),
        )
        for start in range(0, len(pixels), FRAMES_PER_GRID)
    ]
    return [
        Wanted(
            shown=window.shown(pixels[number]),
            peak=peak / window.width * (-1 if window.is_inverted else 1),
            modality=str(prepared.attributes.get("Modality") or ""),
            body_part=str(prepared.attributes.get("BodyPartExamined") or ""),
            seed=prepared.seed,
            padding=_padding(prepared.image, number),
        )
        for number in fullest
    ]


def _padding(image: HostImage, number: int) -> NDArray[np.bool_] | None:
    """Return which pixels of a frame no logo shows on: those with a padded sample."""
    if image.padding is None:
        return None
    lower, upper = image.padding
    frame = image.pixels[number]
    padded: NDArray[np.bool_] = ((frame >= lower) & (frame <= upper)).any(axis=-1)
    return padded


def _finish(
    prepared: _Prepared, found: Sequence[FoundMark], keys: KeyProvider, now: datetime
) -> MarkedInstance:
    is_logo = found[0].is_logo
    steps = [mark.steps for mark in found]
    make = _covered if is_logo else _within_budget
    marked, psnr = make(prepared, steps)
    _require_a_mark_in_every_frame(prepared.image, marked.image)
    original, attributes = prepared.original, prepared.attributes
    encoding = original.file.encoding
    derived = derivation.derive(
        attributes,
        original.elements,
        marked.image,
        digest=prepared.host_digest + marked.key.marked_digest,
        method=derivation.LOGO if is_logo else derivation.MARK,
        keyed=keys.derive,
        now=now,
    )
    changes: dict[int, bytes | None] = dict.fromkeys(derived.removed)
    new = scan(encoding.encode(derived.attributes), encoding, Limits())
    changes |= {tag: new.bytes_of(tag) for tag in new.tags() if tag != 0x00080005}
    # Only what Original keeps; Pixel Data comes back by arithmetic, the block just goes.
    unmarked, elements, added = changed(original.elements, changes)
    payload = Original(
        encoding=encoding,
        elements=elements,
        added=added,
        has_foreign_bits=prepared.has_foreign_bits,
        removal_key=marked.key.to_bytes(),
    ).to_bytes()
    record = seal(
        payload,
        binding.context(
            str(attributes.SOPClassUID),
            derived.sop_instance_uid,
            prepared.layout,
            marked.key.marked_digest,
        ),
        recipients=keys.recipients(),
        signer=keys.signer(),
        now=now,
        random=os.urandom,
    )
    spliced = scan(unmarked, encoding, Limits())
    block = private_block.new_block(spliced, record)
    pixels = pixel_data.encode(
        marked.image,
        prepared.native,
        prepared.layout,
        has_foreign_bits=prepared.has_foreign_bits,
    )
    block[PIXEL_DATA] = pixel_data.element(pixels, spliced, prepared.layout)
    file = original.file.changed(
        splice(spliced, block),
        derived.sop_instance_uid,
        pixel_data.uncompressed(original.file.transfer_syntax),
    )
    _prove(file, prepared, keys)
    return MarkedInstance(
        file,
        record,
        marked.key.marked_digest,
        derived.sop_instance_uid,
        _report(prepared, marked, found, psnr),
    )


def _within_budget(
    prepared: _Prepared, steps: Sequence[NDArray[np.int8]]
) -> tuple[MarkedImage, float]:
    """Return the marked image and its PSNR, weaker than found if it has to be."""
    peak = prepared.presentation.peak
    share = 1.0
    while share > 0.2:
        grids = [
            MarkGrid(np.rint(s * share).astype(np.int8), amplitude_for(peak))
            for s in steps
        ]
        marked = mark_image(prepared.image, grids, FRAMES_PER_GRID)
        psnr = _psnr_db(prepared, marked)
        if psnr >= LEAST_PSNR_DB:
            return marked, psnr
        share *= min(0.95, 10 ** ((psnr - LEAST_PSNR_DB) / 20))
    raise MarkingError(
        f"no mark stays above {LEAST_PSNR_DB} dB in every frame",
        hint="The frames are shown with windows too different for one mark.",
    )


def _covered(
    prepared: _Prepared, steps: Sequence[NDArray[np.int8]]
) -> tuple[MarkedImage, float]:
    """Return the image with logos on it, and its PSNR."""
    window = prepared.presentation.window
    ends = Ends(round(window.lower), round(window.upper))
    if window.is_inverted:
        ends = Ends(*reversed(ends))
    grids = [opacity_grid(s) for s in steps]
    marked = cover_image(prepared.image, grids, FRAMES_PER_GRID, ends)
    return marked, _psnr_db(prepared, marked)


def _psnr_db(prepared: _Prepared, marked: MarkedImage) -> float:
    """Return the PSNR of the worst frame."""
    window = prepared.presentation.window
    return min(
        psnr_db(window.shown(a), window.shown(b))
        for a, b in zip(prepared.image.pixels, marked.image.pixels, strict=True)
    )


def _require_a_mark_in_every_frame(host: HostImage, marked: HostImage) -> None:
    """Return if no frame with something in it is as it was.

    Raises:
        MarkingError: One is: it would leave unmarked.
    """
    for number, frame in enumerate(host.pixels):
        is_constant = frame.min() == frame.max()
        if not is_constant and np.array_equal(frame, marked.pixels[number]):
            raise MarkingError(
                f"frame {number + 1} would leave unmarked",
                hint="What it shows is too flat, or too dark, for a mark.",
            )


def _report(
    prepared: _Prepared, marked: MarkedImage, found: Sequence[FoundMark], psnr: float
) -> Report:
    window = prepared.presentation.window
    frames = range(0, len(prepared.image.pixels), FRAMES_PER_GRID)
    similarity = min(
        ssim(
            window.shown(prepared.image.pixels[i]), window.shown(marked.image.pixels[i])
        )
        for i in frames
    )
    names = found[0].misled
    return Report(
        psnr,
        similarity,
        {name: all(f.misled[name] for f in found) for name in names},
    )


def _prove(file: Part10, prepared: _Prepared, keys: KeyProvider) -> None:
    """Strip the bytes about to be sent, and compare with the original.

    Raises:
        MarkingError: They differ.
    """
    sent = OpenInstance.of(file.to_bytes(), Limits())
    restored = strip(sent, identities=keys.identities(), trusted=keys.trusted())
    original = prepared.original
    is_same = np.array_equal(restored.image.pixels, prepared.image.pixels)
    if original.file.transfer_syntax in pixel_data.NATIVE:
        is_same = is_same and restored.file.dataset == original.file.dataset
    else:
        back = scan(restored.file.dataset, restored.file.encoding, Limits())
        rest = [tag for tag in original.elements.tags() if tag != PIXEL_DATA]
        is_same = is_same and back.extract(rest) == original.elements.extract(rest)
        is_same = is_same and len(back.tags()) == len(original.elements.tags())
    if not is_same:
        raise MarkingError(
            "the marked object would not be restored exactly, so it is not sent"
        )
