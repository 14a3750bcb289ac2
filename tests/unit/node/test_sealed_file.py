"""What is sealed comes back as it was, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node import sealed_stream
from dicom_node.errors import KeyFolderError, SpoiledFileError
from dicom_node.sealed_file import SealedFile
from dicom_node.sealed_stream import CHUNK, Sealing
from dicom_node.spool_keys import HandedKeys, SpoolKey

KEY = SpoolKey(1, bytes(range(32)))
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7]


@pytest.fixture
def keys() -> HandedKeys:
    return HandedKeys.made([KEY])


def sealed(folder: Path, name: str, content: bytes, piece: int = 1 << 20) -> Path:
    path = folder / f"{name}.sealed"
    with path.open("wb") as stream:
        sealing = Sealing(path.name, KEY, stream.write)
        for start in range(0, len(content), piece):
            sealing.write(content[start : start + piece])
        sealing.finish()
    return path


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [1 << 20, CHUNK, 100_003])
def test_reading_undoes_writing(
    tmp_path: Path, keys: HandedKeys, size: int, piece: int
) -> None:
    content = os.urandom(size)
    path = sealed(tmp_path, "a", content, piece)
    file = SealedFile(path, keys)
    assert file.size == size
    with file.open() as stream:
        stream.require_whole()
        assert stream.read() == content
    assert b"".join(map(bytes, file.pieces(size // 3))) == content[size // 3 :]
    if size > 32:
        assert content[:32] not in path.read_bytes()


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    size=st.integers(0, 1000),
    reads=st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 500)), max_size=8),
)
def test_any_part_can_be_read(
    tmp_path: Path,
    keys: HandedKeys,
    size: int,
    reads: list[tuple[int, int]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed_stream, "CHUNK", 64)
        content = os.urandom(size)
        path = sealed(tmp_path, os.urandom(16).hex(), content)
        with SealedFile(path, keys).open() as stream:
            for at, count in reads:
                stream.seek(at)
                assert stream.read(count) == content[at : at + count]
                assert stream.tell() == max(at, min(at + count, max(size, at)))


def test_nothing_of_it_may_change(tmp_path: Path, keys: HandedKeys) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed_stream, "CHUNK", 16)
        path = sealed(tmp_path, "a", os.urandom(40))
        whole = path.read_bytes()
        assert len(whole) == 20 + 40 + 3 * 16
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with (
                pytest.raises((SpoiledFileError, KeyFolderError)),
                SealedFile(path, keys).open() as stream,
            ):
                stream.require_whole()


def test_a_file_that_is_cut_joined_or_reordered_does_not_open(
    tmp_path: Path, keys: HandedKeys
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed_stream, "CHUNK", 16)
        path = sealed(tmp_path, "a", os.urandom(48))
        whole = path.read_bytes()
        head, first, second, third = (
            whole[:20],
            *(whole[20 + 32 * n : 52 + 32 * n] for n in range(3)),
        )
        cut = [whole[:size] for size in range(len(whole))]
        for other in (
            *cut,
            whole + b"\0",
            whole + third,
            head + second + first + third,
            head + first + third,
            head + first + third + second,
            head + first + first + third,
        ):
            path.write_bytes(other)
            with (
                pytest.raises(SpoiledFileError),
                SealedFile(path, keys).open() as stream,
            ):
                stream.require_whole()


def test_a_file_does_not_open_under_the_name_of_another(
    tmp_path: Path, keys: HandedKeys
) -> None:
    path = sealed(tmp_path, "a", b"content")
    moved = path.rename(tmp_path / "b.sealed")
    with (
        pytest.raises(SpoiledFileError, match=r"b\.sealed in the spool is not as"),
        SealedFile(moved, keys).open() as stream,
    ):
        stream.read()
    # What comes after the first dot is no part of the name.
    again = moved.rename(tmp_path / "a.out.sealed")
    with SealedFile(again, keys).open() as stream:
        assert stream.read() == b"content"


def test_another_key_is_no_change_of_the_file(tmp_path: Path) -> None:
    path = sealed(tmp_path, "a", b"content")
    for other in (SpoolKey(1, bytes(32)), SpoolKey(2, KEY.secret)):
        with pytest.raises(KeyFolderError, match="spool key 1"):
            SealedFile(path, HandedKeys.made([other])).open()


def test_keys_that_are_added_are_seen_by_whoever_inherited_them() -> None:
    keys = HandedKeys.made([KEY])
    heir, second = HandedKeys(keys.descriptor), SpoolKey(2, bytes(32))
    assert heir.newest() == KEY
    keys.add(second)
    assert heir.newest() == second
    assert heir.of(1, KEY.id) == KEY
    assert heir.of(2, second.id) == second


def test_a_copy_beside_it_opens_with_the_same_keys(
    tmp_path: Path, keys: HandedKeys
) -> None:
    file = SealedFile(sealed(tmp_path, "a", b"content"), keys)
    copy = file.beside([b"con", b"verted"])
    with copy.open() as stream:
        assert stream.read() == b"converted"
    copy.unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["a.sealed"]


def test_half_a_copy_is_not_left_behind(tmp_path: Path, keys: HandedKeys) -> None:
    def content() -> list[bytes]:
        raise OSError("no space")

    file = SealedFile(sealed(tmp_path, "a", b"content"), keys)
    with pytest.raises(OSError, match="no space"):
        file.beside(piece for piece in content())
    assert [path.name for path in tmp_path.iterdir()] == ["a.sealed"]
