"""One round trip: a generated picture is marked, looked at, stripped, and compared.

Everything that is compared comes from pydicom and :mod:`tests.pictures`.
"""

from __future__ import annotations

import gc
import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from dicom_node.elements import Limits
from dicom_node.errors import UnmarkablePixelsError
from dicom_node.filters.mark import mark
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from miadmark_core.search.finder import FoundMark, Wanted
from tests.conftest import NOW, a_site
from tests.pictures import (
    GREY,
    Case,
    Read,
    Values,
    beside,
    data_set,
    encoded,
    in_pairs,
    values_of,
)

FEWEST_BITS: Final[Mapping[str, int]] = {
    "MONOCHROME1": 5,
    "MONOCHROME2": 5,
    "RGB": 6,
    "YBR_FULL": 6,
    "YBR_FULL_422": 6,
    "PALETTE COLOR": 1,
}
"""Bits Stored of what can carry a mark; with fewer an object is refused by that name."""

COMPRESSED_ONLY: Final = {0x7FE00001, 0x7FE00002, 0x7FE00010, 0x00280004}
"""What is another once an object is decompressed."""


COUNT: Final = 10_500
"""Of which some hundred are refused by name."""


def is_refused(case: Case) -> bool:
    return case.content == "few" or case.stored < FEWEST_BITS[case.photometric]


def go(case: Case, keys: Sealer) -> str:
    """Take a case there and back, and return how it ended; raises if not as it must."""
    file = encoded(case)
    original = OpenInstance.of(file, Limits())
    chance = np.random.default_rng([case.number, 9])

    def find(wanted: Sequence[Wanted]) -> list[FoundMark]:
        is_coarse = any(w.is_coarse for w in wanted)  # grids are of one size
        return [by_hand(w, case, chance, is_coarse=is_coarse) for w in wanted]

    (outcome,) = mark([original], find=find, keys=keys, now=NOW, holds_weak=False)
    if is_refused(case):
        assert type(outcome) is UnmarkablePixelsError, repr(outcome)
        return "refused"
    if isinstance(outcome, Exception):
        raise outcome
    sent = outcome.file.to_bytes()
    marked = dcmread(io.BytesIO(sent))
    restored = strip(OpenInstance.of(sent, Limits()), keys.opening())
    values = values_of(case)
    if case.is_native:
        assert bytes(restored.file.dataset) == data_set(file), "not the same bytes"
    else:
        values = decoded(dcmread(io.BytesIO(file)), case)
        if case.syntax != "jpeg":  # and it is what was put in
            np.testing.assert_array_equal(values, values_of(case))
        after = dcmread(io.BytesIO(restored.file.to_bytes()))
        np.testing.assert_array_equal(Read(after).values, values)
        others_are_equal(original, OpenInstance.of(restored.file.to_bytes(), Limits()))
    if case.photometric == "PALETTE COLOR":
        palette = dcmread(io.BytesIO(file))
        values = np.asarray(apply_color_lut(values[..., 0], palette), np.int64)
        values = values >> 8 if values.max() > 255 else values
    is_marked(case, values, Read(marked))
    return "restored"


