"""What the spool is sealed with is replaced, and goes once nothing needs it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_node.errors import KeyFolderError, SpoiledFileError, SpoolError
from dicom_node.forgetting import GRACE, LASTS, Forgetting, require_key_folder
from dicom_node.incoming import IncomingFile
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.ring import FILE, KeyKind
from dicom_node.mapped import read
from dicom_node.queue.arrival import Arrival, Owed, Taken
from dicom_node.queue.memory import MemoryQueue
from dicom_node.sealed_file import SealedFile
from dicom_node.spool import Spool
from dicom_node.spool_keys import HandedKeys
from tests.conftest import NOW

MOMENT = timedelta(seconds=1)


class Site:
    """A key folder and a spool."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.keyring = Keyring.make(folder / "keys", NOW)
        self.spool = Spool(folder / "spool", keys=self.keyring.spool)
        self.forgetting = Forgetting(self.keyring.spool, self.spool, lambda: self.now)
        self.handed = self.forgetting.begin()

    def versions(self) -> list[int]:
        return [key.version for key in self.keyring.spool.all()]

    def take(self, content: bytes) -> str:
        """As a receiver does it."""
        file = IncomingFile(self.spool.incoming, self.handed)
        file.write(content)
        file.finish()
        file.close()
        return self.spool.take(Path(file.name))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.handed.close()


def test_a_key_is_replaced_and_destroyed_once_nothing_needs_it(site: Site) -> None:
    first = site.take(b"first")
    site.now += LASTS - MOMENT
    site.forgetting.turn(site.handed)
    assert site.versions() == [1]
    site.now += MOMENT
    site.forgetting.turn(site.handed)
    assert site.versions() == [1, 2]
    second = site.take(b"second")  # receivers seal with the new one
    assert read(site.spool.file(first)) == b"first"
    site.now += GRACE
    site.forgetting.turn(site.handed)
    assert site.versions() == [1, 2]  # something needs it
    copy = site.spool.path(first).read_bytes()  # what a disk may keep
    site.spool.delete([first])
    site.forgetting.turn(site.handed)
    assert site.versions() == [2]
    assert not (site.keyring.folder / "spool-1.key").exists()
    assert read(site.spool.file(second)) == b"second"
    site.spool.path(first).write_bytes(copy)
    with pytest.raises(KeyFolderError, match="spool key 1"):
        site.spool.file(first).open("rb")


def test_a_key_is_kept_for_whoever_has_just_begun_a_file(site: Site) -> None:
    site.now += LASTS
    site.forgetting.turn(site.handed)
    site.now += GRACE - MOMENT
    site.forgetting.turn(site.handed)
    assert site.versions() == [1, 2]
    site.now += MOMENT
    # Even what is only coming in counts.
    part = site.spool.incoming / "receiver-0"
    part.mkdir()
    file = IncomingFile(part, HandedKeys.made(site.keyring.spool.all()[:1]))
    file.write(b"large")
    file.finish()
    file.close()
    site.forgetting.turn(site.handed)
    assert site.versions() == [1, 2]
    Path(file.name).unlink()
    site.forgetting.turn(site.handed)
    assert site.versions() == [2]


def test_the_key_in_use_cannot_be_destroyed(site: Site) -> None:
    with pytest.raises(KeyFolderError, match="in use"):
        site.keyring.spool.destroy({1})


def test_a_ring_of_an_earlier_version_gets_its_first_key(tmp_path: Path) -> None:
    keyring = Keyring.make(tmp_path / "keys", NOW)
    store = keyring._store
    earlier = [key for key in keyring.ring.keys if key.kind is not KeyKind.SPOOL]
    with store.changing():
        store.write(replace(keyring.ring, keys=tuple(earlier)))
    (tmp_path / "keys" / "spool-1.key").unlink()
    assert b'"spool"' not in (tmp_path / "keys" / FILE).read_bytes()
    opened = Keyring(tmp_path / "keys", keyring.root)
    with pytest.raises(KeyFolderError, match="no spool key yet"):
        opened.spool.newest()
    spool = Spool(tmp_path / "spool", keys=opened.spool)
    handed = Forgetting(opened.spool, spool, lambda: NOW).begin()
    assert handed.newest().version == 1
    # Another process that has read the ring before sees it.
    assert keyring.spool.newest() == handed.newest()
    handed.close()


def test_a_key_that_another_node_has_made_is_taken_on(site: Site) -> None:
    other = Keyring(site.keyring.folder, site.keyring.root)
    spool = Spool(site.spool.path(""), keys=other.spool)
    theirs = Forgetting(other.spool, spool, lambda: site.now)
    handed = theirs.begin()
    site.now += LASTS
    theirs.turn(handed)
    assert handed.newest().version == 2
    name = site.take(b"content")
    site.forgetting.turn(site.handed)
    assert site.handed.newest() == handed.newest()
    assert read(spool.file(name)) == b"content"
    # None goes that a file of either takes.
    site.now += GRACE
    theirs.turn(handed)
    assert site.versions() == [1, 2]
    spool.delete([name])
    site.forgetting.turn(site.handed)
    assert site.versions() == [2]
    handed.close()


