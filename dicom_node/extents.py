"""What stands inside an element: walked through to find its end, and to keep it finite.

Sequences hold items, items hold elements, and these may be sequences again, as deep and
as many as a sender likes; libraries follow until their stack or their memory ends. So
what could be a sequence is walked here first, without recursion and without decoding,
whether its length is given or not (PS3.5 7.5, A.4).

What is of undefined length has to be walked to be passed, and must be sound. What says
where it ends is looked into only for its limits: if it is damaged it ends where it says,
and whoever decodes it will see.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.errors import MalformedObjectError

if TYPE_CHECKING:
    from dicom_node.mapped import Buffer

UNDEFINED: Final = 0xFFFFFFFF
_PIXEL_DATA: Final = 0x7FE00010

LONG_VRS: Final = frozenset(
    b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
)  # a 4-byte length after 2 reserved bytes, PS3.5 table 7.1-1
VRS: Final = LONG_VRS | frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)

_SHORT_VRS: Final = VRS - LONG_VRS

_DELIMITERS: Final = 0xFFFE
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SEQUENCES: Final = frozenset({b"SQ", b"UN", b""})
_FRAGMENTS: Final = frozenset({b"OB", b"OW"})


class DamagedError(MalformedObjectError):
    """Something is not where it should be, which no limit forbids."""


class _Level(NamedTuple):
    """Where a walk is inside of: a sequence, one of its items, or fragments."""

    tag: int
    is_item: bool
    is_fragments: bool
    is_implicit: bool
    """Whether the elements in it are."""
    end: int
    """Behind which nothing of it may reach."""
    is_undefined: bool
    """Whether a delimiter ends it, somewhere before :attr:`end`."""


class Extents:
    """Walks through the elements of one data set, and counts what is in all of them."""

    def __init__(
        self,
        encoded: Buffer,
        *,
        is_little_endian: bool,
        depth: int,
        items: int,
        fragments: int,
    ) -> None:
        """Keep the data set, and how deep its items may be, and how many."""
        self._encoded = encoded
        self._most_deep = depth
        self._most_items, self._most_fragments = items, fragments
        self._items = 0
        order = "<" if is_little_endian else ">"
        self._header = struct.Struct(f"{order}HHI")
        self._short = struct.Struct(f"{order}H")
        self._short_element = struct.Struct(f"{order}HH2sH")
        self._long = struct.Struct(f"{order}I")
        self._item = self._header.pack(ITEM >> 16, ITEM & 0xFFFF, 0)[:4]

    def may_hold_items(self, vr: bytes, start: int, end: int) -> bool:
        """Say whether a value of known length could be read as a sequence."""
        return (
            end - start >= 8
            and vr in _SEQUENCES
            and self._encoded[start : start + 4] == self._item
        )

    def require_limits(
        self, tag: int, vr: bytes, start: int, end: int, *, is_implicit: bool
    ) -> None:
        """Return if what is in a value of known length is within the limits.

        Raises:
            MalformedObjectError: It is not.
        """
        self._walk(self._level(tag, vr, start, end, is_implicit=is_implicit), start)

    def end_of(
        self, tag: int, vr: bytes, start: int, end: int, *, is_implicit: bool
    ) -> int:
        """Return where a value of undefined length ends, its delimiter included.

        Raises:
            MalformedObjectError: It does not end, or is not within the limits.
        """
        level = self._level(
            tag, vr, start, end, is_implicit=is_implicit, is_undefined=True
        )
        return self._walk(level, start)

    def end_of_item(self, start: int, end: int, *, is_implicit: bool) -> int:
        """Return where an item of undefined length ends, its delimiter included.

        Args:
            start: Behind the item's tag and length.
            end: Behind which it may not reach.
            is_implicit: Whether the elements in it are.

        Raises:
            MalformedObjectError: It does not end, or is not within the limits.
        """
        item = _Level(
            tag=ITEM,
            is_item=True,
            is_fragments=False,
            is_implicit=is_implicit,
            end=end,
            is_undefined=True,
        )
        return self._walk(item, start)

    def _walk(self, outermost: _Level, position: int) -> int:
        """Return where ``outermost`` ends."""
        levels = [outermost]
        depth = 1
        while levels:
            level = levels[-1]
            if position >= level.end and not level.is_undefined:
                position = level.end
                levels.pop()
                depth -= not level.is_item
                continue
            try:
                position, inner = self._step(level, position)
            except DamagedError:
                # What says where it ends, ends there.
                while levels and levels[-1].is_undefined:
                    depth -= not levels.pop().is_item
                if not levels:
                    raise
                position = levels[-1].end
                continue
            if inner is not None:
                levels.append(inner)
                depth += not inner.is_item
                if depth > self._most_deep:
                    raise MalformedObjectError(
                        f"sequences nested more than {self._most_deep} deep"
                    )
            elif position < 0:
                position = -position
                levels.pop()
                depth -= not level.is_item
        return position

    def _step(self, level: _Level, position: int) -> tuple[int, _Level | None]:
        """Return the next position, negative behind a delimiter, and what begins."""
        if level.is_item:
            position = self._past_plain(position, level.end, level.is_implicit)
            self._count(0, self._most_items)
            if position >= level.end and not level.is_undefined:
                return position, None
        if position + 8 > level.end:
            raise DamagedError(
                "the data set ends in the middle of an element",
                hint="The object is cut short; ask its sender for it again.",
            )
        group, number, length = self._header.unpack_from(self._encoded, position)
        tag = group << 16 | number
        if tag == (ITEM_END if level.is_item else SEQUENCE_END):
            if not level.is_undefined:
                raise DamagedError("a delimiter ends what says its length")
            return -(position + 8), None
        self._count(1, self._most_fragments if level.is_fragments else self._most_items)
        if level.is_item:
            return self._element(level, tag, position)
        return self._begun(level, tag, position, length)

    def _count(self, more: int, most: int) -> None:
        self._items += more
        if self._items > most:
            raise MalformedObjectError(
                f"more than {most} items, and elements in them",
                hint="That is more than an object of its size needs.",
            )

    def _begun(
        self, level: _Level, tag: int, position: int, length: int
    ) -> tuple[int, _Level | None]:
        """Return what :meth:`_step` does of an item, or of a fragment."""
        if tag != ITEM:
            raise DamagedError(
                f"element {named(level.tag)} holds something other than items"
            )
        position += 8
        is_undefined = length == UNDEFINED
        if level.is_fragments and is_undefined:
            raise DamagedError("a fragment of undefined length")
        end = level.end if is_undefined else position + length
        if end > level.end:
            raise DamagedError(f"an item of {named(level.tag)} is cut short")
        if level.is_fragments:
            return end, None
        return position, _Level(
            tag=level.tag,
            is_item=True,
            is_fragments=False,
            is_implicit=level.is_implicit,
            end=end,
            is_undefined=is_undefined,
        )

    def _past_plain(self, position: int, end: int, is_implicit: bool) -> int:  # noqa: FBT001
        """Return the position behind elements that can hold no others.

        Nearly all are of that kind, and an object may have a hundred thousand of them, so
        this is done in a loop that calls nothing of ours.
        """
        encoded, count = self._encoded, 0
        short, header = self._short_element.unpack_from, self._header.unpack_from
        while position + 8 <= end:
            if is_implicit:
                group, _, length = header(encoded, position)
                is_plain = (
                    length < 8 or encoded[position + 8 : position + 12] != self._item
                )
            else:
                group, _, vr, length = short(encoded, position)
                is_plain = vr in _SHORT_VRS
            behind = position + 8 + length
            if group == _DELIMITERS or not is_plain or behind > end:
                break
            count += 1
            position = behind
        self._items += count
        return position

    def _element(
        self, level: _Level, tag: int, position: int
    ) -> tuple[int, _Level | None]:
        """Return what :meth:`_step` does of an element."""
        vr, value, length = self.element_at(
            tag, position, level.end, is_implicit=level.is_implicit
        )
        if length == UNDEFINED:
            return value, self._level(
                tag,
                vr,
                value,
                level.end,
                is_implicit=level.is_implicit,
                is_undefined=True,
            )
        end = value + length
        if end > level.end:
            raise DamagedError(f"element {named(tag)} is cut short")
        if self.may_hold_items(vr, value, end):
            return value, self._level(
                tag, vr, value, end, is_implicit=level.is_implicit
            )
        return end, None

    def element_at(
        self, tag: int, position: int, end: int, *, is_implicit: bool
    ) -> tuple[bytes, int, int]:
        """Return the VR, the start of the value and the length of an element.

        Raises:
            DamagedError: It has no VR that is known, or the data set ends in it.
        """
        if is_implicit:
            return b"", position + 8, self._read(self._long, position + 4, end)
        vr = bytes(self._encoded[position + 4 : position + 6])
        if vr in LONG_VRS:
            return vr, position + 12, self._read(self._long, position + 8, end)
        if vr not in VRS:
            raise DamagedError(
                f"element {named(tag)} has no known value representation"
            )
        return vr, position + 8, self._read(self._short, position + 6, end)

    def _level(
        self,
        tag: int,
        vr: bytes,
        start: int,
        end: int,
        *,
        is_implicit: bool,
        is_undefined: bool = False,
    ) -> _Level:
        """Return what an element is that holds items or fragments."""
        is_fragments = vr in _FRAGMENTS or (vr == b"" and tag == _PIXEL_DATA)
        if not is_fragments and vr not in _SEQUENCES:
            raise DamagedError(f"element {named(tag)} has an undefined length")
        if vr == b"UN":
            # Implicit VR inside, PS3.5 6.2.2; but not every sender has heard of that.
            is_implicit = bytes(self._encoded[start + 12 : start + 14]) not in VRS
        return _Level(
            tag=tag,
            is_item=False,
            is_fragments=is_fragments,
            is_implicit=is_implicit,
            end=end,
            is_undefined=is_undefined,
        )

    def _read(self, number: struct.Struct, position: int, end: int) -> int:
        if position + number.size > end:
            raise DamagedError("the data set ends in the middle of an element")
        return int(number.unpack_from(self._encoded, position)[0])


def named(tag: int) -> str:
    """Return a tag as the standard writes it."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