def by_hand(
    wanted: Wanted, case: Case, chance: np.random.Generator, *, is_coarse: bool
) -> FoundMark:
    """Return a mark that nobody looked for: noise, or two blocks."""
    planes = min(wanted.planes, case.planes)
    if case.is_logo:
        steps = np.zeros((16, 16, 1), np.int8)
        steps[8:14, 2:8], steps[10:16, 9:15] = 100, -90
        return FoundMark(steps, {}, is_logo=True)
    if not is_coarse:
        noise = chance.integers(-60, 61, (12, 12, planes))
        return FoundMark(noise.astype(np.int8), {})
    # Whole steps are seen at once, so there are few of them, each on one pixel.
    rows, columns = wanted.shown.shape[:2]
    free = np.ones((rows, columns), bool) if wanted.padding is None else ~wanted.padding
    steps = np.zeros((rows, columns, planes), np.int8)
    places = chance.permutation(np.flatnonzero(free))[: max(4, rows * columns // 16)]
    steps.reshape(-1, planes)[places] = chance.choice(
        [-127, 127], (len(places), planes)
    )
    return FoundMark(steps, {})


def decoded(dataset: Dataset, case: Case) -> Values:
    """Return what pydicom decodes, ``(frames, rows, columns, samples)``."""
    if case.syntax == "rle" and case.shift:  # pydicom takes no notice of High Bit
        return values_of(case)
    # What RLE holds are stored values as they are.
    pixels: NDArray[np.generic] = pixel_array(dataset, raw=case.syntax == "rle")
    shape = (case.frames, case.rows, case.columns, case.samples)
    return pixels.astype(np.int64).reshape(shape)


def others_are_equal(original: OpenInstance, restored: OpenInstance) -> None:
    tags = [tag for tag in original.elements.tags() if tag not in COMPRESSED_ONLY]
    assert tags == [t for t in restored.elements.tags() if t not in COMPRESSED_ONLY]
    for tag in tags:
        same = original.elements.bytes_of(tag) == restored.elements.bytes_of(tag)
        assert same, hex(tag)


def is_marked(case: Case, values: Values, marked: Read) -> None:
    """Every frame is another, and nothing in it is that must not be."""
    sent = marked.values
    if case.photometric == "YBR_FULL_422":
        values = in_pairs(values)
    assert sent.shape == values.shape
    for number, (old, new) in enumerate(zip(values, sent, strict=True)):
        if old.min() != old.max():
            assert (old != new).any(), f"frame {number + 1} is as it was"
    if case.photometric == "PALETTE COLOR":
        return
    if case.photometric == "YBR_FULL":
        np.testing.assert_array_equal(sent[..., 1:], values[..., 1:])
    if case.photometric == "YBR_FULL_422":
        np.testing.assert_array_equal(sent[..., 2:], values[..., 2:])
    if case.has_overlays:
        np.testing.assert_array_equal(marked.others, beside(case))
    else:
        assert marked.follows, "bits beside the stored values"
    if case.padded is not None:
        lower, upper = case.padded
        was, now = (((v >= lower) & (v <= upper)) for v in (values, sent))
        np.testing.assert_array_equal(was, now)
        np.testing.assert_array_equal(values[was], sent[was])


def kinds(case: Case) -> list[str]:
    """Return what a case is counted under."""
    kind = "grey" if case.photometric in GREY else case.photometric
    told = [case.photometric, case.syntax, f"{kind} {case.syntax}"]
    told += [f"{case.allocated} allocated", f"{case.stored} stored"]
    told += [f"{case.frames} frames", f"windows {case.windows}"]
    told += [f"padding {case.padding}", f"content {case.content}"]
    facts = {
        "signed": case.is_signed,
        "planar": case.is_planar,
        "overlays": case.has_overlays,
        "extras": case.has_extras,
        "logo": case.is_logo,
        "shifted": case.shift > 0,
        "rescaled": case.rescale is not None,
        f"palette {case.palette}": bool(case.palette),
    }
    return told + [name for name, holds in facts.items() if holds]


def go_all(wanted: Sequence[Case], folder: Path) -> tuple[Counter[str], list[str]]:
    """Return how often each kind came back, and what failed, to be repeated alone.

    Args:
        wanted: What to take there and back.
        folder: For the keys of two sites: one of each suite.
    """
    hybrid, classical = a_site(folder / "2"), a_site(folder / "1")
    classical.keyring.set_rules(suite=1)
    counted: Counter[str] = Counter()
    failed = []
    warnings.simplefilter("ignore")  # pydicom says so of what is odd on purpose
    gc.freeze()  # the libraries are many objects, and not to be gone through each time
    for case in wanted:
        try:
            ended = go(case, classical if case.number % 8 else hybrid)
        except Exception as error:  # noqa: BLE001 every failure is to be named
            failed.append(f"{case}\n    {type(error).__name__}: {error}")
            continue
        counted[ended] += 1
        if ended == "restored":
            counted.update(kinds(case))
    gc.unfreeze()
    return counted, failed
