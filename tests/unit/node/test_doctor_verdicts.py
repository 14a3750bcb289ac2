"""What is judged without a machine to judge: versions, limits, clocks, places."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

from dicom_node.charter_source import Known
from dicom_node.chartered import Following
from dicom_node.decoding import DecodedFrames, decode_frames
from dicom_node.destination import Destination
from dicom_node.doctor import (
    clock,
    codecs,
    fellows,
    folder,
    installation,
    keys,
    machine,
    network,
    owing,
    searching,
)
from dicom_node.doctor.case import Case
from dicom_node.doctor.examination import CHECKS, examined
from dicom_node.doctor.finding import Finding, Level, note, ok, wrong
from dicom_node.errors import CodecProcessError
from dicom_node.keys.keyring import Keyring
from dicom_node.queue.job import JobState
from dicom_node.storage import Storage
from tests.conftest import NOW

REQUIRED = [
    "numpy>=2,<3",
    "rich>=14",
    'torch>=2.13; extra == "mark"',
    'safetensors; extra == "mark"',
    'aiohttp>=3.14; extra == "desk"',
    'pytest; extra == "dev"',
]
THERE = {"numpy": "2.2.0", "rich": "14.1", "torch": "2.13.0", "safetensors": "0.6"}


def of(level: Level, found: Iterable[Finding]) -> list[str]:
    return [one.says for one in found if one.level is level]


PACKAGES: dict[str, tuple[dict[str, str | None], dict[str, str], list[str]]] = {
    "all there": ({}, {"mark": "a route marks"}, []),
    "one missing": ({"rich": None}, {}, ["rich is not installed"]),
    "one too old": ({"numpy": "1.26"}, {}, ["numpy is 1.26, and <3,>=2 is wanted"]),
    "one too new": ({"numpy": "3.0"}, {}, ["numpy is 3.0, and <3,>=2 is wanted"]),
    "an extra too old": (
        {"torch": "2.1"},
        {},
        ["torch is 2.1, and >=2.13 is wanted (for mark)"],
    ),
    "an extra that is needed": (
        {"torch": None, "safetensors": None},
        {"mark": "route 'r' marks"},
        ["route 'r' marks, and torch, safetensors are not installed"],
    ),
    "an extra that is half there, and needed": (
        {"torch": None},
        {"mark": "route 'r' marks"},
        ["route 'r' marks, and torch is not installed"],
    ),
    "an extra that nobody needs": ({"torch": None, "safetensors": None}, {}, []),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_packages(name: str) -> None:
    changes, needed, says = PACKAGES[name]
    there = THERE | changes
    found = list(installation.judged_packages(REQUIRED, there.get, needed))
    assert of(Level.WRONG, found) == says


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 10, 4), Level.WRONG), ((3, 11, 0), Level.OK), ((3, 14, 1), Level.OK)],
)
def test_python(version: tuple[int, ...], level: Level) -> None:
    assert installation.judged_python(version, ">=3.11").level is level


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", 0), ("150000 100000\n", 2), ("50000 100000\n", 1), ("", 0)],
)
def test_cores_of_a_control_group(text: str, cores: int) -> None:
    assert searching.cores_of(text) == cores


@pytest.mark.parametrize(
    ("threads", "cores", "level"),
    [(8, 2, Level.NOTE), (2, 2, Level.OK), (1, 16, Level.NOTE), (8, 16, Level.OK)],
)
def test_threads(threads: int, cores: int, level: Level) -> None:
    assert searching.judged_threads(threads, cores).level is level


def test_a_gpu_that_is_not_used() -> None:
    idle = searching.judged_gpu(has_gpu=False, is_built_for_it=False, is_there=True)
    assert idle.level is Level.NOTE
    none = searching.judged_gpu(has_gpu=False, is_built_for_it=True, is_there=False)
    used = searching.judged_gpu(has_gpu=True, is_built_for_it=True, is_there=True)
    assert none.level is used.level is Level.OK


def test_codecs_decode_what_is_kept() -> None:
    found = list(codecs.judged(codecs.SAMPLES, decode_frames))
    assert [one.level for one in found] == [Level.OK]


def test_a_codec_that_decodes_to_another_picture() -> None:
    def decode(*_: object) -> DecodedFrames:
        return DecodedFrames(np.zeros((1, 32, 32, 1), np.uint8), "MONOCHROME2")

    (found,) = codecs.judged({uid.RLELossless: b""}, decode)
    assert "decodes to another picture" in found.says


def test_a_codec_that_is_broken() -> None:
    (found,) = codecs.judged({uid.JPEGLSLossless: b"none"}, decode_frames)
    assert found.level is Level.WRONG
    assert "does not decode" in found.says


def test_a_process_for_codecs_that_does_not_start() -> None:
    def decode(*_: object) -> DecodedFrames:
        raise CodecProcessError("the codecs' process ended", hint="why")

    assert list(codecs.judged(codecs.SAMPLES, decode)) == [
        wrong("the codecs' process ended", "why")
    ]


MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
nas:/srv /srv nfs4 rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/sdb1 /media/a\\040b ext4 ro,relatime 0 0
"""


@pytest.mark.parametrize(
    ("path", "wanted", "level"),
    [
        ("/var/lib/x", ("ext4", False), None),
        ("/srv/x", ("nfs4", False), Level.WRONG),
        ("/run/x", ("tmpfs", False), Level.NOTE),
        ("/media/a b/x", ("ext4", True), Level.WRONG),
        ("/srvx", ("ext4", False), None),
    ],
)
def test_where_a_folder_lies(
    path: str, wanted: tuple[str, bool], level: Level | None
) -> None:
    place = folder.kind_at(Path(path), MOUNTS)
    assert place == wanted
    found = list(folder.judged_place(Path(path), place))
    assert [one.level for one in found] == ([] if level is None else [level])


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    seen = tmp_path.stat()
    assert list(folder.judged_owner(tmp_path, seen, seen.st_uid)) == []
    (found,) = folder.judged_owner(tmp_path, seen, seen.st_uid + 1)
    assert found.level is Level.WRONG
    somebody = os.stat_result((*seen[:4], 1234, *seen[5:10]))
    (found,) = folder.judged_owner(tmp_path, somebody, 0)
    assert found.level is Level.NOTE


