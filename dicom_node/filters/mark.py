"""Put a mark into an instance: decode, search, embed, seal, derive, and prove it.

Nothing leaves here before the bytes about to be sent have been stripped again and
compared with the original, pixel by pixel and element by element. Where that fails, or
anything else does, there is an error and no object: never an unmarked one, never one
that could not be restored.

How marks are found is an argument, so this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dicom_node import (
    binding,
    derivation,
    instance,
    pixel_data,
    private_block,
    windowing,
)
from dicom_node.decompression import decompressed
from dicom_node.elements import PIXEL_DATA, Limits, scan, splice
from dicom_node.errors import (
    AlreadyMarkedError,
    FilterError,
    NodeError,
    NotAnImageError,
    UnsupportedPixelDataError,
    WeakMarkError,
)
from dicom_node.filters.picture import Picture
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.labels import LABELS
from dicom_node.original import Original, changed
from miadmark_core.errors import MarkingError, MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pydicom.dataset import Dataset

    from dicom_node.filters.region import Regions
    from dicom_node.keys.sealer import Sealer
    from dicom_node.part10 import Part10
    from dicom_node.pixel_data import PixelLayout
    from miadmark_core.sealing.record import SealedRecord
    from miadmark_core.search.finder import FoundMark, Wanted

    Find = Callable[[Sequence[Wanted]], list[FoundMark]]

_TAGS: Final = (
    *instance.IDENTIFYING_TAGS,
    *pixel_data.TAGS,
    *windowing.TAGS,
    *derivation.TAGS,
)

EFFECTIVE_SHARE: Final = 0.9
"""Of the marks of one object, that have to mislead: of a single one, all."""


LEAST_SHARE: Final = 0.9
"""Of the mark that classifiers were tried with, that is sent at least."""


class Report(NamedTuple):
    """What marking came to, in figures without a patient."""

    psnr_db: float
    """Of the worst frame."""
    ssim: float
    """Of the worst frame that was looked at: one for each grid."""
    misled: dict[str, bool]
    """Whether each surrogate gives an answer that the mark leads to, on the frames that
    grids were found on: one that it held impossible, or, in the mode ``information``,
    the one that was drawn, which may be right."""


class MarkedInstance(NamedTuple):
    """A marked object, its record, and what marking came to."""

    file: Part10
    record: SealedRecord
    marked_digest: bytes
    sop_instance_uid: str
    study_instance_uid: str
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prepared:
    original: OpenInstance
    attributes: Dataset
    layout: PixelLayout
    native: bytes
    picture: Picture
    has_foreign_bits: bool
    host_digest: bytes
    seed: int


def mark(
    originals: Sequence[OpenInstance],
    *,
    find: Find,
    keys: Sealer,
    now: datetime,
    holds_weak: bool,
    regions: Regions | None = None,
) -> list[MarkedInstance | NodeError | MiadMarkError]:
    """Return each object marked, or why it cannot be; in order.

    Objects are searched together, since that is faster than one by one.

    Args:
        originals: What to mark. Not modified.
        find: Finds the marks: :meth:`miadmark_core.search.finder.Finder.find`.
        keys: What to derive and seal with.
        now: Aware.
        holds_weak: Whether a faint mark that does not mislead whom it was tried on is
            an error.
        regions: Where somebody drew a finding; elsewhere the search looks for itself.
    """
    drawn = regions or {}
    outcomes: dict[int, MarkedInstance | NodeError | MiadMarkError] = {}
    prepared: dict[int, _Prepared] = {}
    for index, original in enumerate(originals):
        try:
            prepared[index] = _prepare(original, keys)
        except Exception as error:  # noqa: BLE001 see _named
            outcomes[index] = _named(error)
    wanted = {
        index: p.picture.wanted(
            modality=str(p.attributes.get("Modality") or ""),
            body_part=str(p.attributes.get("BodyPartExamined") or ""),
            seed=p.seed,
            region=drawn.get(str(p.attributes.get("SOPInstanceUID") or "")),
        )
        for index, p in prepared.items()
    }
    found = iter(find([frame for frames in wanted.values() for frame in frames]))
    for index, p in prepared.items():
        marks = [next(found) for _ in wanted[index]]
        try:
            if holds_weak:
                _require_effect(marks)
            least = LEAST_SHARE if holds_weak else 0.0
            outcomes[index] = _finish(p, marks, keys, now, least)
        except Exception as error:  # noqa: BLE001 see _named
            outcomes[index] = _named(error)
    return [outcomes[index] for index in range(len(originals))]


def _require_effect(found: Sequence[FoundMark]) -> None:
    """Return if the marks mislead whom they were tried on.

    Raises:
        WeakMarkError: One classifier sees through more than a few of them.
    """
    if found[0].is_logo:
        return
    for name in found[0].misled:
        misled = sum(mark.misled[name] for mark in found)
        if misled < EFFECTIVE_SHARE * len(found):
            raise WeakMarkError(
                f"{name} sees through {len(found) - misled} of {len(found)} marks",
                hint="Everything allowed was tried. The profile strong looks longer; "
                'weak_marks = "send" sends such images nevertheless.',
            )


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


def _prepare(original: OpenInstance, keys: Sealer) -> _Prepared:
    if private_block.find(original.elements) is not None:
        raise AlreadyMarkedError(
            "the object carries a mark already",
            hint="Restore it first, or route it as it is.",
        )
    if original.attributes(0x00080016).get("SOPClassUID") in LABELS:
        raise NotAnImageError("the object holds labels or quantities, not a picture")
    pixel_data.require_picture(original.elements)
    original = decompressed(original)
    attributes = original.attributes(*_TAGS)
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
        picture=Picture(image=decoded.image, presentation=shown),
        has_foreign_bits=decoded.has_foreign_bits,
        host_digest=host_digest,
        seed=int.from_bytes(seed[:8]) >> 1,
    )


def _finish(
    prepared: _Prepared,
    found: Sequence[FoundMark],
    keys: Sealer,
    now: datetime,
    least_share: float,
) -> MarkedInstance:
    marked, psnr, similarity, share = prepared.picture.marked(found)
    if share < least_share:
        raise WeakMarkError(
            f"only {share:.0%} of the mark is within the budget in every frame",
            hint="What was tried on classifiers is not what would be sent. "
            'weak_marks = "send" sends such images nevertheless.',
        )
    original, attributes = prepared.original, prepared.attributes
    encoding = original.file.encoding
    derived = derivation.derive(
        attributes,
        original.elements,
        marked.image,
        digest=prepared.host_digest + marked.key.marked_digest,
        method=derivation.LOGO if found[0].is_logo else derivation.MARK,
        keyed=keys.derive,
        now=now,
    )
    changes = derived.changes(original.elements)
    # Only what Original keeps; Pixel Data comes back by arithmetic, the block just goes.
    unmarked, elements, added = changed(original.elements, changes)
    payload = Original(
        encoding=encoding,
        elements=elements,
        added=added,
        has_foreign_bits=prepared.has_foreign_bits,
        removal_key=marked.key.to_bytes(),
    ).to_bytes()
    record = keys.seal(
        payload,
        binding.context(
            str(attributes.SOPClassUID),
            derived.sop_instance_uid,
            prepared.layout,
            marked.key.marked_digest,
        ),
        method=marked.key.method,
        now=now,
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
        original.file.transfer_syntax,
    )
    _prove(file, prepared, keys)
    return MarkedInstance(
        file,
        record,
        marked.key.marked_digest,
        derived.sop_instance_uid,
        str(attributes.get("StudyInstanceUID") or ""),
        Report(
            psnr,
            similarity,
            {name: all(f.misled[name] for f in found) for name in found[0].misled},
        ),
    )


def _prove(file: Part10, prepared: _Prepared, keys: Sealer) -> None:
    """Strip the bytes about to be sent, and compare with the original.

    Raises:
        MarkingError: They differ.
    """
    sent = OpenInstance.of(file.to_bytes(), Limits())
    restored = strip(sent, keys.opening())
    original = prepared.original
    is_same = np.array_equal(restored.image.pixels, prepared.picture.image.pixels)
    is_same = is_same and restored.file.dataset == original.file.dataset
    if not is_same:
        raise MarkingError(
            "the marked object would not be restored exactly, so it is not sent"
        )
