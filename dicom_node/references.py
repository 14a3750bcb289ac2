"""Which objects a data set refers to, at any depth.

A reference is an item with a Referenced SOP Instance UID (0008,1155), mostly beside its
class (PS3.3 10.8): in the trees and evidence of reports, the series of presentation
states, the functional groups of segmentations, the contours of structure sets. Around it
may stand the Series Instance UID, and a content item may name an instance or series as a
plain UID (PS3.3 C.17.3). All are found by what they are, not by a list of sequences. UIDs
of studies, frames of reference, dimensions, irradiation events, observations and what is
tracked name no instance; nor does what an Original Attributes Sequence remembers.

Private elements are not looked into: nobody knows what they mean. What the top level says
is of the object itself, and no reference. Nothing here is decoded but UIDs.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.nesting import Nesting, is_sequence
from dicom_node.sop_classes import is_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dicom_node.elements import Element, Elements
    from dicom_node.nesting import Item
    from dicom_node.part10 import Encoding

_CLASS, INSTANCE = 0x00081150, 0x00081155
_STUDY, SERIES = 0x0020000D, 0x0020000E
UID_VALUE: Final = 0x0040A124
_ORIGINAL_ATTRIBUTES: Final = 0x04000561


class Reference(NamedTuple):
    """An instance that is referred to, and what is said of it there."""

    sop_class_uid: str
    """Empty where it is not said."""
    sop_instance_uid: str
    study_instance_uid: str
    """Empty where it is not said, as within one study."""


class Found(NamedTuple):
    """A reference, and where it was found."""

    reference: Reference
    series: str
    """That of the nearest item around it which names one; or empty."""
    is_kept: bool
    """Whether it is in one of the sequences to be told apart."""


@dataclass(slots=True)
class Names:
    """What the elements of one item say themselves; empty what they do not."""

    sop_class: str = ""
    instance: str = ""
    study: str = ""
    series: str = ""
    uid: str = ""
    sequences: list[Element] = field(default_factory=list)
    """Those that references may be in."""


NAMES: Final = {
    _CLASS: "sop_class",
    INSTANCE: "instance",
    _STUDY: "study",
    SERIES: "series",
    UID_VALUE: "uid",
}


class Reader:
    """Goes to where references may be, and past everything else."""

    def __init__(self, elements: Elements, keeps: frozenset[int] = frozenset()) -> None:
        """Begin; nothing is read yet.

        Args:
            elements: The data set.
            keeps: Sequences whose references are told apart.
        """
        self.dataset, self.encoded = elements, elements.encoded
        self.nesting = Nesting(elements)
        self.keeps = keeps
        self.traces = {
            order: [
                struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
                for tag in (INSTANCE, SERIES, UID_VALUE)
            ]
            for order in "<>"
        }

    def has_trace(self, start: int, end: int, encoding: Encoding) -> bool:
        """Say whether the bytes hold what a reference begins with; mostly they do not."""
        traces = self.traces["<" if encoding.is_little_endian else ">"]
        encoded = bytes(self.encoded[start:end])
        return any(trace in encoded for trace in traces)

    def is_open(self, element: Element, encoding: Encoding) -> bool:
        """Say whether to look into an element of what is encoded like that."""
        return (
            element.tag >> 16 & 1 == 0
            and element.tag != _ORIGINAL_ATTRIBUTES
            and is_sequence(element, encoding)
            and self.has_trace(element.start, element.end, encoding)
        )

    def text(self, element: Element) -> str:
        """Return the UID that is the value of an element, whatever it holds."""
        value = bytes(self.encoded[element.value : element.end])
        return value.decode("latin-1").strip("\0 ")

    def names(self, elements: Iterable[Element], encoding: Encoding) -> Names:
        """Return what the elements of one item name themselves."""
        names = Names()
        for element in elements:
            if (attribute := NAMES.get(element.tag)) is not None:
                setattr(names, attribute, self.text(element))
            elif self.is_open(element, encoding):
                names.sequences.append(element)
        return names

    def found(self) -> Iterator[Found]:
        """Go through the references, in order."""
        for element in self.dataset:
            if self.is_open(element, self.dataset.encoding):
                is_kept = element.tag in self.keeps
                for entry in self.nesting.items(element, self.dataset.encoding, 0):
                    yield from self.inside(entry, 1, is_kept=is_kept)

    def inside(
        self,
        entry: Item,
        depth: int,
        study: str = "",
        series: str = "",
        *,
        is_kept: bool = False,
    ) -> Iterator[Found]:
        """Go through the references of one item, its own first."""
        if not self.has_trace(entry.value, entry.end, entry.encoding):
            return
        names = self.names(self.nesting.elements(entry), entry.encoding)
        study, series = names.study or study, names.series or series
        if names.instance:
            reference = Reference(names.sop_class, names.instance, study)
            yield Found(reference, series, is_kept)
        for inner in names.sequences:
            for nested in self.nesting.items(inner, entry.encoding, depth):
                yield from self.inside(
                    nested,
                    depth + 1,
                    study,
                    series,
                    is_kept=is_kept or inner.tag in self.keeps,
                )

    def named(self) -> Iterator[tuple[str, ...]]:
        """Go through all that names an instance or series, in order."""
        for element in self.dataset:
            if self.is_open(element, self.dataset.encoding):
                yield from self._named(element, self.dataset.encoding, 0)

    def _named(
        self, sequence: Element, encoding: Encoding, depth: int
    ) -> Iterator[tuple[str, ...]]:
        for entry in self.nesting.items(sequence, encoding, depth):
            if not self.has_trace(entry.value, entry.end, entry.encoding):
                continue
            names = self.names(self.nesting.elements(entry), entry.encoding)
            if names.instance and is_stored(names.sop_class):
                yield "instance", names.sop_class, names.instance
            if names.series:
                yield "series", names.series
            if names.uid:
                yield "uid", names.uid
            for inner in names.sequences:
                yield from self._named(inner, entry.encoding, depth + 1)


def digest(elements: Elements) -> bytes:
    """Return 32 bytes that depend on all references of a data set, in their order.

    They depend on nothing else: not on VRs, lengths or padding, nor on what archives
    write into an object about worklists and procedure steps.

    Raises:
        MalformedObjectError: A sequence cannot be read, or holds too much.
    """
    sha = hashlib.sha256(b"miadmark references 1\n")
    for kind, *names in Reader(elements).named():
        line = "\0".join([kind, *names]).encode("utf-8")
        sha.update(struct.pack(">I", len(line)) + line)
    return sha.digest()
