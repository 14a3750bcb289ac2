"""A condition on an attribute of an instance, as a route states it.

An attribute is named by its keyword, or by the eight digits of its tag; dots lead into
sequences, through all of their items. Patterns are those of a shell (``*``, ``?``,
``[ab]``), and tell capitals from small letters, as DICOM does. One of them must match one
of the values; none of those that begin with ``!`` may match any. An attribute that is not
there has no values: it matches nothing, and only what is forbidden can still hold.

Values of text attributes are compared without the spaces that pad them (PS3.5 6.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom.dataset import Dataset

_UNREADABLE: Final = ("O", "UN", "SQ")
"""What the names of value representations begin with that hold no text or number."""
_NOT_OF_DATASETS: Final = (0x0000, 0x0002)


@dataclass(frozen=True, slots=True)
class Condition:
    """What an attribute must be."""

    attribute: str
    """As it was written."""
    patterns: tuple[str, ...]
    path: tuple[int, ...]
    """Its tag, and those of the sequences that lead there before it."""

    @classmethod
    def of(cls, attribute: str, patterns: Sequence[str]) -> Condition:
        """Return the condition that a configuration states.

        Raises:
            ConfigError: There is no such attribute, it has no text, or no pattern.
        """
        path = tuple(_tag(attribute, part) for part in attribute.split("."))
        if not patterns:
            raise ConfigError(f"where: {attribute} has no pattern")
        if any(tag >> 16 in _NOT_OF_DATASETS for tag in path):
            raise ConfigError(
                f"where: {attribute} is no attribute of an instance",
                hint="Groups 0000 and 0002 belong to messages and files.",
            )
        for tag in path[:-1]:
            if _vr(tag) != "SQ":
                raise ConfigError(
                    f"where: {attribute} leads through an attribute that is no sequence"
                )
        if _vr(path[-1]).startswith(_UNREADABLE):
            raise ConfigError(
                f"where: {attribute} holds no text or number to compare",
                hint="Of a sequence, name an attribute inside: Sequence.Attribute",
            )
        return cls(attribute, tuple(patterns), path)

    def values(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the values that the attribute has; those of all items it is in."""
        return tuple(_values(dataset, self.path))

    def holds(self, values: Sequence[str]) -> bool:
        """Say whether values satisfy it."""
        forbidden = [p[1:] for p in self.patterns if p.startswith("!")]
        wanted = [p for p in self.patterns if not p.startswith("!")]
        if any(fnmatchcase(value, p) for value in values for p in forbidden):
            return False
        return not wanted or any(fnmatchcase(v, p) for v in values for p in wanted)


def _tag(attribute: str, part: str) -> int:
    tag = tag_for_keyword(part)
    if tag is not None:
        return int(tag)
    if len(part) == 8:
        try:
            return int(part, 16)
        except ValueError:
            pass
    raise ConfigError(
        f"where: {attribute}: no attribute is called {part!r}",
        hint="A keyword (StationName), or a tag in eight digits (00081010).",
    )


def _vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""  # a private one; what it holds is seen when it is there


def _values(dataset: Dataset, path: tuple[int, ...]) -> Iterator[str]:
    if path[0] not in dataset:
        return
    element = dataset[path[0]]
    if len(path) > 1:
        if element.VR == "SQ":
            for item in element.value:
                yield from _values(item, path[1:])
        return
    if element.VR.startswith(_UNREADABLE) or element.value is None:
        return
    value = element.value
    for one in value if isinstance(value, MultiValue | list) else [value]:
        yield str(one).strip(" \0")
