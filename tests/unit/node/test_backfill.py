from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.backfill import filling
from dicom_node.backfill.filling import Filling, Sample
from dicom_node.backfill.manifest import Entry, Heading, Manifest, Status
from dicom_node.backfill.pacing import Pacing
from dicom_node.backfill.places import require_apart
from dicom_node.backfill.source import FolderSource, Found
from dicom_node.backfill.target import FolderTarget, HatchTarget, plain
from dicom_node.errors import BackfillError, SourceError
from dicom_node.files import Outcome, Task
from dicom_node.hatch import Hatch
from dicom_node.hours import Hours
from tests.archives import (
    digests,
    entries,
    flat_image,
    require_done_once,
    small_objects,
)

HEADING = Heading(source="from", target="to", how="so")
MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Clock:
    """One that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 1000.0

    def sleep(self, seconds: float) -> bool:
        self.at += seconds
        return False

    def now(self) -> datetime:
        return MONDAY + timedelta(seconds=self.at - 1000)


def a_pacing(clock: Clock, **more: object) -> Pacing:
    settings = {"clock": lambda: clock.at, "now": clock.now, "sleep": clock.sleep}
    return Pacing(**(settings | more))  # type: ignore[arg-type]


def passed(todo: Sequence[Task]) -> Iterator[Outcome]:
    for task in todo:
        task.target.write_bytes(task.source.read_bytes())
        yield Outcome(source=task.source, target=task.target, status="passed")


def a_filling(
    manifest: Manifest,
    folder: Path,
    share: float = 0.0,
    compare: Callable[[Path, Path], object] = lambda *_: None,
    target: FolderTarget | None = None,
) -> Filling:
    return Filling(
        source=FolderSource(folder / "in"),
        target=target or FolderTarget(folder / "out"),
        manifest=manifest,
        work=passed,
        compare=compare,
        sample=Sample(share, b"seed"),
        pacing=a_pacing(Clock()),
        scratch=folder / "scratch",
    )


def test_a_line_that_was_cut_short_was_never_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    with Manifest(path, HEADING) as manifest:
        manifest.add(Entry(source="a", status=Status.MARKED))
        manifest.add(Entry(source="b", status=Status.MARKED))
    path.write_bytes(path.read_bytes()[:-5])
    with Manifest(path, HEADING) as manifest:
        assert manifest.is_done("a")
        assert not manifest.is_done("b")
        manifest.add(Entry(source="b", status=Status.PASSED))
    assert [entry["source"] for entry in entries(path)] == ["a", "b"]


def test_even_the_first_line_may_be_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    path.write_text('{"manifest": 1, "sou')
    with Manifest(path, HEADING) as manifest:
        manifest.add(Entry(source="a", status=Status.MARKED))
    with Manifest(path, HEADING) as manifest:
        assert manifest.done == 1


@pytest.mark.parametrize("line", ["nonsense", '{"source": 1}', "[]", '"a"'])
def test_a_manifest_that_was_changed_is_not_continued(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "manifest"
    with Manifest(path, HEADING):
        pass
    with path.open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(BackfillError, match="line 2"):
        Manifest(path, HEADING)


def test_a_manifest_of_something_else_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    with Manifest(path, HEADING):
        pass
    with pytest.raises(BackfillError, match="has how 'so', and this run 'otherwise'"):
        Manifest(path, Heading(source="from", target="to", how="otherwise"))


def test_two_do_not_write_to_one_manifest(tmp_path: Path) -> None:
    with (
        Manifest(tmp_path / "manifest", HEADING),
        pytest.raises(BackfillError, match="being written"),
    ):
        Manifest(tmp_path / "manifest", HEADING)


def test_what_could_not_be_written_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with Manifest(path, HEADING) as manifest:
        manifest.add(Entry(source="a", status=Status.MARKED))
        before = path.read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                manifest.add(Entry(source="b", status=Status.MARKED))
        assert path.read_bytes() == before
        assert not manifest.is_done("b")
        manifest.add(Entry(source="b", status=Status.MARKED))
    assert len(entries(path)) == 2


@given(
    st.lists(st.integers(1, 5_000_000), min_size=1, max_size=20),
    st.floats(0.05, 50),
    st.floats(1e5, 1e7),
)
def test_no_more_is_read_than_was_agreed(
    sizes: list[int], objects_per_s: float, bytes_per_s: float
) -> None:
    clock = Clock()
    pacing = a_pacing(clock, objects_per_s=objects_per_s, bytes_per_s=bytes_per_s)
    for size in sizes:
        assert pacing.begin()
        assert pacing.spend(size)
    assert pacing.begin()
    took = clock.at - 1000
    # A burst of a quarter of a second, for each of the two.
    assert took >= len(sizes) / objects_per_s - 0.5
    assert took >= sum(sizes) / bytes_per_s - 0.75


def test_it_works_in_its_hours_only() -> None:
    clock, told = Clock(), list[str]()
    hours = Hours.of(("Mon 18:00-20:00",), "UTC")
    pacing = a_pacing(clock, hours=hours, told=told.append)
    assert pacing.begin()
    assert clock.now().hour == 18
    assert told[0] == "waits for its hours"
    assert told[-1] == ""


def test_who_is_told_to_stop_reads_nothing_more() -> None:
    pacing = a_pacing(Clock(), sleep=lambda _: True)
    assert not pacing.begin()


def test_a_sample_is_drawn_by_its_seed() -> None:
    names = [str(number) for number in range(20_000)]
    drawn = {
        seed: {n for n in names if Sample(0.01, seed).holds(n)} for seed in (b"a", b"b")
    }
    assert 120 < len(drawn[b"a"]) < 280
    assert drawn[b"a"] == {n for n in names if Sample(0.01, b"a").holds(n)}
    assert len(drawn[b"a"] & drawn[b"b"]) < 20
    assert all(Sample(1.0, b"a").holds(name) for name in names)
    assert not any(Sample(0.0, b"a").holds(name) for name in names)


def test_what_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 40)
    path = tmp_path / "manifest"
    for _ in range(4):
        with Manifest(path, HEADING) as manifest:
            run = a_filling(manifest, tmp_path).run()
            for _ in range(7):
                next(run)
            run.close()
    with Manifest(path, HEADING) as manifest:
        assert len(list(a_filling(manifest, tmp_path).run())) == 12
    require_done_once(path, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "scratch").exists()


class _Breaking(FolderTarget):
    """Puts, and breaks before anybody hears of it."""

    def put(self, name: str, file: Path) -> None:
        super().put(name, file)
        raise SourceError("it broke")


def test_what_was_put_and_not_written_down_is_put_again(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 3)
    path = tmp_path / "manifest"
    with Manifest(path, HEADING) as manifest:
        target = _Breaking(tmp_path / "out")
        with pytest.raises(SourceError):
            list(a_filling(manifest, tmp_path, target=target).run())
    assert len(digests(tmp_path / "out")) == 1
    assert entries(path) == []
    with Manifest(path, HEADING) as manifest:
        list(a_filling(manifest, tmp_path).run())
    require_done_once(path, tmp_path / "in", tmp_path / "out")


def test_what_does_not_restore_does_not_stay(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 2)
    path = tmp_path / "manifest"

    def differ(_: Path, original: Path) -> None:
        if b"1.2.3.100001" in original.read_bytes():
            raise BackfillError("it differs")

    with Manifest(path, HEADING) as manifest:
        good, bad = a_filling(manifest, tmp_path, 1.0, differ).run()
    assert (good.status, good.verified) == (Status.PASSED, True)
    assert (bad.status, bad.reason, bad.after) == (Status.FAILED, "it differs", "")
    assert list(digests(tmp_path / "out")) == [good.source]
    with Manifest(path, HEADING) as manifest:  # what failed is tried again
        (again,) = a_filling(manifest, tmp_path, 1.0).run()
    assert (again.source, again.verified) == (bad.source, True)
    require_done_once(path, tmp_path / "in", tmp_path / "out")


def test_what_failed_before_comes_last(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 3)
    path = tmp_path / "manifest"
    with Manifest(path, HEADING) as manifest:
        manifest.add(Entry(source="000/00000.dcm", status=Status.FAILED))
        names = [entry.source for entry in a_filling(manifest, tmp_path).run()]
    assert names == ["000/00001.dcm", "000/00002.dcm", "000/00000.dcm"]


def test_an_object_that_is_not_to_be_had_stops_no_other(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 1)
    (tmp_path / "in" / "link").symlink_to(tmp_path, target_is_directory=True)
    with Manifest(tmp_path / "manifest", HEADING) as manifest:
        said = {e.source: e for e in a_filling(manifest, tmp_path).run()}
    assert said["link"].status is Status.FAILED
    assert said["link"].reason == "it is no file"
    assert said["000/00000.dcm"].status is Status.PASSED


def test_names_that_no_file_can_have_stop_no_other(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"an object")
    target = FolderTarget(tmp_path / "out")
    target.put("a", file)
    target.put(f"{'n' * 255}", file)  # as long as a name can be
    target.put("c/d", file)
    for name in ("a/b", "n" * 256, "c", f".{'0' * 32}.miadmark-part"):
        with pytest.raises(BackfillError, match="name") as caught:
            target.put(name, file)
        assert not isinstance(caught.value, SourceError)
    assert set(digests(tmp_path / "out")) == {"a", "n" * 255, "c/d"}
    with pytest.raises(SourceError, match="cannot be used"):
        FolderTarget(file).put("a", file)


def test_what_others_left_half_written_is_not_written_over(tmp_path: Path) -> None:
    file, part = tmp_path / "file", tmp_path / "part"
    file.write_bytes(b"an object")
    part.write_bytes(b"half an ob")
    target = FolderTarget(tmp_path / "out")
    target.put(".x.dcm.part", part)
    target.put("x.dcm", file)
    assert (tmp_path / "out" / ".x.dcm.part").read_bytes() == b"half an ob"


def test_a_folder_that_may_not_be_listed_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_objects(tmp_path / "in", 2)
    (tmp_path / "in" / "000" / "lost+found").mkdir()
    list_folder = os.scandir

    def refuse(path: Path | int) -> object:
        # Modes stop nobody who is root, as tests may be.
        if isinstance(path, Path) and path.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    with Manifest(tmp_path / "manifest", HEADING) as manifest:
        filling = a_filling(manifest, tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", refuse)
            said = {e.source: e for e in filling.run()}
    assert said["000/lost+found"].status is Status.FAILED
    assert "may not be listed" in said["000/lost+found"].reason
    assert len(digests(tmp_path / "out")) == 2


class _Filling(FolderSource):
    """Fills the disk that it is copied to."""

    def fetch(self, found: Found, to: Path) -> None:
        to.write_bytes(b"half of " + found.name.encode())
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_scratch_disk_is_no_objects_failure(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 3)
    path = tmp_path / "manifest"
    with Manifest(path, HEADING) as manifest:
        source = _Filling(tmp_path / "in")
        filling = replace(a_filling(manifest, tmp_path), source=source)
        with pytest.raises(OSError, match="No space left"):
            list(filling.run())
    assert entries(path) == []


class _Mistaken(FolderSource):
    """Hands out another object than the first that it lists."""

    def listing(self) -> Iterator[Found]:
        for number, found in enumerate(super().listing()):
            yield found._replace(sop_instance_uid=f"1.2.3.{100_000 + number}")

    def fetch(self, found: Found, to: Path) -> None:
        name = found.name.replace("00000.dcm", "00001.dcm")
        super().fetch(Found(name), to)


def test_what_was_not_asked_for_is_not_taken_for_it(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 2)
    with Manifest(tmp_path / "manifest", HEADING) as manifest:
        source = _Mistaken(tmp_path / "in")
        other, right = replace(a_filling(manifest, tmp_path), source=source).run()
    assert (other.status, right.status) == (Status.FAILED, Status.PASSED)
    assert other.reason == "what came is not the object that was asked for"
    assert list(digests(tmp_path / "out")) == ["000/00001.dcm"]


class _Slow(FolderSource):
    """Takes a second an object."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder)
        self._clock = clock

    def fetch(self, found: Found, to: Path) -> None:
        super().fetch(found, to)
        self._clock.at += 1


