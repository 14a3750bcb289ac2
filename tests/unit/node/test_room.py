"""When a node stops taking in, and what it gives up to go on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicom_node.errors import ConfigError, SpoolError
from dicom_node.room import GIVE_BELOW, LOOK_AGAIN_S, Room
from dicom_node.storage import OtherBytes, Storage

MB = 1 << 20


class Disk:
    """What is free, and what time it is."""

    def __init__(self, folder: Path) -> None:
        self.free, self.inodes, self.all_inodes, self.time = 1 << 30, 1000, 2000, 0.0
        storage = Storage(least_free_mb=100, least_free_inodes=10, reserve_mb=1)
        self.room = Room(folder, storage, look=self.look, monotonic=lambda: self.time)

    def look(self, _: Path) -> os.statvfs_result:
        self.time += LOOK_AGAIN_S
        return os.statvfs_result(
            (512, 1, 0, 0, self.free, self.all_inodes, 0, self.inodes, 0, 255)
        )


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_bytes_and_inodes_are_both_needed(disk: Disk) -> None:
    disk.room.require()
    disk.free = 100 * MB - 1
    with pytest.raises(SpoolError, match="99 MB are free, 100 are wanted"):
        disk.room.require()
    disk.free, disk.inodes = 100 * MB, 9
    with pytest.raises(SpoolError, match="9 inodes are free, 10 are wanted"):
        disk.room.require()
    disk.all_inodes = disk.inodes = 0  # a file system that counts none
    disk.room.require()


def test_the_reserve_is_real_and_goes_when_the_disk_is_full(
    disk: Disk, tmp_path: Path
) -> None:
    reserve = tmp_path / "reserve"
    disk.room.tend()
    assert reserve.stat().st_blocks * 512 >= MB
    disk.free = GIVE_BELOW
    disk.room.tend()
    assert reserve.exists()
    disk.free -= 1
    disk.room.tend()
    assert not reserve.exists()
    disk.free = 101 * MB  # not before it leaves what is to be left free
    disk.room.tend()
    assert not reserve.exists()
    disk.free += 1
    disk.room.tend()
    assert reserve.exists()


def test_no_reserve_is_made_where_none_is_wanted(tmp_path: Path) -> None:
    room = Room(tmp_path, Storage(reserve_mb=0, least_free_mb=0))
    room.tend()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [{"least_free_mb": -1}, {"reserve_mb": -1}, {"remember_sent_h": -1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_storage_refuses_what_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Storage(**wrong)  # type: ignore[arg-type]


def test_other_bytes_are_answered_as_the_site_says() -> None:
    assert [each.status for each in OtherBytes] == [0x0111, 0xA900]


def test_both_disks_need_room_where_the_spool_is_on_another(tmp_path: Path) -> None:
    state, spool = tmp_path / "state", tmp_path / "spool"
    free = {state: 1 << 30, spool: 1 << 30}

    def look(folder: Path) -> os.statvfs_result:
        return os.statvfs_result((512, 1, 0, 0, free[folder], 0, 0, 0, 0, 255))

    def lack() -> str:
        wanted = Storage(least_free_mb=100)
        return Room(state, wanted, spooling=spool, look=look).lack()

    assert not lack()
    for full in free:
        free[full] = MB
        assert lack().startswith("1 MB are free")
        free[full] = 1 << 30
