"""Compressed originals kept sealed: they come back as they were, or without the copy."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid

from dicom_node import codestreams
from dicom_node.codestreams import Codestreams, Copy
from dicom_node.compression import compressed, put_into
from dicom_node.elements import PIXEL_DATA, Limits
from dicom_node.errors import SpoolError
from dicom_node.filters.mark import MarkedInstance
from dicom_node.filters.strip import Restored, strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from miadmark_core.errors import DamagedSealError, NoStanzaError
from tests.conftest import a_site, opened

MarkOne = Callable[[OpenInstance], MarkedInstance]

J2K = uid.JPEG2000Lossless


@pytest.fixture(scope="module")
def original(images: Path) -> OpenInstance:
    return compressed(opened(images / "ct.dcm"), J2K)


@pytest.fixture(scope="module")
def marked(original: OpenInstance, mark_one: MarkOne) -> MarkedInstance:
    return mark_one(original)


@pytest.fixture
def kept(
    tmp_path: Path, original: OpenInstance, marked: MarkedInstance, keys: Sealer
) -> Codestreams:
    folder = Codestreams(tmp_path / "codestreams")
    assert folder.keep(original, marked.record, keys.opening().openers)
    return folder


def stripped(marked: MarkedInstance, keys: Sealer) -> Restored:
    sent = OpenInstance.of(marked.file.to_bytes(), Limits())
    return strip(sent, keys.opening())


def test_what_was_kept_comes_back_byte_for_byte(
    kept: Codestreams, original: OpenInstance, marked: MarkedInstance, keys: Sealer
) -> None:
    restored = stripped(marked, keys)
    given = kept.as_it_came(restored.file, marked.record.header, keys.opening().openers)
    assert given.copy is Copy.EXACT
    assert given.file.transfer_syntax == J2K
    assert given.file.dataset == original.file.dataset
    came, plain = (
        dcmread(BytesIO(file.to_bytes())) for file in (given.file, restored.file)
    )
    np.testing.assert_array_equal(came.pixel_array, plain.pixel_array)


def test_an_implicit_hop_leaves_pixel_data_as_it_came(
    kept: Codestreams, original: OpenInstance, marked: MarkedInstance, keys: Sealer
) -> None:
    sent = OpenInstance.of(marked.file.to_bytes(), Limits())
    hop = put_into(sent, uid.ImplicitVRLittleEndian)
    restored = strip(hop, keys.opening())
    given = kept.as_it_came(restored.file, marked.record.header, keys.opening().openers)
    assert given.copy in {Copy.EXACT, Copy.REENCODED}
    came = OpenInstance.of(given.file.to_bytes(), Limits())
    assert came.elements.bytes_of(PIXEL_DATA) == original.elements.bytes_of(PIXEL_DATA)


def test_nothing_of_the_original_lies_open_in_the_folder(
    kept: Codestreams, original: OpenInstance, marked: MarkedInstance
) -> None:
    (file,) = kept.folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert marked.record.header  # the name is its record's id and says no more
    sealed, clear = file.read_bytes(), original.file.dataset
    middle = len(clear) // 2
    assert clear[middle : middle + 16] not in sealed
    assert str(J2K).encode() not in sealed


def a_flipped_byte(sealed: bytes) -> bytes:
    return sealed[:-100] + bytes([sealed[-100] ^ 1]) + sealed[-99:]


@pytest.mark.parametrize(
    "damage",
    [
        a_flipped_byte,
        lambda sealed: sealed[:-1],
        lambda _: b"",
        lambda sealed: b"\x02" + sealed[1:],
        lambda sealed: sealed + bytes(70_000),
        lambda sealed: sealed[:17],
    ],
    ids=["flipped", "cut", "empty", "version", "longer", "a tag"],
)
def test_a_damaged_copy_costs_nobody_the_original(
    damage: Callable[[bytes], bytes],
    kept: Codestreams,
    marked: MarkedInstance,
    keys: Sealer,
) -> None:
    (file,) = kept.folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    restored = stripped(marked, keys)
    given = kept.as_it_came(restored.file, marked.record.header, keys.opening().openers)
    assert given == (restored.file, Copy.DAMAGED)


def test_the_copy_of_another_record_does_not_open(
    kept: Codestreams, original: OpenInstance, mark_one: MarkOne, keys: Sealer
) -> None:
    (file,) = kept.folder.iterdir()
    other = mark_one(original)
    assert kept.keep(original, other.record, keys.opening().openers)
    (second,) = {*kept.folder.iterdir()} - {file}
    second.write_bytes(file.read_bytes())
    restored = stripped(other, keys)
    given = kept.as_it_came(restored.file, other.record.header, keys.opening().openers)
    assert given.copy is Copy.DAMAGED


def test_whoever_cannot_open_the_record_cannot_keep_or_open_its_copy(
    kept: Codestreams,
    original: OpenInstance,
    marked: MarkedInstance,
    keys: Sealer,
    tmp_path: Path,
) -> None:
    foreign = a_site(tmp_path).opening().openers
    with pytest.raises(NoStanzaError):
        kept.as_it_came(stripped(marked, keys).file, marked.record.header, foreign)
    with pytest.raises(NoStanzaError):
        Codestreams(tmp_path / "other").keep(original, marked.record, foreign)


def test_without_a_copy_or_a_record_it_stays_as_it_is(
    kept: Codestreams, marked: MarkedInstance, keys: Sealer
) -> None:
    restored, openers = stripped(marked, keys), keys.opening().openers
    (file,) = kept.folder.iterdir()
    record_id = bytes.fromhex(file.stem)
    assert kept.as_it_came(restored.file, None, openers).copy is Copy.NONE
    assert kept.delete(record_id)
    assert not kept.delete(record_id)
    given = kept.as_it_came(restored.file, marked.record.header, openers)
    assert given == (restored.file, Copy.NONE)


def test_an_uncompressed_original_is_not_kept(
    images: Path, marked: MarkedInstance, keys: Sealer, tmp_path: Path
) -> None:
    folder = Codestreams(tmp_path / "codestreams")
    native = opened(images / "ct.dcm")
    assert not folder.keep(native, marked.record, keys.opening().openers)
    assert not folder.folder.exists()


def test_a_folder_that_cannot_be_written_is_trouble_that_may_pass(
    original: OpenInstance, marked: MarkedInstance, keys: Sealer, tmp_path: Path
) -> None:
    (tmp_path / "codestreams").write_bytes(b"in the way")
    with pytest.raises(SpoolError):
        Codestreams(tmp_path / "codestreams").keep(
            original, marked.record, keys.opening().openers
        )


def test_several_chunks_open_in_their_order_only() -> None:
    plain = bytes(range(256)) * 1024  # four chunks, the last of them whole
    key, record_id = bytes(32), bytes(16)
    sealed = b"".join(codestreams._sealed(plain, key, record_id))
    assert b"".join(codestreams._opened(sealed, key, record_id)) == plain
    size = 65536 + 16
    swapped = sealed[:1] + sealed[1 + size : 1 + 2 * size] + sealed[1 : 1 + size]
    for changed in (swapped + sealed[1 + 2 * size :], sealed[: 1 + 3 * size]):
        with pytest.raises(DamagedSealError):
            b"".join(codestreams._opened(changed, key, record_id))
