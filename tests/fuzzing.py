"""Hostile files by the thousand: real ones, changed by chance, and what is done to them.

Every case follows from its number alone, so that one that fails can be looked at again::

    case(Seeds.read(folder, keys), 4711)
"""

from __future__ import annotations

import faulthandler
import functools
import random
import resource
import struct
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import numpy as np
from pydicom import uid

from dicom_node import pixel_data, pixel_layout
from dicom_node.codec_process import CodecProcess
from dicom_node.decoding import Decode
from dicom_node.decompression import DECODED, decompressed
from dicom_node.elements import PIXEL_DATA, Limits, header
from dicom_node.errors import CodecCrashError, NodeError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.strip import strip
from dicom_node.inspection import inspect
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.part10 import Encoding, Part10
from miadmark_core.errors import MiadMarkError
from miadmark_core.search.finder import FoundMark, Wanted
from tests.conftest import NOW, a_site

SMALL: Final = 64 * 1024
"""Bytes of a file that is mutated: the smaller, the more of them."""

MARKED_PIXELS: Final = 48 * 1024
"""Samples of an object that is marked as well, at most."""

COMPRESSED: Final = 0.15
"""The share of cases that is sure to start from compressed pixels."""

MARKED_OF: Final = 2
"""One of as many of these."""

HANG_S: Final = 60.0
"""After which a case is taken for a true hang, and its process ended."""

NAMED = (NodeError, MiadMarkError)
UINT16: Final = (0, 1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 255, 256, 32767, 32768, 65535)
LENGTHS: Final = (0, 1, 2, 3, 7, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000)
LENGTHS_32: Final = (*LENGTHS, 0xFFFFFFFE, 0xFFFFFFFF)
VRS: Final = b"AE AT CS DS FD FL IS LO OB OW PN SQ SS UI UL UN US UT".split()
TEXTS: Final = (
    b"",
    b" ",
    b"0",
    b"-1",
    b"1e400",
    b"NaN",
    b"1\\2\\3",
    b"99999999999",
    b"\xff\xfe\0\xe0",
    b"\\",
    b"../../etc/x ",
    b"%s%n{0}",
    b"\x1b$B\x1b(J",
    b"1." * 40,
    b"A" * 1000,
)
PHOTOMETRIC: Final = (
    *b"MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_ICT YBR_RCT HSV".split(),
    *(b"ARGB", b"YBR_PARTIAL_420", b"PALETTE COLOR ", b"RGB\\RGB"),
)
IMAGE_US: Final = (
    *(0x00280002, 0x00280006, 0x00280010, 0x00280011),
    *(0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280121),
)
NUMBERS: Final = (0x00281050, 0x00281051, 0x00281052, 0x00281053)
"""Window and rescale."""
SEQUENCES: Final = (0x00082112, 0x00089215, 0x0018A001, 0x00081140, 0x52009229)
"""Those that are decoded when an object is marked or stripped, and two others."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A real file, taken apart."""

    name: str
    file: Part10
    elements: tuple[bytes, ...]

    @classmethod
    def of(cls, name: str, encoded: bytes) -> Self:
        instance = OpenInstance.of(encoded, Limits())
        elements = instance.elements
        return cls(name, instance.file, tuple(map(elements.bytes_of, elements.tags())))

    @property
    def encoding(self) -> Encoding:
        return self.file.encoding

    @property
    def is_compressed(self) -> bool:
        return self.file.transfer_syntax in DECODED


@dataclass(slots=True)
class Draft:
    """A file that is being changed."""

    encoding: Encoding
    syntax: uid.UID
    elements: list[bytes]

    def index(self, tag: int) -> int | None:
        wanted = header(tag, "UN", 0, self.encoding)[:4]
        for index, element in enumerate(self.elements):
            if element[:4] == wanted:
                return index
        return None

    def put(self, tag: int, element: bytes) -> None:
        """Replace the element, or add it where it belongs."""
        index = self.index(tag)
        if index is not None:
            self.elements[index] = element
            return
        self.elements.append(element)
        self.elements.sort(key=self._tag)

    def _tag(self, element: bytes) -> tuple[int, int]:
        order = "<" if self.encoding.is_little_endian else ">"
        group, number = struct.unpack(f"{order}HH", element[:4].ljust(4, b"\xff"))
        return group, number