@pytest.mark.parametrize(("ahead", "left_s"), [(0, 2.5), (3, 2.5), (3, 1.5)])
def test_no_original_lies_in_the_scratch_folder_until_the_hours_begin(
    tmp_path: Path, ahead: int, left_s: float
) -> None:
    small_objects(tmp_path / "in", 5)
    clock, lying = Clock(), list[int]()
    clock.at += 6 * 3600 - left_s

    def sleep(seconds: float) -> bool:
        if seconds:
            lying.append(len(digests(tmp_path / "scratch")))
        return clock.sleep(seconds)

    hours = Hours.of(("Mon 12:00-18:00", "Mon 19:00-20:00"), "UTC")
    path = tmp_path / "manifest"
    with Manifest(path, HEADING) as manifest:
        filling = replace(
            a_filling(manifest, tmp_path),
            source=_Slow(tmp_path / "in", clock),
            pacing=a_pacing(clock, hours=hours, sleep=sleep),
            batch=2,
            ahead=ahead,
        )
        list(filling.run())
    require_done_once(path, tmp_path / "in", tmp_path / "out")
    assert set(lying) == {0}


@pytest.mark.parametrize(
    "pace", [{"objects_per_s": 0.1}, {"bytes_per_s": 100.0}], ids=["objects", "bytes"]
)
def test_what_is_begun_ahead_is_finished_before_a_slow_pace_is_kept(
    tmp_path: Path, pace: dict[str, float]
) -> None:
    small_objects(tmp_path / "in", 8)
    clock, lying = Clock(), list[int]()

    def sleep(seconds: float) -> bool:
        lying.append(len(digests(tmp_path / "scratch")))
        return clock.sleep(seconds)

    path = tmp_path / "manifest"
    with Manifest(path, HEADING) as manifest:
        filling = replace(
            a_filling(manifest, tmp_path),
            pacing=a_pacing(clock, sleep=sleep, **pace),
            batch=2,
            ahead=3,
        )
        list(filling.run())
    require_done_once(path, tmp_path / "in", tmp_path / "out")
    assert max(lying) <= 2


