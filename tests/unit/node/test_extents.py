"""What is inside sequences is finite, whether they say how long they are or not."""

from __future__ import annotations

import struct
import time

import pytest
from pydicom.dataset import Dataset

from dicom_node.elements import Limits, header, scan
from dicom_node.errors import MalformedObjectError
from dicom_node.instance import OpenInstance
from dicom_node.part10 import Encoding
from tests.unit.node.test_elements import ENCODINGS, IDS

LITTLE = Encoding(False, True)
UNDEFINED = 0xFFFFFFFF
SOURCES, DERIVATIONS, PRIVATE = 0x00082112, 0x00089215, 0x00091010
BEGIN, ITEM_END, END = 0xE000, 0xE00D, 0xE0DD

every_encoding = pytest.mark.parametrize("encoding", ENCODINGS, ids=IDS)


def delimiter(number: int, length: int, encoding: Encoding) -> bytes:
    order = "<" if encoding.is_little_endian else ">"
    return struct.pack(f"{order}HHI", 0xFFFE, number, length)


def item(value: bytes, encoding: Encoding = LITTLE) -> bytes:
    return delimiter(BEGIN, len(value), encoding) + value


def open_item(value: bytes, encoding: Encoding = LITTLE) -> bytes:
    end = delimiter(ITEM_END, 0, encoding)
    return delimiter(BEGIN, UNDEFINED, encoding) + value + end


def sequence(
    value: bytes, encoding: Encoding = LITTLE, tag: int = SOURCES, vr: str = "SQ"
) -> bytes:
    return header(tag, vr, len(value), encoding) + value


def open_sequence(value: bytes, encoding: Encoding = LITTLE) -> bytes:
    start = header(SOURCES, "SQ", UNDEFINED, encoding)
    return start + value + delimiter(END, 0, encoding)


def nested(depth: int, encoding: Encoding, ways: str) -> bytes:
    """Return sequences in one another, their lengths known (k) or undefined (u)."""
    inner = b""
    for level in range(depth):
        if ways[level % len(ways)] == "k":
            inner = sequence(item(inner, encoding), encoding)
        else:
            inner = open_sequence(open_item(inner, encoding), encoding)
    return inner


@every_encoding
@pytest.mark.parametrize("ways", ["k", "u", "ku", "uuk"])
def test_sequences_are_nested_as_deep_as_allowed(encoding: Encoding, ways: str) -> None:
    deepest = nested(32, encoding, ways)
    assert scan(deepest, encoding, Limits()).bytes_of(SOURCES) == deepest
    for depth in (33, 200, 3000):
        with pytest.raises(MalformedObjectError, match="nested more than 32 deep"):
            scan(nested(depth, encoding, ways), encoding, Limits())


def test_unknown_makes_no_difference() -> None:
    for encoding in ENCODINGS[:2]:
        hidden = sequence(item(nested(40, encoding, "k"), encoding), encoding, vr="UN")
        with pytest.raises(MalformedObjectError, match="nested more"):
            scan(hidden, encoding, Limits())


@every_encoding
@pytest.mark.parametrize("is_open", [False, True], ids=["known", "undefined"])
def test_items_and_what_is_in_them_are_counted(
    encoding: Encoding, *, is_open: bool
) -> None:
    limits = Limits(items=100, bytes_an_item=1 << 30)
    whole = open_sequence if is_open else sequence
    element = header(0x00080100, "SH", 0, encoding)
    for made in (
        lambda n: item(b"", encoding) * n,
        lambda n: item(element * (n - 1), encoding),
        lambda n: open_item(element * (n - 1), encoding),
    ):
        scan(whole(made(100), encoding), encoding, limits)
        with pytest.raises(MalformedObjectError, match="more than 100 items"):
            scan(whole(made(101), encoding), encoding, limits)


