"""What is made again whenever it is needed is in memory, as far as there is room."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicom_node import spool as spool_module
from dicom_node.keys.keyring import Keyring
from dicom_node.mapped import read
from dicom_node.memory_file import MemoryFile
from dicom_node.sealed_file import SealedFile
from dicom_node.spool import Spool
from tests.conftest import NOW


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    """One that has room for a hundred bytes in memory."""
    monkeypatch.setattr(spool_module, "_IN_MEMORY", 100)
    keyring = Keyring.make(tmp_path / "keys", NOW)
    return Spool(tmp_path / "spool", keys=keyring.spool)


def on_disk(spool: Spool) -> list[Path]:
    folder = spool.incoming.parent
    return [one for one in folder.rglob("*") if one.is_file()]


def test_what_is_made_again_lies_on_no_disk(spool: Spool) -> None:
    name = spool.write([b"an ", b"original"], lasts=False)
    assert on_disk(spool) == []
    assert read(spool.file(name)) == b"an original"
    assert spool.holds(name)


def test_what_lasts_lies_there(spool: Spool) -> None:
    name = spool.write([b"marked"])
    assert [one.name for one in on_disk(spool)] == [name]
    assert isinstance(spool.file(name), SealedFile)


@pytest.mark.parametrize(
    "parts", [[bytes(60), bytes(41)], [bytes(60)] * 3, [bytes(61)]]
)
def test_what_memory_has_no_room_for_is_sealed(
    spool: Spool, parts: list[bytes]
) -> None:
    first = spool.write([bytes(40)], lasts=False)
    name = spool.write(parts, lasts=False)
    assert isinstance(spool.file(first), MemoryFile)
    assert isinstance(spool.file(name), SealedFile)
    assert [one.name for one in on_disk(spool)] == [name]
    assert read(spool.file(name)) == b"".join(parts)


def test_what_is_deleted_makes_room(spool: Spool) -> None:
    first = spool.write([bytes(100)], lasts=False)
    spool.delete([first])
    assert not spool.holds(first)
    assert isinstance(spool.file(spool.write([bytes(100)], lasts=False)), MemoryFile)


def test_what_nobody_needs_any_more_is_swept_once_it_is_old(spool: Spool) -> None:
    needed, left = (spool.write([b"x"], lasts=False) for _ in range(2))
    spool.sweep_left(lambda: {needed}, time.time() - 60, alone=False)
    assert spool.holds(left)  # it may be about to be owed
    spool.sweep_left(lambda: {needed}, time.time() + 60, alone=False)
    assert not spool.holds(left)
    assert spool.holds(needed)


@pytest.fixture
def _hasty() -> Iterator[None]:
    """Have threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty")
def test_lines_write_and_delete_side_by_side(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "_IN_MEMORY", 1 << 20)
    held = [spool.write([b"x"], lasts=False) for _ in range(500)]

    def line(_: int) -> None:
        for _ in range(300):
            spool.delete([spool.write([b"y"], lasts=False)])

    with ThreadPoolExecutor(4) as lines:
        assert list(lines.map(line, range(4))) == [None] * 4
    assert set(spool._in_memory) == {*held}
    assert on_disk(spool) == []


@pytest.mark.parametrize(("held", "most"), [(0, 24), (15, 8)])
def test_an_original_is_gathered_once_and_only_where_there_is_room(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, held: int, most: int
) -> None:
    mib = 1 << 20
    monkeypatch.setattr(spool_module, "_IN_MEMORY", 16 * mib)
    spool.write([bytes(held * mib)], lasts=False)
    tracemalloc.start()
    name = spool.write((bytes(mib) for _ in range(16)), lasts=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < most * mib
    assert isinstance(spool.file(name), SealedFile if held else MemoryFile)
    assert read(spool.file(name)) == bytes(16 * mib)