@pytest.mark.parametrize(
    ("size", "is_late"), [(100, False), (1100, False), (2000, True)]
)
def test_a_pace_has_the_next_wait_or_not(size: int, *, is_late: bool) -> None:
    clock = Clock()
    pacing = a_pacing(clock, bytes_per_s=1000.0)
    assert pacing.begin()
    began = clock.at
    assert pacing.is_late(size) is is_late
    assert pacing.spend(size)
    assert (clock.at - began > 1.0) is is_late


class _Apart:
    """Begins with files at once, and finishes them when it is asked for outcomes."""

    def __init__(self) -> None:
        self.begun = self.finished = self.most = self.largest = 0

    def __call__(self, todo: Sequence[Task]) -> Iterator[Outcome]:
        self.begun += 1
        self.most = max(self.most, self.begun - self.finished)
        self.largest = max(self.largest, len(todo))
        return self._finish(todo)

    def _finish(self, todo: Sequence[Task]) -> Iterator[Outcome]:
        yield from passed(todo)
        self.finished += 1


def test_batches_are_begun_while_others_work_on_the_first(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 20)
    path, work = tmp_path / "manifest", _Apart()
    with Manifest(path, HEADING) as manifest:
        run = replace(a_filling(manifest, tmp_path), work=work, batch=2, ahead=3).run()
        names = [next(run).source]
        assert (work.begun, work.finished) == (4, 0)
        names += [entry.source for entry in run]
    assert names == sorted(names)
    assert (work.most, work.begun) == (4, 10)
    require_done_once(path, tmp_path / "in", tmp_path / "out")