def test_sealing_all_keys_anew_changes_none_of_them(site: Site) -> None:
    name = site.take(b"content")
    site.keyring.rotate_root()
    again = Keyring(site.keyring.folder, site.keyring.root)
    spool = Spool(site.spool.path(""), keys=again.spool)
    assert read(spool.file(name)) == b"content"


def test_a_spool_of_other_keys_is_not_begun_with(site: Site, tmp_path: Path) -> None:
    site.take(b"content")
    other = Keyring.make(tmp_path / "other", NOW)
    with pytest.raises(KeyFolderError, match="of another key folder"):
        Forgetting(other.spool, site.spool, lambda: NOW).begin()
    with pytest.raises(KeyFolderError, match="holds no keys"):
        require_key_folder(tmp_path / "gone", site.spool)
    require_key_folder(site.keyring.folder, site.spool)


def unreadable(path: Path | None) -> Callable[..., Any]:
    """What opens files, but for one, or lists folders, but for all."""

    def fails(file: Any, *more: Any, **named: Any) -> Any:
        if path is None or file == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, *more, **named)

    real = Path.open
    return fails


@pytest.mark.parametrize("what", ["the folder", "a file"])
def test_no_key_is_destroyed_while_the_spool_cannot_be_read(
    site: Site, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    name = site.take(b"acknowledged")
    site.now += LASTS
    site.forgetting.turn(site.handed)
    site.now += GRACE
    with monkeypatch.context() as patched:
        if what == "the folder":
            patched.setattr(os, "scandir", unreadable(None))
        else:
            patched.setattr(Path, "open", unreadable(site.spool.path(name)))
        with pytest.raises(SpoolError, match="cannot be"):
            site.forgetting.turn(site.handed)
    assert site.versions() == [1, 2]
    assert read(site.spool.file(name)) == b"acknowledged"
    site.spool.delete([name])
    site.forgetting.turn(site.handed)
    assert site.versions() == [2]


def damaged(site: Site, at: int, mask: int) -> str:
    """The name of a file with a changed head."""
    name = site.take(b"content")
    path = site.spool.path(name)
    content = bytearray(path.read_bytes())
    content[at] ^= mask
    path.write_bytes(content)
    return name


@pytest.mark.parametrize("at", range(1, 20))
def test_a_damaged_head_keeps_no_node_from_starting(site: Site, at: int) -> None:
    name = damaged(site, at, 1)
    site.forgetting.begin().close()
    assert not site.spool.holds(name)


def test_what_names_a_key_of_nobody_is_damaged_if_it_is_alone_among_others(
    site: Site, tmp_path: Path
) -> None:
    site.take(b"content")
    other = Keyring.make(tmp_path / "other", NOW)
    foreign = Spool(tmp_path / "foreign", keys=other.spool)
    for number in range(2):
        name = foreign.write([b"of another site"])
        foreign.path(name).replace(site.spool.path(name))
        if not number:
            site.forgetting.begin().close()
    with pytest.raises(KeyFolderError, match="of another key folder"):
        site.forgetting.begin()


def test_a_file_that_is_damaged_is_made_good_by_the_same_bytes(site: Site) -> None:
    queue, owed = MemoryQueue(), [Owed("onwards", "archive")]

    def again() -> Taken:
        name = site.take(b"content")
        arrival = Arrival("1.2.3", b"digest", name)
        taken = queue.add(arrival, owed, NOW, NOW - MOMENT, site.spool.holds)
        if not taken.needs_file:
            site.spool.delete([name])
        return taken

    assert again() is Taken.OWED
    assert again() is Taken.KNOWN
    (damaged,) = queue.files()
    path = site.spool.path(damaged)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(SpoiledFileError):
        read(site.spool.file(damaged))
    assert again() is Taken.OWED
    (name,) = queue.files()
    assert read(site.spool.file(name)) == b"content"


def test_what_is_made_to_be_sent_is_sealed_too(site: Site) -> None:
    name = site.spool.write([b"mar", b"ked"])
    assert isinstance(site.spool.file(name), SealedFile)
    assert b"marked" not in site.spool.path(name).read_bytes()
    assert read(site.spool.file(name)) == b"marked"
    assert site.spool.sweep_left(set, 0.0, alone=True) == 1


def test_who_has_no_keys_reads_only_what_is_not_sealed(
    site: Site, tmp_path: Path
) -> None:
    name = site.take(b"content")
    bare = Spool(tmp_path / "spool")
    with pytest.raises(KeyFolderError, match="no keys for it"):
        bare.file(name)
    assert read(bare.file(bare.write([b"plain"]))) == b"plain"
    unsealed = Spool(tmp_path / "spool", keys=site.handed, encrypts=False)
    assert read(unsealed.file(name)) == b"content"
    part = unsealed.incoming / "part"
    part.write_bytes(os.urandom(8))
    assert unsealed.take(part).endswith(".dcm")


def test_what_cannot_be_read_is_not_held(site: Site) -> None:
    name = site.spool.write([b"content"])
    assert site.spool.holds(name)
    site.spool.path(name).unlink()
    assert not site.spool.holds(name)
    site.spool.path(name).mkdir()  # as good as a disk that does not give it back
    assert not site.spool.holds(name)
