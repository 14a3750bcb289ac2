"""A data set that refers to renamed objects, with their new names in place of the old.

Like :mod:`dicom_node.elements` it puts bytes together anew: all around a changed UID
stays as it was encoded, but for lengths. What it changes are top-level elements as a
whole, so that whoever keeps the elements as they were can put them back.

What cannot hold of an object with a new name goes: where the original is to be had, what
its bytes come to, and signatures over the item that names it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.elements import header
from dicom_node.extents import UNDEFINED
from dicom_node.nesting import item, sequence_end
from dicom_node.references import INSTANCE, NAMES, SERIES, UID_VALUE, Reader, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dicom_node.elements import Element, Elements
    from dicom_node.nesting import Item
    from dicom_node.part10 import Encoding

    Rename = Callable[[Reference], str | None]
    """Returns the new UID of an instance; None if it keeps its own."""

    RenameSeries = Callable[[str], str]
    """Returns the UID of the series that renamed instances of a series are in."""

SOURCE_IMAGES: Final = frozenset({0x00082112})
"""Source Image Sequence: what a picture was derived from (PS3.3 C.7.6.1.1.4). A marked
picture goes on naming what it was made of."""

SIGNATURES: Final = frozenset({0x4FFE0001, 0xFFFAFFFA})
"""MAC Parameters Sequence and Digital Signatures Sequence (PS3.3 C.12.1.1.3)."""

_OF_THE_ORIGINAL: Final = frozenset(
    {
        0x00080054,  # Retrieve AE Title
        0x00081190,  # Retrieve URL
        0x00880130,  # Storage Media File-set ID
        0x00880140,  # Storage Media File-set UID
        0x0040E010,  # Retrieve URI
        0x0040E011,  # Retrieve Location UID
        0x04000402,  # Referenced Digital Signature Sequence
        0x04000403,  # Referenced SOP Instance MAC Sequence
    }
)
"""What may stand beside a reference; all of it is optional (PS3.3 C.17.2.1 and C.18)."""


class Renaming(NamedTuple):
    """New UIDs for old ones, as far as one data set needs them."""

    instances: Mapping[str, str]
    series: Mapping[str, str]
    """Of which at least one instance is renamed."""


class _Part(Enum):
    """Which references of an item are wanted."""

    ALL = auto()
    RENAMED = auto()
    KEPT = auto()


class _Half(NamedTuple):
    """Of an item for a series: which of its references, and of which series."""

    part: _Part
    series: str = ""


_WHOLE: Final = _Half(_Part.ALL)


def renaming(
    elements: Elements,
    rename: Rename,
    rename_series: RenameSeries,
    *,
    keeps: frozenset[int] = frozenset(),
) -> Renaming:
    """Return which of the UIDs that a data set names get which new ones.

    Args:
        elements: The data set.
        rename: Asked once for each instance, with all that is said of it anywhere.
        rename_series: Asked for each series with a renamed instance.
        keeps: Sequences whose references stay, and so does all that they name.

    Raises:
        MalformedObjectError: A sequence cannot be read, or holds too much.
    """
    known: dict[str, Reference] = {}
    kept: set[str] = set()
    members: dict[str, set[str]] = {}
    for reference, series, is_kept in Reader(elements, keeps).found():
        name = reference.sop_instance_uid
        before = known.get(name, reference)
        known[name] = Reference(
            *(a or b for a, b in zip(before, reference, strict=True))
        )
        if is_kept:
            kept.add(name)
        elif series:
            members.setdefault(series, set()).add(name)
    instances = {}
    for name, reference in known.items():
        new = None if name in kept else rename(reference)
        if new is not None:
            instances[name] = new
    renamed = [s for s, names in members.items() if names & instances.keys()]
    return Renaming(instances, {series: rename_series(series) for series in renamed})


def redirected(
    elements: Elements, new: Renaming, *, keeps: frozenset[int] = frozenset()
) -> dict[int, bytes | None]:
    """Return the top-level elements that name renamed UIDs, with the new ones.

    An item for a series of which only some instances are renamed becomes two: one for
    the series that they were in, one for the new.

    Args:
        elements: The data set.
        new: What :func:`renaming` returned for it.
        keeps: Likewise.

    Returns:
        What :func:`~dicom_node.elements.splice` needs.
    """
    if not new.instances:
        return {}
    return _Writer(elements, keeps, new).changes()


class _Writer(Reader):
    def __init__(
        self, elements: Elements, keeps: frozenset[int], new: Renaming
    ) -> None:
        super().__init__(elements, keeps)
        self.new = new

    def changes(self) -> dict[int, bytes | None]:
        changed: dict[int, bytes | None] = {}
        for element in self.dataset:
            anew = self._sequence(element, self.dataset.encoding, 0, _WHOLE)
            if anew is not None:
                changed[element.tag] = anew
        return changed

    def _sequence(
        self, element: Element, encoding: Encoding, depth: int, part: _Half
    ) -> bytes | None:
        """Return a sequence with new names in its items; None if it stays as it is.

        Args:
            element: Any; only sequences are looked into.
            encoding: Of what it stands in.
            depth: How many sequences are around it.
            part: Which references are wanted. Where none of them are there, nothing is
                left, and the bytes are empty.
        """
        if element.tag in self.keeps or not self.is_open(element, encoding):
            return None
        parts: list[bytes] = []
        is_changed, inside = False, encoding
        for entry in self.nesting.items(element, encoding, depth):
            inside = entry.encoding
            anew = self._item(entry, depth + 1, part)
            if anew is None:
                anew = [self._as_it_was(entry)]
            else:
                is_changed = True
            parts += [item(content, entry) for content in anew]
        if not is_changed:
            return None
        content = b"".join(parts)
        if not content:
            return b""
        if element.is_undefined_length:
            start = header(element.tag, element.vr, UNDEFINED, encoding)
            return start + content + sequence_end(inside)
        return header(element.tag, element.vr, len(content), encoding) + content

    def _item(self, entry: Item, depth: int, part: _Half) -> list[bytes] | None:
        """Return what an item becomes: none, one or two; None if it stays as it is."""
        if not self.has_trace(entry.value, entry.end, entry.encoding):
            return None
        elements = list(self.nesting.elements(entry))
        own = self.names(elements, entry.encoding)
        if own.instance and part.part not in {_Part.ALL, self._part_of(own.instance)}:
            return []
        if own.series and part is _WHOLE:
            beneath = {
                self._part_of(found.reference.sop_instance_uid)
                for found in self.inside(entry, depth)
            }
            if len(beneath) == 2:
                return [
                    self._content(entry, elements, depth, _Half(half, own.series))
                    or self._as_it_was(entry)
                    for half in (_Part.KEPT, _Part.RENAMED)
                ]
            part = _Half(next(iter(beneath), _Part.ALL), own.series)
        content = self._content(entry, elements, depth, part)
        return None if content is None else [content]

    def _content(
        self, entry: Item, elements: list[Element], depth: int, part: _Half
    ) -> bytes | None:
        anew = {
            element.tag: self._uid(element, entry.encoding, part)
            if element.tag in NAMES
            else self._sequence(element, entry.encoding, depth, part)
            for element in elements
        }
        if all(element is None for element in anew.values()):
            return None
        gone = SIGNATURES
        if anew.get(INSTANCE) or anew.get(SERIES):
            gone |= _OF_THE_ORIGINAL
        parts = []
        for element in elements:
            if element.tag not in gone:
                new = anew[element.tag]
                before = self.encoded[element.start : element.end]
                parts.append(before if new is None else new)
        return b"".join(parts)

    def _uid(self, element: Element, encoding: Encoding, part: _Half) -> bytes | None:
        """Return a UID under its new name; None if it stays as it is."""
        if element.tag not in {INSTANCE, SERIES, UID_VALUE}:
            return None
        before = self.text(element)
        new = self.new.instances.get(before) if element.tag != SERIES else None
        stays = part.part is _Part.KEPT and (
            element.tag == SERIES or before == part.series
        )
        if new is None and element.tag != INSTANCE and not stays:
            new = self.new.series.get(before)
        if new is None:
            return None
        value = new.encode("ascii") + b"\0" * (len(new) % 2)
        return header(element.tag, element.vr, len(value), encoding) + value

    def _part_of(self, instance: str) -> _Part:
        return _Part.RENAMED if instance in self.new.instances else _Part.KEPT

    def _as_it_was(self, entry: Item) -> bytes:
        return bytes(self.encoded[entry.value : entry.end])