def test_keys_that_are_old_and_keys_of_tomorrow(tmp_path: Path) -> None:
    ring = Keyring.make(tmp_path / "keys", NOW).ring
    assert list(keys.judged_ages(ring, NOW + timedelta(days=89))) == []
    (late,) = keys.judged_ages(ring, NOW + timedelta(days=120))
    assert "epoch key is of 2026-01-01" in late.says
    old = of(Level.NOTE, keys.judged_ages(ring, NOW + timedelta(days=4 * 365)))
    assert {one.split()[1] for one in old} == {"epoch", "identity", "signing"}
    future = of(Level.WRONG, keys.judged_ages(ring, NOW - timedelta(days=2)))
    assert len(future) == len(ring.keys)


def test_what_waits_for_a_person() -> None:
    counts: dict[str, int] = {
        JobState.HELD: 2,
        JobState.QUARANTINED: 1,
        JobState.WAITING: 5,
    }
    found = list(owing.judged_counts(counts, NOW - timedelta(hours=3), NOW))
    assert [one.level for one in found] == [Level.NOTE] * 3 + [Level.OK]
    assert "2 jobs are held" in found[0].says
    assert "waited for 180 minutes" in found[2].says


CLOCKS = {
    "right": (NOW, NOW, {"desk": NOW + timedelta(seconds=3)}, []),
    "of a machine without a battery": (NOW.replace(year=2000), None, {}, ["younger"]),
    "gone back": (NOW, NOW + timedelta(hours=1), {}, ["it is slow, or was fast"]),
    "ahead of another": (
        *(NOW, None, {"desk": NOW - timedelta(seconds=90)}),
        ["90 s ahead of that of desk"],
    ),
    "behind another": (
        *(NOW, None, {"desk": NOW + timedelta(hours=1)}),
        ["3600 s behind that of desk"],
    ),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_clocks(name: str) -> None:
    now, newest, said, says = CLOCKS[name]
    found = of(Level.WRONG, clock.judged(now, newest, said))
    assert len(found) == len(says)
    assert all(part in one for part, one in zip(says, found, strict=True))


LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max processes             96000                96000                processes
Max open files            1024                 {hard}                files
"""


def test_how_many_files_a_process_may_open() -> None:
    assert machine.most_files(LIMITS.format(hard="4096")) == 4096
    assert machine.most_files(LIMITS.format(hard="unlimited")) == -1
    own = machine.most_files(Path("/proc/self/limits").read_text("ascii"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert own == hard
    assert machine.judged_files(1000, 1500, "it").level is Level.WRONG
    assert machine.judged_files(-1, 1500, "it").level is Level.OK


def test_who_holds_a_lock(tmp_path: Path) -> None:
    file = tmp_path / "node.lock"
    assert machine.holder_of("", file) == 0
    file.touch()
    line = "1: FLOCK  ADVISORY  WRITE 4711 fe:01:{inode} 0 EOF\n"
    assert machine.holder_of(line.format(inode=file.stat().st_ino), file) == 4711
    assert machine.holder_of(line.format(inode=1), file) == 0


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    seen = os.statvfs(tmp_path)
    free = seen.f_bavail * seen.f_frsize / (1 << 20)
    assert free > 1, "this test wants a megabyte"
    (low,) = machine.judged_room(seen, Storage(least_free_mb=free * 0.75))
    assert low.level is Level.NOTE
    (fine,) = machine.judged_room(
        seen, Storage(least_free_mb=free / 4, least_free_inodes=0)
    )
    assert fine.level is Level.OK


def test_an_answer_that_is_late_on_this_machine() -> None:
    here = Destination(name="d", ae_title="D", host="127.0.0.1")
    far = Destination(name="d", ae_title="D", host="192.0.2.1")
    assert network.judged_echo(here, 0.05).level is Level.NOTE
    assert network.judged_echo(here, 0.001).level is Level.OK
    assert network.judged_echo(far, 0.05).level is Level.OK


def test_one_check_that_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Case) -> Iterable[Finding]:
        yield ok("first")
        raise RuntimeError("DOE^JANE")

    monkeypatch.setitem(CHECKS, "python", fails)
    monkeypatch.setitem(CHECKS, "packages", lambda _: [note("after")])
    found = list(examined(Case(state=None, now=NOW), ["python", "packages"]))
    assert [one.finding.level for one in found] == [Level.OK, Level.WRONG, Level.NOTE]
    assert "RuntimeError in test_doctor_verdicts.py" in found[1].finding.says
    assert "DOE" not in found[1].finding.says


def test_a_charter_that_nobody_hears_of() -> None:
    following = Following(source="charter.bin", again_h=24.0)
    known = Known(7, NOW - timedelta(days=1), NOW)
    assert fellows.judged_charter(known, following, NOW).level is Level.OK
    assert fellows.judged_charter(None, following, NOW).level is Level.NOTE
    silent = known._replace(reason="it is gone")
    assert fellows.judged_charter(silent, following, NOW).level is Level.NOTE
    late = fellows.judged_charter(silent, following, NOW + timedelta(days=3))
    assert late.level is Level.WRONG
    assert "it is gone" in late.says
