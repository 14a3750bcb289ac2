"""Put a mark into an instance: decode, search, embed, seal, derive, and prove it.

Nothing leaves here before the bytes about to be sent have been stripped again and
compared with the original, pixel by pixel and element by element. Where that fails, or
anything else does, there is an error and no object: never an unmarked one, never one
that could not be restored.

How marks are found is an argument, so this module imports no torch.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node import (
    binding,
    derivation,
    pixel_data,
    private_block,
)
from dicom_node.decoding import decode_frames
from dicom_node.elements import PIXEL_DATA, Limits, Streamed, scan, splice
from dicom_node.errors import NodeError, UnforeseenError, WeakMarkError
from dicom_node.filters.seeking import named, seek
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.mapped import are_equal
from dicom_node.naming import Naming, nothing
from dicom_node.original import Original, changed
from dicom_node.redirecting import SOURCE_IMAGES, redirected
from miadmark_core.errors import MarkingError, MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pydicom.dataset import Dataset

    from dicom_node.decoding import Decode
    from dicom_node.filters.preparation import Prepared
    from dicom_node.filters.region import Regions
    from dicom_node.filters.seeking import Before, Sought
    from dicom_node.keys.sealer import Sealer
    from dicom_node.naming import Remembered
    from dicom_node.part10 import Encoding, Part10
    from miadmark_core.image import HostImage
    from miadmark_core.sealing.record import SealedRecord
    from miadmark_core.search.finder import FoundMark, Wanted

    Find = Callable[[Sequence[Wanted]], list[FoundMark]]

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
    source_instance_uid: str
    """What it was called before."""
    source: bytes
    """What its original is known by to whoever keeps marks; 32 bytes."""
    found: tuple[FoundMark, ...]
    """What the search found for it, now or before."""
    report: Report


def mark(
    originals: Sequence[OpenInstance],
    *,
    find: Find,
    before: Before = nothing,
    keys: Sealer,
    now: datetime,
    holds_weak: bool,
    marks_quantities: bool = False,
    regions: Regions | None = None,
    style: str = "",
    remembered: Remembered = nothing,
    decode: Decode = decode_frames,
) -> list[MarkedInstance | NodeError | MiadMarkError]:
    """Return each object marked, or why it cannot be; in order.

    Args:
        originals: What to mark. Not modified.
        find: Finds the marks: :meth:`miadmark_core.search.finder.Finder.find`.
        before: See :func:`seek`, and for the others as well.
        keys: See :func:`finish`, and for the others as well.
        now: Likewise.
        holds_weak: Likewise.
        marks_quantities: See :func:`seek`.
        regions: Likewise.
        style: Likewise.
        remembered: See :func:`finish`.
        decode: See :func:`seek`.

    Raises:
        OSError: The disk is full, or there are no descriptors left.
        MemoryError: There is no memory for one of them.
    """
    sought = seek(
        originals,
        ask=lambda wanted: partial(find, wanted),
        before=before,
        keys=keys,
        marks_quantities=marks_quantities,
        regions=regions,
        style=style,
        decode=decode,
    )
    return finish(
        sought,
        before=before,
        keys=keys,
        now=now,
        holds_weak=holds_weak,
        style=style,
        remembered=remembered,
    )


def finish(
    sought: Sought,
    *,
    before: Before = nothing,
    keys: Sealer,
    now: datetime,
    holds_weak: bool,
    style: str = "",
    remembered: Remembered = nothing,
) -> list[MarkedInstance | NodeError | MiadMarkError]:
    """Return each object marked, or why it cannot be; in order.

    Args:
        sought: What :func:`seek` has asked for.
        before: As there: others may have marked the same meanwhile.
        keys: What to derive and seal with.
        now: Aware.
        holds_weak: Whether a faint mark that does not mislead whom it was tried on is
            an error.
        style: As there.
        remembered: Knows the new names of what the objects refer to, if no rule does.

    Raises:
        OSError: The disk is full, or there are no descriptors left.
        MemoryError: There is no memory for one of them.
        ClusterError: Nobody looks for marks now.
    """
    naming = Naming(keys.derive, style, remembered)
    found: dict[bytes, Sequence[FoundMark] | NodeError] = {**sought.known}
    for source, wait in sought.new.items():
        try:
            found[source] = wait()
        except UnforeseenError as error:  # this one's, and no fault of the others
            found[source] = error
    outcomes: dict[int, MarkedInstance | NodeError | MiadMarkError]
    outcomes = {**sought.refused}
    least = LEAST_SHARE if holds_weak else 0.0
    for index, one in sought.prepared.items():
        source = sought.sources[index]
        try:
            marks = found[source]
            if source in sought.new:
                marks = before(source) or marks
            if isinstance(marks, NodeError):
                raise marks  # noqa: TRY301 what stops one does not stop the others
            if holds_weak:
                _require_effect(marks)
            outcomes[index] = _finish(one, marks, keys, now, least, naming, source)
        except Exception as error:  # noqa: BLE001 see named
            outcomes[index] = named(error)
    return [outcomes[index] for index in range(sought.count)]


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
                'weak_marks = "send" (protect: --weak-marks send) sends it nevertheless.',
            )


def _finish(
    prepared: Prepared,
    found: Sequence[FoundMark],
    keys: Sealer,
    now: datetime,
    least_share: float,
    naming: Naming,
    source: bytes,
) -> MarkedInstance:
    marked, psnr, similarity, share = prepared.picture.marked(found)
    if share < least_share:
        raise WeakMarkError(
            f"only {share:.0%} of the mark is within the budget in every frame",
            hint="What was tried on classifiers is not what would be sent. "
            'weak_marks = "send" (protect: --weak-marks send) sends it nevertheless.',
        )
    original, attributes = prepared.original, prepared.attributes
    encoding = original.file.encoding
    referring = _referring(original, naming)
    named = original.elements
    if referring:  # what else changes in them changes after their names
        renamed = splice(named, referring | {PIXEL_DATA: None})
        named = scan(renamed, encoding, Limits())
    derived = derivation.derive(
        _with(attributes, referring, encoding),
        named,
        marked.image,
        method=derivation.LOGO if found[0].is_logo else derivation.MARK,
        keyed=keys.derive,
        now=now,
        style=naming.style,
    )
    changes = referring | derived.changes(named) | prepared.recoloured
    # Pixel Data comes back by arithmetic, and the block just goes.
    unmarked, elements, added = changed(original.elements, changes | {PIXEL_DATA: None})
    payload = Original(
        encoding=encoding,
        elements=elements,
        added=added,
        has_foreign_bits=prepared.has_foreign_bits,
        removal_key=marked.key.to_bytes(),
        rest=prepared.rest,
        palette=prepared.palette,
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
    block: dict[int, bytes | Streamed | None] = {
        **private_block.new_block(spliced, record)
    }
    block[PIXEL_DATA] = _pixel_data(marked.image, prepared)
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
        str(attributes.SOPInstanceUID),
        source,
        (*found,),
        Report(
            psnr,
            similarity,
            {name: all(f.misled[name] for f in found) for name in found[0].misled},
        ),
    )


def _pixel_data(image: HostImage, prepared: Prepared) -> Streamed:
    """Return Pixel Data as it is sent."""
    layout, size = prepared.layout, len(prepared.native)
    if prepared.palette:  # in colours, it has another size
        size = layout.size + layout.size % 2
    parts = pixel_data.encode(
        image,
        bytes(size) if prepared.palette else prepared.native,
        layout,
        has_foreign_bits=prepared.has_foreign_bits,
    )
    vr = "OB" if prepared.palette else ""
    return pixel_data.element(parts, size, prepared.original.elements, layout, vr)


def _referring(original: OpenInstance, naming: Naming) -> dict[int, bytes | None]:
    """Return the elements that refer to what leaves under another name, with that name.

    What the picture was derived from keeps its name: that is where it came from.
    """
    study = str(original.attributes(0x0020000D).get("StudyInstanceUID") or "")
    new = naming.renaming(original.elements, study, keeps=SOURCE_IMAGES)
    return redirected(original.elements, new, keeps=SOURCE_IMAGES)


def _with(
    attributes: Dataset, changes: dict[int, bytes | None], encoding: Encoding
) -> Dataset:
    """Return attributes as they are after ``changes``."""
    replaced = [e for tag, e in sorted(changes.items()) if e and tag in attributes]
    updated = copy.copy(attributes)
    updated.update(encoding.decode(b"".join(replaced)))
    return updated


def _prove(file: Part10, prepared: Prepared, keys: Sealer) -> None:
    """Strip the bytes about to be sent, and compare with the original.

    Raises:
        MarkingError: They differ.
    """
    sent = OpenInstance(file, scan(file.dataset, file.encoding, Limits()))
    restored = strip(sent, keys.opening())
    if not are_equal(restored.file.dataset, prepared.original.file.dataset):
        raise MarkingError(
            "the marked object would not be restored exactly, so it is not sent"
        )