@dataclass(frozen=True, slots=True)
class Seeds:
    """What cases are made of."""

    files: tuple[Seed, ...]
    keys: Sealer

    @classmethod
    def read(cls, folder: Path, keys: Path) -> Self:
        """Take the small files below a folder, some deflated, and some marked."""
        sealer = a_site(keys)
        files = []
        for path in sorted(folder.rglob("*.dcm")):
            if path.stat().st_size > SMALL:
                continue
            try:
                files.append(Seed.of(path.name, path.read_bytes()))
            except NAMED:
                continue
        marked = []
        for seed in files:
            instance = OpenInstance.of(seed.file.to_bytes(), Limits())
            (outcome,) = mark(
                [instance], find=by_hand, keys=sealer, now=NOW, holds_weak=False
            )
            if isinstance(outcome, MarkedInstance):
                encoded = outcome.file.to_bytes()
                marked.append(Seed.of(f"marked {seed.name}", encoded))
        return cls((*files, *marked), sealer)


def by_hand(wanted: Sequence[Wanted]) -> list[FoundMark]:
    """Return a mark that no search has looked for."""
    chance = np.random.default_rng(1)
    return [
        FoundMark(chance.integers(-60, 60, (28, 28, w.shown.shape[-1]), np.int8), {})
        for w in wanted
    ]


def case(seeds: Seeds, number: int) -> tuple[str, bytes]:
    """Return what was done in a case, and the file that it came to."""
    chance = random.Random(number)  # noqa: S311 no secret, and repeatable
    compressed = [seed for seed in seeds.files if seed.is_compressed]
    seed = chance.choice(compressed if chance.random() < COMPRESSED else seeds.files)
    draft = Draft(seed.encoding, seed.file.transfer_syntax, list(seed.elements))
    kinds = chance.choices(
        list(STRUCTURED), list(WEIGHTS), k=chance.choice((0, 1, 1, 1, 2, 3))
    )
    for kind in kinds:
        STRUCTURED[kind](chance, draft, seeds)
    dataset = b"".join(draft.elements)
    if chance.random() < 0.15 or not kinds:
        kind = chance.choice(list(RAW))
        dataset = RAW[kind](chance, dataset)
        kinds.append(kind)
    if chance.random() < 0.1:
        draft.syntax, dataset = deflated(chance, dataset)
        kinds.append("deflated")
    name = str(seed.file.meta.get("MediaStorageSOPInstanceUID") or "")
    encoded = seed.file.changed(dataset, name, draft.syntax).to_bytes()
    if chance.random() < 0.05:
        start = encoded[: len(encoded) - len(dataset)]
        encoded = RAW["flips"](chance, start) + dataset
        kinds.append("meta")
    return f"{number}: {seed.name}: {', '.join(kinds)}", encoded


# Changes that know where elements are.


def extreme(chance: random.Random, draft: Draft, _: Seeds) -> None:
    """An attribute of the image with a value that it should not have."""
    tag = chance.choice((*IMAGE_US, *IMAGE_US, *NUMBERS, 0x00280008, 0x00280004))
    if tag in IMAGE_US:
        order = "<" if draft.encoding.is_little_endian else ">"
        vr, value = "US", struct.pack(f"{order}H", chance.choice(UINT16))
    elif tag == 0x00280004:
        vr, value = "CS", chance.choice(PHOTOMETRIC)
    elif tag == 0x00280008:
        frames = (b"0", b"-1", b"2", b"1000", b"65536", b"2147483647", b"99999999999")
        vr, value = "IS", chance.choice((*frames, *TEXTS))
    else:
        numbers = (b"0", b"-1e300", b"1e300", b"1e-300", b"inf", b"0.1", b"1\\2")
        vr, value = "DS", chance.choice((*numbers, *TEXTS))
    put(draft, tag, vr, value)