def test_a_larger_object_may_hold_more() -> None:
    """As an enhanced multi-frame object does, which has pixels to show for it."""
    groups = sequence(item(header(0x00080100, "SH", 0, LITTLE) * 299))
    pixels = header(0x7FE00010, "OB", 64 * 200, LITTLE) + bytes(64 * 200)
    limits = Limits(items=100, bytes_an_item=64)
    with pytest.raises(MalformedObjectError, match=r"more than \d+ items"):
        scan(groups, LITTLE, limits)
    assert len(scan(groups + pixels, LITTLE, limits).tags()) == 2


def test_fragments_are_counted_whatever_the_size() -> None:
    start = header(0x7FE00010, "OB", UNDEFINED, LITTLE)
    many = start + item(b"") * 101 + item(bytes(1 << 20))
    with pytest.raises(MalformedObjectError, match="more than 100 items"):
        scan(many, LITTLE, Limits(items=100))


DAMAGED = {
    "an item that is too long": struct.pack("<HHI", 0xFFFE, BEGIN, 5000) + bytes(20),
    "no item second": item(b"") + b"\x08\x00\x00\x01SH\0\0",
    "no element in an item": item(b"????????????"),
    "cut short": item(b"") + b"\xfe\xff",
    "a delimiter too many": item(b"") + struct.pack("<HHI", 0xFFFE, END, 0),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_says_where_it_ends_ends_there_whatever_is_in_it(damaged: bytes) -> None:
    """Nobody has asked for it, so it is passed as it is; who asks is told."""
    behind = header(0x00100010, "PN", 2, LITTLE) + b"X "
    encoded = sequence(damaged) + behind
    assert scan(encoded, LITTLE, Limits()).bytes_of(0x00100010) == behind
    # Inside of something else too.
    outer = open_sequence(item(sequence(damaged, tag=DERIVATIONS)))
    assert scan(outer + behind, LITTLE, Limits()).bytes_of(0x00100010) == behind


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_what_does_not_say_where_it_ends_must_be_sound(name: str) -> None:
    damaged = DAMAGED[name]
    if name == "no element in an item":  # whose length is known
        damaged = open_item(damaged[8:])
    with pytest.raises(MalformedObjectError):
        scan(open_sequence(damaged), LITTLE, Limits())


def test_a_value_that_only_looks_like_a_sequence_is_none() -> None:
    odd = sequence(item(b"\xff" * 30), tag=PRIVATE, vr="UN")
    assert scan(odd, LITTLE, Limits()).bytes_of(PRIVATE) == odd


def test_a_million_of_anything_costs_about_what_it_weighs() -> None:
    """8 MB; a second and 300 MB for pydicom, if it were asked."""
    element = header(0x00080100, "SH", 0, LITTLE)
    for hostile in (
        sequence(item(element * 1_000_000)),
        sequence(item(b"") * 1_000_000),
        header(0x7FE00010, "OB", UNDEFINED, LITTLE) + item(b"") * 1_000_000,
    ):
        started = time.process_time()
        with pytest.raises(MalformedObjectError, match="more than"):
            scan(hostile, LITTLE, Limits())
        assert time.process_time() - started < 2


def test_what_is_decoded_at_once_is_worth_its_time(an_object: OpenInstance) -> None:
    """Twenty thousand empty items took pydicom ten seconds, in a file of 170 KB."""

    def with_sources(value: bytes) -> OpenInstance:
        encoded = an_object.file.encoding.encode(Dataset()) + sequence(value)
        file = an_object.file.changed(encoded, "1.2.3", an_object.file.transfer_syntax)
        return OpenInstance.of(file.to_bytes(), Limits())

    hostile = with_sources(item(b"") * 20_000)
    with pytest.raises(MalformedObjectError, match="more than"):
        hostile.attributes(SOURCES)
    source = b"".join(
        header(tag, "UI", 54, LITTLE) + b"1" * 54 for tag in (0x00081150, 0x00081155)
    )
    honest = with_sources(item(source) * 5_000)
    assert len(honest.attributes(SOURCES).SourceImageSequence) == 5_000


@pytest.fixture
def an_object(images: object) -> OpenInstance:
    path = images / "ct.dcm"  # type: ignore[operator]
    return OpenInstance.of(path.read_bytes(), Limits())