def test_what_was_begun_and_not_finished_is_done_by_the_next_run(
    tmp_path: Path,
) -> None:
    small_objects(tmp_path / "in", 20)
    path = tmp_path / "manifest"
    for _ in range(3):
        with Manifest(path, HEADING) as manifest:
            one = replace(
                a_filling(manifest, tmp_path), work=_Apart(), batch=2, ahead=3
            )
            run = one.run()
            for _ in range(3):
                next(run)
            run.close()
    with Manifest(path, HEADING) as manifest:
        list(replace(a_filling(manifest, tmp_path), work=_Apart(), ahead=3).run())
    require_done_once(path, tmp_path / "in", tmp_path / "out")


def test_no_more_is_begun_than_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_objects(tmp_path / "in", 20)
    size = (tmp_path / "in" / "000" / "00000.dcm").stat().st_size
    monkeypatch.setattr(filling, "BATCH_BYTES", 4 * size)
    work = _Apart()
    with Manifest(tmp_path / "manifest", HEADING) as manifest:
        run = replace(a_filling(manifest, tmp_path), work=work, batch=2, ahead=3).run()
        list(run)
    # Two that fill it, and the one whose size is known once it has come.
    assert work.most == 3


@pytest.mark.parametrize(
    ("batch", "most", "largest"),
    [(2, 3, 2), (16, 2, 4)],
)
def test_room_is_for_pixels_as_they_are_decoded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    most: int,
    largest: int,
) -> None:
    room = 4 * 256 * 256 * 2
    for number in range(20):
        flat_image(tmp_path / "in" / f"{number:02}.dcm", number, rows=256)
    size = (tmp_path / "in" / "00.dcm").stat().st_size
    assert 20 * size < room
    monkeypatch.setattr(filling, "BATCH_BYTES", room)
    work, path = _Apart(), tmp_path / "manifest"
    with Manifest(path, HEADING) as manifest:
        one = a_filling(manifest, tmp_path)
        list(replace(one, work=work, batch=batch, ahead=3).run())
    assert (work.most, work.largest) == (most, largest)
    require_done_once(path, tmp_path / "in", tmp_path / "out")