def odd_value(chance: random.Random, draft: Draft, _: Seeds) -> None:
    """An element with a value of another kind."""
    index = chance.randrange(len(draft.elements))
    element = draft.elements[index]
    if chance.random() < 0.5:
        size = min(len(element), 4096)
        value = chance.randbytes(size) if size else b""
    else:
        value = chance.choice(TEXTS)
    tag, vr = tag_and_vr(element, draft.encoding)
    draft.elements[index] = built(tag, vr, value, draft.encoding)


def other_vr(chance: random.Random, draft: Draft, _: Seeds) -> None:
    index = some(chance, draft)
    element = draft.elements[index]
    draft.elements[index] = element[:4] + chance.choice(VRS) + element[6:]


def other_tag(chance: random.Random, draft: Draft, _: Seeds) -> None:
    """Two elements under each other's tags."""
    first, second = some(chance, draft), some(chance, draft)
    a, b = draft.elements[first], draft.elements[second]
    draft.elements[first], draft.elements[second] = b[:4] + a[4:], a[:4] + b[4:]


def other_length(chance: random.Random, draft: Draft, _: Seeds) -> None:
    index = some(chance, draft)
    element = draft.elements[index]
    order = "<" if draft.encoding.is_little_endian else ">"
    is_long = draft.encoding.is_implicit_vr or element[4:6] in {
        *(b"OB", b"OW", b"SQ", b"UN", b"UT")
    }
    at = 4 if draft.encoding.is_implicit_vr else 8 if is_long else 6
    kind = f"{order}I" if is_long else f"{order}H"
    most = 0xFFFFFFFF if is_long else 0xFFFF
    try:
        (old,) = struct.unpack_from(kind, element, at)
    except struct.error:
        return
    near = [(old + by) & most for by in (-2, -1, 1, 2, 8)]
    length = chance.choice([*near, *(n for n in LENGTHS_32 if n <= most)])
    draft.elements[index] = (
        element[:at] + struct.pack(kind, length) + element[at + struct.calcsize(kind) :]
    )


def twice(chance: random.Random, draft: Draft, _: Seeds) -> None:
    index = some(chance, draft)
    draft.elements.insert(index, draft.elements[index])


def without(chance: random.Random, draft: Draft, _: Seeds) -> None:
    if len(draft.elements) > 1:
        del draft.elements[some(chance, draft)]


def elsewhere(chance: random.Random, draft: Draft, _: Seeds) -> None:
    """An element in another place."""
    element = draft.elements.pop(some(chance, draft))
    draft.elements.insert(chance.randint(0, len(draft.elements)), element)
    if not draft.elements:
        draft.elements.append(element)


def spliced(chance: random.Random, draft: Draft, seeds: Seeds) -> None:
    """Elements of another file, pixels among them at times."""
    donor = chance.choice(seeds.files)
    chosen = chance.sample(donor.elements, k=min(len(donor.elements), 5))
    if chance.random() < 0.4:
        chosen.append(donor.elements[-1])
        if chance.random() < 0.5:
            draft.syntax = donor.file.transfer_syntax
    for element in chosen:
        tag, _ = tag_and_vr(element, donor.encoding)
        draft.put(tag, element)


