"""What an Orthanc stores is handed in, whoever is killed at whatever request."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dicom_node.errors import ConfigError
from dicom_node.hatch_folder import HatchFolder
from dicom_node.orthanc_feed import HANDED_IN, Feed, GoneError
from dicom_node.orthanc_settings import OrthancSettings, Role, read_settings


class KilledError(Exception):
    pass


@dataclass
class Archive:
    """Answers as Orthanc does, from memory; it survives whoever asks."""

    studies: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    unstable: set[str] = field(default_factory=set)
    metadata: dict[str, str] = field(default_factory=dict)
    kept: int | None = None
    killed_after: int = -1
    """Requests, after which whoever asks is killed."""

    def store(self, instance: str, study: str) -> None:
        self.studies[instance] = study
        self.changes += ["NewSeries:x", f"NewInstance:{instance}"]

    def _count(self) -> None:
        if self.killed_after == 0:
            raise KilledError
        self.killed_after -= 1

    def get(self, path: str) -> bytes:
        self._count()
        if path == "/changes?last":
            return json.dumps({"Last": len(self.changes)}).encode()
        if path.startswith("/changes?since="):
            since = int(path.removeprefix("/changes?since=").partition("&")[0])
            found = [
                {"Seq": n, "ChangeType": kind, "ID": name}
                for n, change in enumerate(self.changes, 1)
                if n > since
                for kind, _, name in [change.partition(":")]
            ][:2]
            last = found[-1]["Seq"] if found else since
            is_done = last == len(self.changes)
            return json.dumps(
                {"Changes": found, "Last": last, "Done": is_done}
            ).encode()
        _, kind, name, *more = path.split("/")
        if kind == "studies":
            if name not in self.studies.values():
                raise GoneError
            return json.dumps({"IsStable": name not in self.unstable}).encode()
        if name not in self.studies:
            raise GoneError
        if more == ["study"]:
            return json.dumps({"ID": self.studies[name]}).encode()
        if more == ["file"]:
            return name.encode()
        assert more == ["metadata", str(HANDED_IN)]
        if name not in self.metadata:
            raise GoneError
        return self.metadata[name].encode()

    def put(self, path: str, content: str) -> None:
        self._count()
        _, _, name, *_ = path.split("/")
        if name not in self.studies:
            raise GoneError
        self.metadata[name] = content

    def position(self) -> int | None:
        return self.kept

    def keep_position(self, number: int) -> None:
        self._count()
        self.kept = number


@pytest.fixture
def hatch(tmp_path: Path) -> HatchFolder:
    folder = HatchFolder(tmp_path / "hatch")
    folder.make()
    return folder


def contents(hatch: HatchFolder) -> list[str]:
    return sorted(file.read_text() for file in hatch.waiting())


def test_only_what_arrives_later_is_handed_in_and_only_once_it_is_stable(
    hatch: HatchFolder,
) -> None:
    archive = Archive(unstable={"s"})
    archive.store("old", "o")
    feed = Feed.begun(archive, hatch, feeds_existing=False)
    archive.store("a", "s")
    archive.store("b", "t")
    assert feed.turn() == 1
    assert contents(hatch) == ["b"]
    assert archive.kept == 3  # the change before the one that is still owed
    archive.unstable.clear()
    assert feed.turn() == 1
    archive.store("late", "t")
    assert feed.turn() == 1
    assert feed.turn() == 0
    assert contents(hatch) == ["a", "b", "late"]
    assert archive.kept == len(archive.changes)


def test_what_was_there_before_is_handed_in_where_that_is_wanted(
    hatch: HatchFolder,
) -> None:
    archive = Archive()
    archive.store("old", "o")
    Feed.begun(archive, hatch, feeds_existing=True).turn()
    assert contents(hatch) == ["old"]


def test_what_was_deleted_meanwhile_stops_nothing(hatch: HatchFolder) -> None:
    archive = Archive(unstable={"s"})
    feed = Feed.begun(archive, hatch, feeds_existing=True)
    archive.store("a", "s")
    archive.store("b", "s")
    feed.turn()
    del archive.studies["a"]
    archive.unstable.clear()
    archive.store("c", "t")
    assert feed.turn() == 2
    assert contents(hatch) == ["b", "c"]


def test_a_hatch_that_cannot_be_written_is_tried_again(
    hatch: HatchFolder, tmp_path: Path
) -> None:
    archive = Archive()
    feed = Feed.begun(archive, hatch, feeds_existing=True)
    archive.store("a", "s")
    hatch.folder.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(OSError, match="No such file"):
            feed.turn()
    (tmp_path / "elsewhere").rename(hatch.folder)
    assert feed.turn() == 1
    assert contents(hatch) == ["a"]


def test_killed_at_any_request_it_loses_nothing(tmp_path: Path) -> None:
    requests = 0
    while True:
        hatch = HatchFolder(tmp_path / str(requests))
        hatch.make()
        archive = Archive(killed_after=requests)
        was_killed = False
        for names in ("ab", "c"):
            for name in names:
                archive.store(name, f"study {name < 'b'}")
            try:
                Feed.begun(archive, hatch, feeds_existing=True).turn()
            except KilledError:
                was_killed, archive.killed_after = True, -1
        archive.killed_after = -1
        Feed.begun(archive, hatch, feeds_existing=True).turn()
        found = contents(hatch)
        assert sorted(set(found)) == ["a", "b", "c"]
        assert len(found) <= 4  # one at most was handed in twice
        assert archive.kept == len(archive.changes)
        if not was_killed:
            break
        requests += 1
    assert requests > 10


class TestSettings:
    def test_what_is_said_is_read(self) -> None:
        section = {"Role": "feed", "Hatch": "/srv/hatch", "FeedExisting": True}
        found = read_settings(json.dumps({"Name": "x", "MiadMark": section}))
        assert found == OrthancSettings(Role.FEED, Path("/srv/hatch"), True)

    @pytest.mark.parametrize(
        ("section", "said"),
        [
            (None, "no section MiadMark"),
            ({"Role": "egress"}, "Hatch = None"),
            ({"Role": "egress", "Hatch": "hatch"}, "Hatch = 'hatch'"),
            ({"Role": "archive", "Hatch": "/h"}, "Role = 'archive'"),
            ({"Hatch": "/h"}, "Role = None"),
            ({"Role": "feed", "Hatch": "/h", "Hutch": 1}, "Hutch is not known"),
            ({"Role": "feed", "Hatch": "/h", "FeedExisting": 1}, "FeedExisting = 1"),
            (
                {"Role": "egress", "Hatch": "/h", "FeedExisting": True},
                "FeedExisting = True",
            ),
        ],
    )
    def test_what_cannot_work_is_refused(
        self, section: dict[str, object] | None, said: str
    ) -> None:
        configuration = {} if section is None else {"MiadMark": section}
        with pytest.raises(ConfigError, match=said):
            read_settings(json.dumps(configuration))
