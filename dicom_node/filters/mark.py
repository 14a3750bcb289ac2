"""Put a mark into an instance: decode, search, embed, seal, derive, and prove it.

Nothing leaves here before the bytes about to be sent have been stripped again and
compared with the original, pixel by pixel and element by element. Where that fails, or
anything else does, there is an error and no object: never an unmarked one, never one
that could not be restored.

How marks are found is an argument, so this module imports no torch.
"""

from __future__ import annotations

import copy
import hashlib
from itertools import islice
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
from dicom_node.filters.preparation import prepare
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.mapped import are_equal
from dicom_node.naming import Naming, nothing
from dicom_node.original import Original, changed
from dicom_node.quantities import require_no_quantity
from dicom_node.redirecting import SOURCE_IMAGES, redirected
from miadmark_core.errors import MarkingError, MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pydicom.dataset import Dataset

    from dicom_node.decoding import Decode
    from dicom_node.filters.preparation import Prepared
    from dicom_node.filters.region import Regions
    from dicom_node.keys.sealer import Sealer
    from dicom_node.naming import Remembered
    from dicom_node.part10 import Encoding, Part10
    from miadmark_core.image import HostImage
    from miadmark_core.sealing.record import SealedRecord
    from miadmark_core.search.finder import FoundMark, Wanted

    Find = Callable[[Sequence[Wanted]], list[FoundMark]]
    Before = Callable[[bytes], Sequence[FoundMark] | None]
    """Returns what an original went out with; None if it never did."""

EFFECTIVE_SHARE: Final = 0.9
"""Of the marks of one object, that have to mislead: of a single one, all."""


SEARCHED_TOGETHER: Final = 64
"""Frames that are handed to the search at a time; they lie in memory as they are
shown."""

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


def never(_: bytes) -> Sequence[FoundMark] | None:
    """Say that nothing was marked before."""
    return None


def mark(
    originals: Sequence[OpenInstance],
    *,
    find: Find,
    before: Before = never,
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

    Objects are searched together, since that is faster than one by one.

    Args:
        originals: What to mark. Not modified.
        find: Finds the marks: :meth:`miadmark_core.search.finder.Finder.find`.
        before: Knows what originals went out with: they go out so again.
        keys: What to derive and seal with.
        now: Aware.
        holds_weak: Whether a faint mark that does not mislead whom it was tried on is
            an error.
        marks_quantities: Whether labels and quantities are marked as pictures are,
            rather than be an error.
        regions: Where somebody drew a finding; elsewhere the search looks for itself.
        style: How the site marks; the new UIDs depend on it.
        remembered: Knows the new names of what the objects refer to, if no rule does.
        decode: Calls the codecs.

    Raises:
        OSError: The disk is full, or there are no descriptors left.
        MemoryError: There is no memory for one of them.
    """
    drawn, naming = regions or {}, Naming(keys.derive, style, remembered)
    outcomes: dict[int, MarkedInstance | NodeError | MiadMarkError] = {}
    prepared: dict[int, Prepared] = {}
    sources: dict[int, bytes] = {}
    found: dict[int, Sequence[FoundMark]] = {}
    for index, original in enumerate(originals):
        try:
            if not marks_quantities:
                require_no_quantity(original)
            one = prepare(original, keys, decode)
            sources[index] = _source(one, drawn, style, keys)
            if (known := before(sources[index])) is not None:
                found[index] = known
            prepared[index] = one
        except Exception as error:  # noqa: BLE001 see _named
            outcomes[index] = _named(error)
    first: dict[bytes, int] = {}  # the same original may be there twice
    for index in prepared.keys() - found.keys():
        first[sources[index]] = min(index, first.get(sources[index], index))
    new = {index: prepared[index] for index in sorted(first.values())}
    found |= _searched(new, find, drawn)
    found |= {i: found[first[sources[i]]] for i in prepared if i not in found}
    for index, p in prepared.items():
        marks = found[index]
        try:
            if holds_weak:
                _require_effect(marks)
            least = LEAST_SHARE if holds_weak else 0.0
            outcomes[index] = _finish(
                p, marks, keys, now, least, naming, sources[index]
            )
        except Exception as error:  # noqa: BLE001 see _named
            outcomes[index] = _named(error)
    return [outcomes[index] for index in range(len(originals))]


def _source(prepared: Prepared, drawn: Regions, style: str, keys: Sealer) -> bytes:
    """Return what an original is known by: what must not get two different marks."""
    uid = str(prepared.attributes.get("SOPInstanceUID") or "")
    region = drawn.get(uid)
    where = b"" if region is None else hashlib.sha256(region.tobytes()).digest()
    digest = prepared.picture.image.digest()
    return keys.derive(
        b"\0".join((b"source", uid.encode(), style.encode(), digest + where))
    )


def _searched(
    prepared: dict[int, Prepared], find: Find, drawn: Regions
) -> dict[int, list[FoundMark]]:
    """Return what is found for each, searched together."""
    found: dict[int, list[FoundMark]] = {index: [] for index in prepared}
    frames = ((index, w) for index, p in prepared.items() for w in p.wanted(drawn))
    while searched := list(islice(frames, SEARCHED_TOGETHER)):
        marks_found = find([frame for _, frame in searched])
        for (index, _), one in zip(searched, marks_found, strict=True):
            found[index].append(one)
    return found


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


def _named(error: Exception) -> NodeError | MiadMarkError:
    """Return an error with a sentence, whatever happened.

    One odd object must not stop the others that it is marked with. A full disk and a full
    memory are no object's doing, and would stop the others as well.

    Raises:
        OSError: ``error`` itself.
        MemoryError: ``error`` itself.
    """
    if isinstance(error, (OSError, MemoryError)):
        raise error
    if isinstance(error, (NodeError, MiadMarkError)):
        return error
    named = UnforeseenError(
        f"marking failed unexpectedly: {type(error).__name__}",
        hint="The object is odd, or this is a mistake of ours; it is not sent.",
    )
    named.__cause__ = error
    return named


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