def nested(chance: random.Random, draft: Draft, _: Seeds) -> None:
    """Sequences in sequences, of known and of unknown length."""
    encoding = draft.encoding
    inner = chance.choice((b"", built(0x00080100, "SH", b"1", encoding)))
    order = "<" if encoding.is_little_endian else ">"
    tag = chance.choice(SEQUENCES)
    ways = chance.choice((0.0, 0.5, 1.0))
    for _level in range(chance.choice((1, 2, 10, 31, 33, 300, 1500))):
        if len(inner) > 60_000 and not encoding.is_implicit_vr:
            break
        if chance.random() < ways:
            item = struct.pack(f"{order}HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner
            item += struct.pack(f"{order}HHI", 0xFFFE, 0xE00D, 0)
            inner = header(tag, "SQ", 0xFFFFFFFF, encoding) + item
            inner += struct.pack(f"{order}HHI", 0xFFFE, 0xE0DD, 0)
        else:
            item = struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(inner)) + inner
            vr = chance.choice(("SQ", "SQ", "SQ", "UN"))
            inner = header(tag, vr, len(item), encoding) + item
    draft.put(tag, inner)


def many(chance: random.Random, draft: Draft, _: Seeds) -> None:
    """A sequence of very many empty things."""
    encoding = draft.encoding
    order = "<" if encoding.is_little_endian else ">"
    count = chance.choice((100, 1000, 20_000))
    item = struct.pack(f"{order}HHI", 0xFFFE, 0xE000, 0)
    element = built(0x00080100, "SH", b"", encoding)
    if chance.random() < 0.5:
        value = item * count
    else:
        value = struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(element) * count)
        value += element * count
    tag = chance.choice(SEQUENCES)
    draft.put(tag, header(tag, "SQ", len(value), encoding) + value)


def fragments(chance: random.Random, draft: Draft, _: Seeds) -> None:
    """Encapsulated pixels in other pieces than they should be."""
    index = draft.index(PIXEL_DATA)
    if index is None:
        return
    element = draft.elements[index]
    start = 8 if draft.encoding.is_implicit_vr else 12
    pieces = items(element[start:])
    if not pieces:
        return
    kind = chance.randrange(7)
    at = chance.randrange(len(pieces))
    if kind == 0:
        pieces.insert(at, pieces[at])
    elif kind == 1:
        del pieces[at]
    elif kind == 2:
        pieces[at] = b""
    elif kind == 3:
        pieces[0] = chance.randbytes(4 * chance.randrange(20))
    elif kind == 4:
        pieces += [b""] * chance.choice((1, 63, 1000, 20_000))
    elif kind == 5:
        middle = len(pieces[at]) // 2
        pieces[at : at + 1] = [pieces[at][:middle], pieces[at][middle:]]
    else:
        pieces[at] = pieces[at][: chance.randrange(len(pieces[at]) + 1)]
    ends = [chance.choice((len(piece), len(piece), len(piece) + 1)) for piece in pieces]
    value = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, end) + piece
        for end, piece in zip(ends, pieces, strict=True)
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    draft.elements[index] = element[:start] + value + end * (chance.random() < 0.9)


def codestream(chance: random.Random, draft: Draft, _: Seeds) -> None:
    """Flips in the headers of coded frames, or deep inside."""
    index = draft.index(PIXEL_DATA)
    if index is None:
        return
    element = bytearray(draft.elements[index])
    reach = chance.choice((40, 120, 400, len(element)))
    for _flip in range(chance.choice((1, 1, 2, 5, 20))):
        position = chance.randrange(20, max(21, min(len(element), 20 + reach)))
        if position < len(element):
            element[position] = chance.choice(
                (0, 1, 255, element[position] ^ (1 << chance.randrange(8)))
            )
    draft.elements[index] = bytes(element)


def lie(chance: random.Random, draft: Draft, _: Seeds) -> None:
    """A transfer syntax that the data set is not in."""
    known = (
        *(uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian),
        *(uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian),
        *(uid.MPEG2MPML, uid.UID("1.2.3"), uid.UID("1.2.840.10008.1.2.8.1")),
    )
    draft.syntax = chance.choice((*known, *DECODED, *DECODED))


