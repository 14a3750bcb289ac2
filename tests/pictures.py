"""Pictures of every kind as encoded data sets, made with pydicom and nothing of ours.

A :class:`Case` says everything about one, so that it can be made again alone. What is in
its pixels comes from its number; :func:`stored_values` reads them back, likewise without
the code under test.
"""

from __future__ import annotations

import io
import subprocess
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread, uid
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

Values = NDArray[np.int64]

SYNTAXES: Final[Mapping[str, uid.UID]] = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg 2000": uid.JPEG2000Lossless,
    "jpeg": uid.JPEGBaseline8Bit,
    "jpeg lossless": uid.JPEGLosslessSV1,
}
NATIVE: Final = ("implicit", "explicit", "big endian", "deflated")
COMPRESSED: Final = ("rle", "jpeg-ls", "jpeg 2000", "jpeg")
GREY: Final = ("MONOCHROME1", "MONOCHROME2")
COLOURED: Final = ("RGB", "RGB", "YBR_FULL", "YBR_FULL_422")
SMALLEST_ENCODED: Final = 32
"""Rows and columns that the encoder takes, with its five levels; enough for that of
JPEG-LS, whose buffer is too small for fewer."""
PALETTES: Final = ("8 bits", "16 bits", "offset", "segmented", "bytes in words")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One picture, and how it is to be marked."""

    number: int
    photometric: str
    syntax: str
    allocated: int
    stored: int
    high: int
    is_signed: bool = False
    is_planar: bool = False
    frames: int = 1
    rows: int = 9
    columns: int = 12
    content: str = "full"
    """``full``; ``ends``: much of it on an end of the range; ``flat``: the last of
    several frames is constant; ``few``: ten neighbouring values."""
    padding: str = "none"
    """``none``, ``value``, ``range``."""
    has_overlays: bool = False
    """Bits beside the stored values hold something of their own."""
    windows: str = "none"
    """``none``, ``one``, ``several``, ``per frame``."""
    rescale: tuple[float, float] | None = None
    palette: str = ""
    has_extras: bool = False
    """Icon, private elements, character set, sequences of undefined length."""
    vr: str = ""
    """Of 8-bit Pixel Data: ``OB`` or ``OW``; what is usual by default."""
    is_logo: bool = False
    planes: int = 3
    """Of the mark, where the picture has three."""

    @property
    def samples(self) -> int:
        return 3 if self.photometric in {"RGB", "YBR_FULL", "YBR_FULL_422"} else 1

    @property
    def shift(self) -> int:
        return self.high + 1 - self.stored

    @property
    def ends(self) -> tuple[int, int]:
        """The lowest and highest stored value."""
        lower = -(1 << (self.stored - 1)) if self.is_signed else 0
        return lower, lower + (1 << self.stored) - 1

    @property
    def padded(self) -> tuple[int, int] | None:
        """Which stored values are padding, both ends included."""
        if self.padding == "none":
            return None
        lower = self.ends[0] + (2 if self.stored > 8 and self.number % 3 else 0)
        return lower, lower + (self.padding == "range")

    @property
    def is_native(self) -> bool:
        return self.syntax in NATIVE


def cases(count: int) -> Iterator[Case]:
    """Yield ``count`` cases: every pair of bits and kind first, then at random."""
    number = 0
    for number, case in enumerate(_product()):
        yield replace(case, number=number)
    while (number := number + 1) < count:
        yield drawn(number)


def _product() -> Iterator[Case]:
    bits = [(8, b) for b in range(2, 9)] + [(16, b) for b in range(2, 17)]
    turn = 0
    for kind, syntax, (allocated, stored), is_signed, frames in product(
        GREY, (*NATIVE, "rle"), bits, (False, True), (1, 3)
    ):
        turn += 1
        high = (stored - 1, allocated - 1, (stored + allocated) // 2 - 1)[turn % 3]
        yield Case(
            number=0,
            photometric=kind,
            syntax=syntax,
            allocated=allocated,
            stored=stored,
            high=high,
            is_signed=is_signed,
            frames=frames,
            has_overlays=stored < allocated and turn % 2 == 0,
            columns=12 - turn % 4,
        )
    colours = [(8, b) for b in range(4, 9)] + [(16, b) for b in range(9, 17)]
    for syntax, (allocated, stored), is_planar, frames in product(
        (*NATIVE, "rle"), colours, (False, True), (1, 2, 5)
    ):
        turn += 1
        yield Case(
            number=0,
            photometric="RGB",
            syntax=syntax,
            allocated=allocated,
            stored=stored,
            high=stored - 1 if turn % 2 else allocated - 1,
            is_planar=is_planar,
            frames=frames,
            planes=1 if turn % 5 == 0 else 3,
        )
    for syntax, (allocated, stored), is_planar, frames in product(
        (*NATIVE, "rle"), ((8, 8), (16, 12)), (False, True), (1, 2, 5)
    ):
        made = Case(
            number=0,
            photometric="YBR_FULL",
            syntax=syntax,
            allocated=allocated,
            stored=stored,
            high=stored - 1,
            is_planar=is_planar,
            frames=frames,
        )
        yield made
        if syntax != "rle" and allocated == 8 and not is_planar:
            yield replace(made, photometric="YBR_FULL_422")
    for syntax, palette, (allocated, stored), frames in product(
        (*NATIVE, "rle"),
        PALETTES,
        ((8, 2), (8, 5), (8, 8), (16, 8), (16, 10)),
        (1, 3),
    ):
        yield Case(
            number=0,
            photometric="PALETTE COLOR",
            syntax=syntax,
            allocated=allocated,
            stored=stored,
            high=stored - 1,
            palette=palette,
            frames=frames,
        )
    for syntax, (allocated, stored), is_signed, frames in product(
        ("jpeg-ls", "jpeg 2000"), bits, (False, True), (1, 2)
    ):
        if stored > (0 if allocated == 8 else 8):
            yield Case(
                number=0,
                photometric=GREY[stored % 2],
                syntax=syntax,
                allocated=allocated,
                stored=stored,
                high=stored - 1,
                is_signed=is_signed,
                frames=frames,
                rows=SMALLEST_ENCODED,
                columns=SMALLEST_ENCODED,
            )
    for kind, syntax, frames in product(
        ("MONOCHROME2", "RGB"), ("jpeg", "jpeg lossless"), range(1, 6)
    ):
        yield Case(
            number=0,
            photometric=kind,
            syntax=syntax,
            allocated=8,
            stored=8,
            high=7,
            frames=frames,
            rows=16,
            columns=16,
        )


def drawn(number: int) -> Case:
    """Return the case of that number: anything that may be."""
    chance = np.random.default_rng(number)

    def one(*of: Any) -> Any:
        return of[int(chance.integers(len(of)))]

    def chosen(share: float) -> bool:
        return bool(chance.random() < share)

    kind = "PALETTE COLOR" if chosen(0.1) else one(*GREY, *GREY, *GREY, *COLOURED)
    is_grey, is_palette = kind in GREY, kind == "PALETTE COLOR"
    syntax = one(*_SYNTAXES_OF.get(kind, (*NATIVE, *NATIVE, *COMPRESSED)))
    is_whole = syntax in {*NATIVE, "rle"}  # words come through with all their bits
    allocated = 8 if syntax == "jpeg" or kind == "YBR_FULL_422" else one(8, 16)
    stored = one(*_stored(kind, syntax, allocated))
    rows, columns = _size(kind, syntax, one(8, 9, 11, 16, 24), one(8, 9, 13, 16, 23))
    has_few = is_grey and is_whole and chosen(0.02)
    return Case(
        number=number,
        photometric=kind,
        syntax=syntax,
        allocated=allocated,
        stored=stored,
        high=one(*range(stored - 1, allocated)) if is_whole else stored - 1,
        is_signed=is_grey and syntax != "jpeg" and chosen(0.4),
        is_planar=kind in {"RGB", "YBR_FULL"} and is_whole and chosen(0.5),
        frames=1 if syntax == "jpeg 2000" else one(1, 1, 2, 3, 4, 5),
        rows=rows,
        columns=columns,
        content="few" if has_few else one(*_CONTENTS[: 3 if stored >= 8 else 1]),
        padding=one("none", "none", "value", "range") if is_grey else "none",
        has_overlays=is_whole and stored < allocated and chosen(0.3 * (not is_palette)),
        windows=one("none", "one", "several", "per frame") if is_grey else "none",
        rescale=one(None, (1.0, -1024.0), (2.5, 7.0), (-1.0, 100.0))
        if is_grey
        else None,
        palette=one(*PALETTES) if is_palette else "",
        has_extras=chosen(0.3),
        vr=one("OB", "OW") if allocated == 8 and syntax in NATIVE else "",
        is_logo=chosen(0.06),
        planes=one(1, 3),
    )


_SYNTAXES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "YBR_FULL": (*NATIVE, "rle"),
    "YBR_FULL_422": NATIVE,
    "PALETTE COLOR": (*NATIVE, *NATIVE, "rle"),
}
"""Of what is not to be had in all: the others are converted by their encoders."""

_CONTENTS: Final = ("full", "ends", "flat")


def _stored(kind: str, syntax: str, allocated: int) -> range:
    """Return the Bits Stored to choose from."""
    if kind == "PALETTE COLOR":
        return range(2, 9) if allocated == 8 else range(6, 11, 2)
    if syntax == "jpeg" or (kind not in GREY and allocated == 8):
        return range(8, 9)
    if allocated == 8:
        return range(5, 9)
    return range(9 if syntax in {"jpeg-ls", "jpeg 2000"} else 8, 17)


def _size(kind: str, syntax: str, rows: int, columns: int) -> tuple[int, int]:
    if syntax == "jpeg 2000":
        return SMALLEST_ENCODED + rows % 3, SMALLEST_ENCODED + columns % 3
    if syntax == "jpeg-ls":
        return 16 + rows, 16 + columns
    return rows, columns + columns % 2 if kind == "YBR_FULL_422" else columns


def encoded(case: Case) -> bytes:
    """Return the case as a DICOM file."""
    dataset = _described(case)
    values = values_of(case)
    if case.syntax == "jpeg":
        _put_jpeg(dataset, values)
        return _written(dataset, SYNTAXES["jpeg"])
    if case.syntax == "rle":
        words = _words(case, values)
        _put_frames(dataset, [_run_lengths(f, case.allocated // 8) for f in words])
        return _written(dataset, SYNTAXES["rle"])
    content = _native(case, _words(case, values))
    dataset.add(DataElement(0x7FE00010, _vr(case), content))
    if case.is_native:
        return _written(dataset, SYNTAXES[case.syntax])
    if case.syntax == "jpeg lossless":
        return _by_dcmtk(_written(dataset, SYNTAXES["explicit"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = SYNTAXES["explicit"]
        dataset.file_meta = meta
        dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
        dataset.compress(SYNTAXES[case.syntax], generate_instance_uid=False)
    return _written(dataset, SYNTAXES[case.syntax])


def data_set(file: bytes) -> bytes:
    """Return what follows the file meta information, inflated."""
    length = int.from_bytes(file[140:144], "little")
    rest = file[144 + length :]
    syntax = dcmread(io.BytesIO(file), specific_tags=[]).file_meta.TransferSyntaxUID
    if syntax == SYNTAXES["deflated"]:
        return zlib.decompress(rest, -zlib.MAX_WBITS)
    return rest


def values_of(case: Case) -> Values:
    """Return what is stored, ``(frames, rows, columns, samples)``."""
    chance = np.random.default_rng([case.number, 1])
    lower, upper = case.ends
    shape = (case.frames, case.rows, case.columns, case.samples)
    if case.content == "few":
        upper = lower + 9
    values = chance.integers(lower, upper + 1, shape)
    if case.content == "ends":
        at_ends = chance.random(shape)
        values[at_ends < 0.15] = lower
        values[at_ends > 0.85] = upper
    if case.content == "flat" and case.frames > 1:
        values[-1] = (lower + upper) // 2
    if case.padded is not None:
        values[:, :2] = chance.integers(
            case.padded[0], case.padded[1] + 1, values[:, :2].shape
        )
    if case.photometric == "YBR_FULL_422":  # two pixels share their chrominance
        values[:, :, 1::2, 1:] = values[:, :, ::2, 1:]
    return values


def in_pairs(pixels: Values) -> Values:
    """Return pixels as YBR_FULL_422 keeps them, two at a time: Y, Y, Cb, Cr."""
    frames, rows, columns, _ = pixels.shape
    pairs = pixels.reshape(frames, rows, columns // 2, 2, 3)
    return np.concatenate([pairs[..., 0], pairs[..., 0, 1:]], -1)


def beside(case: Case) -> Values:
    """Return the bits beside the stored values, as they were put in."""
    field = ((1 << case.stored) - 1) << case.shift
    words = _words(case, values_of(case)) & ~field
    return in_pairs(words) if case.photometric == "YBR_FULL_422" else words


class Read:
    """Pixel Data of an uncompressed data set, taken apart."""

    def __init__(self, dataset: Dataset) -> None:
        self.samples = int(dataset.SamplesPerPixel)
        self.stored, self.allocated = (
            int(dataset.BitsStored),
            int(dataset.BitsAllocated),
        )
        self.shift = int(dataset.HighBit) + 1 - self.stored
        is_big = dataset.file_meta.TransferSyntaxUID == SYNTAXES["big endian"]
        content = dataset.PixelData
        if self.allocated == 8 and is_big and dataset["PixelData"].VR == "OW":
            content = _swapped(content)
        frames = int(dataset.get("NumberOfFrames") or 1)
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        is_422 = dataset.PhotometricInterpretation == "YBR_FULL_422"
        order = ">" if is_big else "<"
        size = frames * rows * columns * (2 if is_422 else self.samples)
        kind = f"{order}u{self.allocated // 8}"
        words = np.frombuffer(content, kind, size).astype(np.int64)
        if is_422:
            self.words = words.reshape(frames, rows, columns // 2, 4)
        elif self.samples == 3 and dataset.PlanarConfiguration:
            planes = words.reshape(frames, 3, rows, columns)
            self.words = planes.transpose(0, 2, 3, 1)
        else:
            self.words = words.reshape(frames, rows, columns, self.samples)
        self.is_signed = bool(dataset.PixelRepresentation)

    @property
    def values(self) -> Values:
        """Stored values; of YBR_FULL_422 as they lie: Y, Y, Cb, Cr."""
        values = self.words >> self.shift & (1 << self.stored) - 1
        if self.is_signed:
            values -= (values >> (self.stored - 1)) << self.stored
        return values

    @property
    def others(self) -> Values:
        """The bits beside the stored values."""
        return self.words & ~(((1 << self.stored) - 1) << self.shift)

    @property
    def follows(self) -> bool:
        """Whether those are nothing but the sign, repeated upwards."""
        mask = (1 << self.allocated) - 1
        return bool((((self.values << self.shift) & mask) == self.words).all())


def _swapped(content: bytes) -> bytes:
    return np.frombuffer(content, ">u2").astype("<u2").tobytes()


def _vr(case: Case) -> str:
    return (
        "OW" if case.allocated == 16 or case.syntax == "implicit" else case.vr or "OB"
    )


def _words(case: Case, values: Values) -> Values:
    """Return the words that the values lie in, with what else is in them."""
    mask = (1 << case.allocated) - 1
    field = ((1 << case.stored) - 1) << case.shift
    words = (values << case.shift) & mask
    if case.has_overlays:
        chance = np.random.default_rng([case.number, 2])
        bits = chance.integers(0, mask + 1, words.shape)
        words = words & field | bits & ~field & mask
    return words


def _native(case: Case, words: Values) -> bytes:
    if case.photometric == "YBR_FULL_422":
        words = in_pairs(words)
    elif case.is_planar:
        words = words.transpose(0, 3, 1, 2)
    is_big = case.syntax == "big endian"
    kind = f"{'>' if is_big else '<'}u{case.allocated // 8}"
    content = np.ascontiguousarray(words).astype(kind).tobytes()
    content += b"\0" * (len(content) % 2)
    if is_big and case.allocated == 8 and _vr(case) == "OW":
        content = _swapped(content)
    return content


def _described(case: Case) -> Dataset:
    """Return everything but the pixels."""
    dataset = Dataset()
    dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.10.999.{case.number + 1}"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.10.999.0.1"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.10.999.0.2"
    dataset.Modality = "OT"
    dataset.PatientID = str(case.number)
    if case.has_extras:
        _put_extras(dataset, case)
    dataset.SamplesPerPixel = case.samples
    dataset.PhotometricInterpretation = case.photometric
    if case.samples > 1:
        dataset.PlanarConfiguration = int(case.is_planar)
    if case.frames > 1 or case.number % 7 == 0:
        dataset.NumberOfFrames = case.frames
    dataset.Rows, dataset.Columns = case.rows, case.columns
    dataset.BitsAllocated, dataset.BitsStored = case.allocated, case.stored
    dataset.HighBit, dataset.PixelRepresentation = case.high, int(case.is_signed)
    if case.padded is not None:
        dataset.PixelPaddingValue = case.padded[0]
        if case.padding == "range":
            dataset.PixelPaddingRangeLimit = case.padded[1]
    if case.rescale is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = case.rescale
    if case.palette:
        _put_palette(dataset, case)
    _put_windows(dataset, case)
    if case.has_overlays and case.photometric in GREY:
        dataset.add_new(0x60000010, "US", case.rows)
        dataset.add_new(0x60000011, "US", case.columns)
        dataset.add_new(0x60000040, "CS", "G")
        dataset.add_new(0x60000050, "SS", [1, 1])
        dataset.add_new(0x60000100, "US", case.allocated)
        position = 0 if case.shift else case.high + 1
        dataset.add_new(0x60000102, "US", position)
    return dataset


def _put_extras(dataset: Dataset, case: Case) -> None:
    dataset.SpecificCharacterSet = ("ISO_IR 192", "ISO_IR 100")[case.number % 2]
    dataset.PatientName = "Müller^Jürgen"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.LossyImageCompression = "00"
    icon = Dataset()
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
    icon.Rows = icon.Columns = 4
    icon.BitsAllocated = icon.BitsStored = 8
    icon.HighBit, icon.PixelRepresentation = 7, 0
    icon.add(DataElement(0x7FE00010, "OB", bytes(range(16))))
    dataset.IconImageSequence = [icon]
    block = dataset.private_block(0x0029, "A VENDOR", create=True)
    block.add_new(0x01, "OB", bytes([case.number % 256, 1, 2, 3]))
    block.add_new(0x02, "UN", b"what nobody knows ")
    nested, inner = Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = "T-1", "Größe"
    nested.ConceptNameCodeSequence = [inner]
    block.add_new(0x03, "SQ", [nested])
    dataset.DerivationCodeSequence = [inner]
    dataset["DerivationCodeSequence"].is_undefined_length = True
    dataset.add_new(0xFFFCFFFC, "OB", bytes(6))


def _put_windows(dataset: Dataset, case: Case) -> None:
    if case.windows == "none":
        return
    lower, upper = case.ends
    slope, intercept = case.rescale or (1.0, 0.0)
    center = round(slope * (lower + upper) / 2 + intercept, 1)
    width = round(abs(slope) * 0.8 * (upper - lower) + 1, 1)
    if case.windows == "one":
        dataset.WindowCenter, dataset.WindowWidth = center, width
    elif case.windows == "several":
        dataset.WindowCenter, dataset.WindowWidth = [center, 10], [width, 3]
    else:
        groups = []
        for number in range(case.frames):
            window, group = Dataset(), Dataset()
            window.WindowCenter = center
            window.WindowWidth = round(width * (1 + 0.1 * number), 1)
            group.FrameVOILUTSequence = [window]
            groups.append(group)
        dataset.PerFrameFunctionalGroupsSequence = groups


def _put_palette(dataset: Dataset, case: Case) -> None:
    """A table for every index, with colours that are there twice."""
    chance = np.random.default_rng([case.number, 3])
    count = 1 << case.stored
    first = count // 4 if case.palette == "offset" else 0
    entries = count - first
    is_bytes = case.palette == "8 bits"
    for turn, name in enumerate(("Red", "Green", "Blue")):
        table = chance.integers(0, 256, entries)
        table[entries // 2 :: 2] = table[0]  # the same in all three: one colour
        depth = 8 if is_bytes else 16
        wide = table if case.palette == "bytes in words" else table * 257
        setattr(
            dataset,
            f"{name}PaletteColorLookupTableDescriptor",
            [entries % 65536, first, depth],
        )
        order = ">" if case.syntax == "big endian" else "<"
        if case.palette == "segmented":
            half = entries // 2
            words = [0, half, *wide[:half]]  # discrete
            if entries > half:
                words += [1, entries - half, int(wide[turn])]  # a ramp
            data = np.array(words).astype(f"{order}u2").tobytes()
            dataset.add_new(
                {"Red": 0x00281221, "Green": 0x00281222, "Blue": 0x00281223}[name],
                "OW",
                data,
            )
            continue
        if is_bytes:
            data = table.astype("u1").tobytes()
            data += b"\0" * (len(data) % 2)
            if order == ">":
                data = _swapped(data)
        else:
            data = wide.astype(f"{order}u2").tobytes()
        setattr(dataset, f"{name}PaletteColorLookupTableData", data)


def _put_jpeg(dataset: Dataset, values: Values) -> None:
    is_grey = values.shape[-1] == 1
    frames = []
    for frame in values.astype(np.uint8):
        stream = io.BytesIO()
        picture = Image.fromarray(frame[..., 0] if is_grey else frame)
        picture.save(stream, "JPEG", quality=90, subsampling="4:2:2")
        frames.append(stream.getvalue())
    if not is_grey:
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        dataset.PlanarConfiguration = 0
    dataset.LossyImageCompression = "01"
    _put_frames(dataset, frames)


def _put_frames(dataset: Dataset, frames: list[bytes]) -> None:
    element = DataElement(0x7FE00010, "OB", encapsulate(frames))
    element.is_undefined_length = True
    dataset.add(element)


def _run_lengths(words: Values, size: int) -> bytes:
    """Return one frame in RLE (PS3.5 G): a segment for each byte of each sample."""
    segments = []
    for sample in np.moveaxis(words, -1, 0):
        for byte in range(size - 1, -1, -1):
            plane = (sample >> 8 * byte & 0xFF).astype("u1").tobytes()
            segment = b"".join(_packed(plane))
            segments.append(segment + b"\0" * (len(segment) % 2))
    starts = np.cumsum([64, *(len(s) for s in segments[:-1])])
    head = np.zeros(16, "<u4")
    head[0], head[1 : 1 + len(segments)] = len(segments), starts
    return head.tobytes() + b"".join(segments)


def _packed(plane: bytes) -> Iterator[bytes]:
    """Yield runs where three are alike, else what is there (PS3.5 G.3.1)."""
    at = 0
    while at < len(plane):
        end = at + 1
        while end < len(plane) and end - at < 128 and plane[end] == plane[at]:
            end += 1
        if end - at > 2:
            yield bytes([257 - (end - at), plane[at]])
        else:
            end = min(at + 17, len(plane))
            yield bytes([end - at - 1]) + plane[at:end]
        at = end


def _by_dcmtk(file: bytes) -> bytes:
    with TemporaryDirectory() as folder:
        paths = Path(folder, "a"), Path(folder, "b")
        paths[0].write_bytes(file)
        subprocess.run(
            ["dcmcjpeg", "--encode-lossless-sv1", *map(str, paths)], check=True
        )
        return paths[1].read_bytes()


def _written(dataset: Dataset, syntax: uid.UID) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
