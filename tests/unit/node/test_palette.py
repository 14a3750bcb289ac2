"""A palette picture in colours becomes the very indices again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from dicom_node.palette import coloured, indexed
from dicom_node.pixel_data import Decoded
from dicom_node.pixel_layout import PixelLayout
from miadmark_core.errors import AlteredImageError, DamagedSealError
from miadmark_core.image import HostImage


def layout_of(bits: int, *, signed: bool = False) -> PixelLayout:
    return PixelLayout(
        frames=2,
        rows=5,
        columns=7,
        samples=1,
        photometric_interpretation="PALETTE COLOR",
        bits_allocated=8 if bits <= 8 else 16,
        bits_stored=bits,
        high_bit=bits - 1,
        is_signed=signed,
        is_planar=False,
        padding=None,
    )


def palette(
    chance: np.random.Generator, entries: int, first: int, bits: int
) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for name in ("Red", "Green", "Blue"):
        # Few different values, so that several indices have one colour.
        shades = chance.integers(0, 3, entries) * (100 if bits == 8 else 25_000)
        data = shades.astype("<u1" if bits == 8 else "<u2").tobytes()
        descriptor = [entries % 65536, first, bits]
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", descriptor)
        setattr(
            dataset,
            f"{name}PaletteColorLookupTableData",
            data + b"\0" * (len(data) % 2),
        )
    return dataset


def picture(chance: np.random.Generator, layout: PixelLayout) -> Decoded:
    values = layout.values
    pixels = chance.integers(values.lower, values.upper + 1, layout.shape)
    image = HostImage(pixels=pixels.astype(values.dtype), values=values)
    return Decoded(image, has_foreign_bits=False)


@given(
    seed=st.integers(0, 2**32),
    bits=st.sampled_from([4, 8, 9, 16]),
    entries=st.integers(1, 300),
    first=st.integers(0, 40),
    depth=st.sampled_from([8, 16]),
    tail=st.sampled_from([b"", b"\0", b"\7"]),
)
def test_indexed_undoes_coloured(
    seed: int, bits: int, entries: int, first: int, depth: int, tail: bytes
) -> None:
    chance = np.random.default_rng(seed)
    layout = layout_of(bits)
    decoded = picture(chance, layout)
    table = palette(chance, entries, first, depth)
    image, kept = coloured(decoded, table, tail=tail, vr="OW")
    back = indexed(image, kept, layout)
    np.testing.assert_array_equal(back.image.whole(), decoded.image.whole())
    assert (back.tail, back.vr) == (tail, "OW")


def test_the_colours_are_those_of_another_reader() -> None:
    chance = np.random.default_rng(1)
    decoded = picture(chance, layout_of(8))
    table = palette(chance, 200, 20, 16)
    image, _ = coloured(decoded, table, tail=b"", vr="")
    theirs = apply_color_lut(decoded.image.whole()[..., 0], table)
    np.testing.assert_array_equal(image.whole(), theirs >> 8)


def test_a_changed_colour_is_refused() -> None:
    chance = np.random.default_rng(2)
    layout = layout_of(8)
    image, kept = coloured(
        picture(chance, layout), palette(chance, 256, 0, 8), tail=b"", vr=""
    )
    for step in (1, 100):  # a colour that is in no table; one that may be
        pixels = image.whole()
        pixels[1, 2, 3, 0] = (int(pixels[1, 2, 3, 0]) + step) % 201
        with pytest.raises(AlteredImageError):
            indexed(replace(image, pixels=pixels), kept, layout)


def test_what_is_no_table_is_refused() -> None:
    chance = np.random.default_rng(3)
    layout = layout_of(8)
    image, kept = coloured(
        picture(chance, layout), palette(chance, 256, 0, 8), tail=b"", vr=""
    )
    for damaged in (b"", kept[:-5], b"y" + kept[1:], kept[: len(kept) // 2]):
        with pytest.raises(DamagedSealError):
            indexed(image, damaged, layout)