STRUCTURED: Final[dict[str, Callable[[random.Random, Draft, Seeds], None]]] = {
    "extreme": extreme,
    "odd value": odd_value,
    "other VR": other_vr,
    "other tag": other_tag,
    "other length": other_length,
    "twice": twice,
    "without": without,
    "elsewhere": elsewhere,
    "spliced": spliced,
    "nested": nested,
    "many": many,
    "fragments": fragments,
    "codestream": codestream,
    "lie": lie,
}

WEIGHTS: Final = (4, 4, 2, 0.5, 1, 0.5, 2, 0.5, 3, 2, 0.4, 3, 4, 1.5)
"""How often: what is refused at the door is not tried at every door."""


# Changes that know nothing.


def flips(chance: random.Random, encoded: bytes) -> bytes:
    changed = bytearray(encoded)
    for _flip in range(chance.choice((1, 1, 2, 4, 16)) if changed else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(chance: random.Random, encoded: bytes) -> bytes:
    return encoded[: chance.randrange(len(encoded) + 1)]


def inserted(chance: random.Random, encoded: bytes) -> bytes:
    at = chance.randrange(len(encoded) + 1)
    return encoded[:at] + chance.randbytes(chance.randrange(1, 40)) + encoded[at:]


def removed(chance: random.Random, encoded: bytes) -> bytes:
    at = chance.randrange(len(encoded) + 1)
    return encoded[:at] + encoded[at + chance.randrange(1, 40) :]


def overwritten(chance: random.Random, encoded: bytes) -> bytes:
    at = chance.randrange(len(encoded) + 1)
    size = chance.choice((1, 2, 4, 8))
    byte = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80"))
    return encoded[:at] + byte * size + encoded[at + size :]


RAW: Final[dict[str, Callable[[random.Random, bytes], bytes]]] = {
    "flips": flips,
    "cut": cut,
    "inserted": inserted,
    "removed": removed,
    "overwritten": overwritten,
}


def deflated(chance: random.Random, dataset: bytes) -> tuple[uid.UID, bytes]:
    """The data set deflated, at times with much more of nothing behind it."""
    deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    encoded = deflater.compress(dataset)
    if chance.random() < 0.2:
        size = chance.choice((1 << 16, 1 << 20, 1 << 24, 1 << 26))
        last = b"\xfc\xff\xfc\xffOB\0\0" + struct.pack("<I", size)
        encoded += deflater.compress(last) + deflater.flush(zlib.Z_FULL_FLUSH)
        encoded += nothing(size)
    encoded += deflater.flush()
    if chance.random() < 0.2:
        encoded = flips(chance, encoded)
    return uid.DeflatedExplicitVRLittleEndian, encoded


@functools.cache
def nothing(size: int) -> bytes:
    """Return as many zeros deflated, to be put into a deflated stream."""
    deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(bytes(size)) + deflater.flush(zlib.Z_FULL_FLUSH)


# Small things.


def some(chance: random.Random, draft: Draft) -> int:
    return chance.randrange(len(draft.elements))


def tag_and_vr(element: bytes, encoding: Encoding) -> tuple[int, str]:
    order = "<" if encoding.is_little_endian else ">"
    group, number = struct.unpack(f"{order}HH", element[:4].ljust(4, b"\0"))
    vr = "" if encoding.is_implicit_vr else element[4:6].decode("latin-1")
    return group << 16 | number, vr


def built(tag: int, vr: str, value: bytes, encoding: Encoding) -> bytes:
    value = (value + b" " * (len(value) % 2))[:65534]
    vr = vr if vr.isascii() and len(vr) == 2 else "UN"
    return header(tag, vr, len(value), encoding) + value


def put(draft: Draft, tag: int, vr: str, value: bytes) -> None:
    draft.put(tag, built(tag, vr, value, draft.encoding))


def items(value: bytes) -> list[bytes]:
    """Return what the items of a value hold, as far as they can be read."""
    found, position = [], 0
    while value[position : position + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack_from("<I", value.ljust(position + 8), position + 4)
        found.append(value[position + 8 : position + 8 + length])
        position += 8 + length
    return found


# What is done to every file.


@dataclass(slots=True)
class Tally:
    """What became of cases."""

    cases: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slow: list[tuple[float, str]] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0
    """Bytes that this process took at most, above its start."""
    codec_memory: int = 0
    """Bytes that a process took that decoded, at most."""


def run(tally: Tally, encoded: bytes, keys: Sealer, decode: Decode) -> None:
    """Do to a file all that a node does, and note how far it came.

    Raises:
        Exception: What no node expects.
    """

    def reached(stage: str, step: Callable[[], object]) -> bool:
        try:
            step()
        except CodecCrashError:
            tally.refused["codec"] += 1
            return False
        except NAMED:
            tally.refused[stage] += 1
            return False
        tally.reached[stage] += 1
        return True

    reached("inspected", lambda: inspect(encoded))
    opened: list[OpenInstance] = []
    if not reached("opened", lambda: opened.append(OpenInstance.of(encoded, Limits()))):
        return
    (instance,) = opened
    reached("identified", instance.identity)
    native: list[pixel_data.Decoded] = []

    def decoded() -> None:
        plain = decompressed(instance, decode)
        tally.reached["decompressed"] += plain is not instance
        layout = pixel_layout.layout_of(plain.attributes(*pixel_layout.TAGS))
        tally.reached["described"] += 1
        pixels, layout = pixel_data.native(
            plain.elements, layout, plain.file.transfer_syntax
        )
        native.append(pixel_data.decode(pixels, layout))

    if (
        reached("decoded", decoded)
        and native[0].image.whole().size <= MARKED_PIXELS
        and tally.reached["decoded"] % MARKED_OF == 0
    ):
        reached("marked", lambda: marked(instance, keys, decode))
    reached("stripped", lambda: strip(instance, keys.opening(), decode))


def marked(instance: OpenInstance, keys: Sealer, decode: Decode) -> MarkedInstance:
    (outcome,) = mark(
        [instance], find=by_hand, keys=keys, now=NOW, holds_weak=False, decode=decode
    )
    if isinstance(outcome, MarkedInstance):
        return outcome
    # One odd object does not stop the others; here it must stop us.
    cause = outcome.__cause__
    if "unexpectedly" in str(outcome) and cause is not None:
        raise cause
    raise outcome


def timed(
    tally: Tally, told: str, encoded: bytes, keys: Sealer, decode: Decode
) -> float:
    """Run a case, and return how many seconds it took."""
    started = time.monotonic()
    try:
        run(tally, encoded, keys, decode)
    except Exception:  # noqa: BLE001 this is what is looked for
        tally.failures.append(f"{told}\n{traceback.format_exc(limit=-6)}")
    return time.monotonic() - started


def run_share(  # called in a process of its own
    folder: Path, keys: Path, numbers: range, most_s: float
) -> Tally:
    """Run the cases ``numbers``."""
    warnings.simplefilter("ignore")
    seeds = Seeds.read(folder, keys)
    tally = Tally()
    with CodecProcess() as codecs:
        before = memory()
        for number in numbers:
            # A hang inside native code would not hear an alarm.
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            told, encoded = case(seeds, number)
            tally.cases += 1
            tally.kinds.update(told.rsplit(": ", 1)[1].split(", "))
            seconds = timed(tally, told, encoded, seeds.keys, codecs)
            for _again in range(3):
                if seconds > most_s:  # or the machine was busy with something else
                    seconds = timed(Tally(), told, encoded, seeds.keys, codecs)
            if seconds > most_s:
                tally.slow.append((seconds, told))
            tally.slowest = max(tally.slowest, seconds)
        faulthandler.cancel_dump_traceback_later()
        tally.grown = memory() - before
        tally.codec_memory = codecs.peak_memory
    return tally


def memory() -> int:
    """Return the most memory that this process has taken so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