class _Flaky(FolderSource):
    """Does not answer the first time that it is asked for each object."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: set[str] = set()

    def fetch(self, found: Found, to: Path) -> None:
        if found.name not in self.asked:
            self.asked.add(found.name)
            to.write_bytes(b"half of it")
            raise SourceError("it does not answer")
        super().fetch(found, to)


def test_a_source_is_asked_again_after_a_while(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 2)
    clock = Clock()
    path = tmp_path / "manifest"
    with Manifest(path, HEADING) as manifest:
        filling = Filling(
            source=_Flaky(tmp_path / "in"),
            target=FolderTarget(tmp_path / "out"),
            manifest=manifest,
            work=passed,
            compare=lambda *_: None,
            sample=Sample(0.0, b""),
            pacing=a_pacing(clock),
            scratch=tmp_path / "scratch",
        )
        list(filling.run())
    require_done_once(path, tmp_path / "in", tmp_path / "out")
    assert clock.at == 1002.0


class _Damaged(FolderSource):
    """Has trouble with one object, each time; or with all, itself included."""

    is_there = True

    def fetch(self, found: Found, to: Path) -> None:
        if found.name == "000/00000.dcm" or not self.is_there:
            raise SourceError("it answers 500")
        super().fetch(found, to)

    def require_there(self) -> None:
        if not self.is_there:
            raise SourceError("it is away")


def test_an_object_that_never_comes_stops_no_other(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 3)
    source = _Damaged(tmp_path / "in")
    with Manifest(tmp_path / "manifest", HEADING) as manifest:
        filling = replace(a_filling(manifest, tmp_path), source=source)
        said = {entry.source: entry for entry in filling.run()}
        assert said["000/00000.dcm"].status is Status.FAILED
        assert "it answers 500" in said["000/00000.dcm"].reason
        assert len(digests(tmp_path / "out")) == 2
        source.is_there = False
        with pytest.raises(SourceError, match="away"):
            list(filling.run())


class _BreakingOff(FolderSource):
    """Lists two more each time, and breaks."""

    listed = 0

    def listing(self) -> Iterator[Found]:
        self.listed += 2
        for number, found in enumerate(super().listing()):
            if number == self.listed:
                raise SourceError("it breaks off")
            yield found


def test_a_source_that_breaks_off_while_it_lists_is_asked_anew(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 7)
    path, source = tmp_path / "manifest", _BreakingOff(tmp_path / "in")
    with Manifest(path, HEADING) as manifest:
        manifest.add(Entry(source="000/00001.dcm", status=Status.FAILED))
        filling = replace(a_filling(manifest, tmp_path), source=source)
        assert len(list(filling.run())) == 7
    require_done_once(path, tmp_path / "in", tmp_path / "out")
    source.listed = -2
    with (
        Manifest(path, HEADING) as manifest,
        pytest.raises(SourceError, match="breaks off"),
    ):
        list(replace(a_filling(manifest, tmp_path), source=source).run())


@pytest.mark.parametrize(
    "name", ["", "/a", "a//b", "../a", "a/./b", "a/..", "a\0", "a\nb"]
)
def test_no_name_leads_elsewhere(name: str) -> None:
    with pytest.raises(BackfillError, match="cannot be that of a file"):
        plain(name)


def test_what_is_handed_to_a_node_lies_in_its_hatch(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 2)
    target = HatchTarget(Hatch(name="archive", folder=tmp_path / "hatch"))
    assert target.waiting() == 0
    for path in sorted((tmp_path / "in").rglob("*.dcm")):
        target.put("a name", path)
    assert target.waiting() == 2
    handed = {p.read_bytes() for p in (tmp_path / "hatch").glob("*.dcm")}
    assert handed == {p.read_bytes() for p in (tmp_path / "in").rglob("*.dcm")}


@pytest.mark.parametrize("pair", [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")])
def test_source_and_target_lie_apart(pair: tuple[str, str]) -> None:
    require_apart("/a", "/ab")
    with pytest.raises(BackfillError, match="lie in one another"):
        require_apart(*pair)
