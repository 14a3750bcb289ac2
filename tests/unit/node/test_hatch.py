"""What is handed in is owed before it is deleted, or put aside with a reason."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicom_node.errors import (
    ClashError,
    ConfigError,
    MalformedObjectError,
    NotGrantedError,
    SpoolError,
)
from dicom_node.hatch import Hatch
from dicom_node.hatch_folder import HatchFolder
from dicom_node.scp import Received
from dicom_node.taking_in import Taker


@pytest.fixture
def folder(tmp_path: Path) -> HatchFolder:
    made = HatchFolder(tmp_path / "hatch")
    made.make()
    return made


def a_taker(folder: HatchFolder, accept: Callable[[Received], None]) -> Taker:
    incoming = folder.folder.parent / "incoming"
    incoming.mkdir(exist_ok=True)
    hatch = Hatch(name="h", folder=folder.folder, called_ae_title="STRIP")
    return Taker(hatch, incoming, accept)


def refusing(error: Exception) -> Callable[[Received], None]:
    def accept(_: Received) -> None:
        raise error

    return accept


def test_what_is_handed_in_is_taken_once_oldest_first(folder: HatchFolder) -> None:
    names = [folder.put([b"a", str(n).encode()]) for n in range(3)]
    for age, name in enumerate(reversed(names)):
        os.utime(folder.folder / name, (age, age))
    taken: list[tuple[bytes, str, str]] = []

    def accept(received: Received) -> None:
        assert len(folder.waiting()) == 3 - len(taken)  # it is still in the hatch
        content = received.part.read_bytes()
        titles = received.calling_ae_title, received.called_ae_title
        taken.append((content, *titles))

    taker = a_taker(folder, accept)
    assert taker.turn() == 3
    assert taken == [(b"a%d" % n, "ORTHANC", "STRIP") for n in (2, 1, 0)]
    assert taker.turn() == 0
    assert list((folder.folder.parent / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    "error", [MalformedObjectError("no DICOM"), NotGrantedError("no route is for it")]
)
def test_what_is_refused_is_kept_with_a_sentence(
    folder: HatchFolder, error: Exception
) -> None:
    name = folder.put([b"x"])
    folder.put([b"y"])
    assert a_taker(folder, refusing(error)).turn() == 0
    assert folder.waiting() == []
    assert (folder.refused / name).read_bytes() == b"x"
    reason = (folder.refused / name).with_suffix(".txt")
    assert reason.read_text() == f"{error}\n"


def test_what_is_in_quarantine_is_no_longer_in_the_hatch(folder: HatchFolder) -> None:
    folder.put([b"x"])
    assert a_taker(folder, refusing(ClashError("clashes"))).turn() == 1
    assert folder.waiting() == []


def test_a_full_disk_leaves_all_where_it_is(folder: HatchFolder) -> None:
    folder.put([b"x"])
    folder.put([b"y"])
    for error in (SpoolError("full"), OSError("broken")):
        with pytest.raises(type(error)):
            a_taker(folder, refusing(error)).turn()
    assert len(folder.waiting()) == 2


def test_what_fails_unforeseen_stops_no_others_and_is_put_aside_at_last(
    folder: HatchFolder,
) -> None:
    bad = folder.put([b"bad"])

    def accept(received: Received) -> None:
        if received.part.read_bytes() == b"bad":
            raise RuntimeError("Doe^Jane")

    taker = a_taker(folder, accept)
    for _ in range(4):
        folder.put([b"good"])
        assert taker.turn() == 1
        assert [f.name for f in folder.waiting()] == [bad]
    taker.turn()
    reason = (folder.refused / bad).with_suffix(".txt").read_text()
    assert reason == "it failed 5 times: RuntimeError\n"


class Harmed(type(Path())):  # type: ignore[misc]
    """Stands for a file on a bad sector, or of somebody who keeps it to himself."""

    harmed = ""

    def open(self, *how: Any, **more: Any) -> Any:
        if self.name == self.harmed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return super().open(*how, **more)


class Harming(Taker):
    """Has its files harmed, and a clock that is put on."""

    now = 0.0

    @classmethod
    def of(cls, folder: HatchFolder, accept: Callable[[Received], None]) -> Harming:
        incoming = folder.folder.parent / "incoming"
        incoming.mkdir(exist_ok=True)
        hatch = Hatch(name="h", folder=Harmed(folder.folder))
        return cls(hatch, incoming, accept, monotonic=lambda: cls.now)


def test_a_file_that_cannot_be_read_holds_up_no_other(
    folder: HatchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = folder.put([b"bad"]), folder.put([b"good"])
    os.utime(folder.folder / bad, (1, 1))
    monkeypatch.setattr(Harmed, "harmed", bad)
    taken: list[bytes] = []
    taker = Harming.of(folder, lambda one: taken.append(one.part.read_bytes()))
    assert taker.turn() == 1
    assert taken == [b"good"]
    assert [file.name for file in folder.waiting()] == [bad]
    assert not (folder.folder / good).exists()
    for _ in range(9):
        taker.turn()  # it is not asked for all the time
    assert [file.name for file in folder.waiting()] == [bad]
    for _ in range(4):
        monkeypatch.setattr(Harming, "now", Harming.now + 3)
        taker.turn()
    assert folder.waiting() == []
    assert (folder.refused / bad).read_bytes() == b"bad"
    reason = (folder.refused / bad).with_suffix(".txt").read_text()
    assert "cannot be read: Permission denied" in reason


@pytest.mark.parametrize("how", ["taken", "refuse"])
def test_a_file_that_cannot_leave_holds_up_no_other(
    folder: HatchFolder, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    stuck = folder.put([b"stuck"])
    os.utime(folder.folder / stuck, (1, 1))
    done, real = list[bytes](), getattr(HatchFolder, how)

    def accept(received: Received) -> None:
        done.append(received.part.read_bytes())
        if how == "refuse":
            raise MalformedObjectError("no DICOM")

    def leave(self: HatchFolder, file: Path, *more: str) -> None:
        if file.name == stuck:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        real(self, file, *more)

    monkeypatch.setattr(HatchFolder, how, leave)
    taker = Harming.of(folder, accept)
    for _ in range(3):
        folder.put([b"another"])
        taker.turn()
        assert [file.name for file in folder.waiting()] == [stuck]
    assert done == [b"stuck", *[b"another"] * 3]
    monkeypatch.setattr(Harming, "now", Harming.now + 61)
    taker.turn()
    assert done.count(b"stuck") == 2


def test_too_many_open_files_are_not_the_trouble_of_one(
    folder: HatchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    folder.put([b"x"])
    monkeypatch.setattr(Harmed, "open", fails)
    with pytest.raises(OSError, match="Too many"):
        Harming.of(folder, lambda _: None).turn()
    assert len(folder.waiting()) == 1


def test_what_is_half_written_is_not_taken_and_swept_when_it_is_old(
    folder: HatchFolder,
) -> None:
    part = folder.folder / ".abc.dcm.1.part"
    part.write_bytes(b"x")
    (folder.folder / "link.dcm").symlink_to(part)
    assert folder.waiting() == []
    assert folder.sweep(part.stat().st_mtime - 1) == 0
    assert folder.sweep(part.stat().st_mtime + 1) == 1
    assert not part.exists()


def test_a_folder_that_was_made_for_others_keeps_its_permissions(
    tmp_path: Path,
) -> None:
    own, shared = HatchFolder(tmp_path / "own"), HatchFolder(tmp_path / "shared")
    shared.folder.mkdir()
    shared.folder.chmod(0o2770)
    for each in (own, shared):
        each.make()
    assert own.folder.stat().st_mode & 0o7777 == 0o700
    assert shared.folder.stat().st_mode & 0o7777 == 0o2770
    name = shared.put([b"x"])
    assert (shared.folder / name).stat().st_mode & 0o777 == 0o640


def test_a_hatch_that_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name"):
        Hatch(name="", folder=tmp_path)
    with pytest.raises(ConfigError, match="ae_title"):
        Hatch(name="h", folder=tmp_path, called_ae_title="A" * 17)
