"""One at a time is at the bench, the most urgent next, and the note says who."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicom_node.bench import Bench
from dicom_node.demo.loopback import await_that
from dicom_node.queue.job import Job


def a_job(number: int, priority: int = 0, instance: int = 0) -> Job:
    return Job(
        id=number,
        instance_id=instance or number,
        sop_instance_uid=f"1.2.{number}",
        file="a.dcm",
        filtered=None,
        purpose=None,
        route="out",
        destination="research",
        study_instance_uid="",
        priority=priority,
        attempts=1,
        claim=1,
        crashes=0,
        faults=0,
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with closing(Bench(tmp_path / "note")) as bench:
        yield bench


class Workers:
    """Threads that want to be at a bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.order = bench, list[int]()
        self.threads: list[threading.Thread] = []

    def come(self, job: Job, *, keeps_instance: bool = False) -> None:
        count = len(self.bench._waiting)

        def work() -> None:
            with self.bench.at(job, keeps_instance=keeps_instance):
                self.order.append(job.id)

        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()
        await_that(
            lambda: len(self.bench._waiting) > count or job.id in self.order,
            "somebody who waits, or has been there",
        )

    def finish(self) -> list[int]:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.order


def test_the_most_urgent_comes_next_and_then_who_waits_longest(bench: Bench) -> None:
    workers = Workers(bench)
    with bench.at(a_job(1)):
        for number, priority in ((2, 0), (3, 0), (4, 9)):
            workers.come(a_job(number, priority))
        assert workers.order == []
    assert workers.finish() == [4, 2, 3]


def test_who_waits_for_others_leaves_it_and_is_back_before_those_who_came_later(
    bench: Bench,
) -> None:
    workers = Workers(bench)
    with bench.at(a_job(1)):
        workers.come(a_job(2))
        with bench.away():
            assert workers.finish() == [2]
        workers.threads.clear()
        workers.come(a_job(3))
        assert workers.order == [2]
    assert workers.finish() == [2, 3]


def test_an_instance_that_is_kept_is_nobody_elses_meanwhile(bench: Bench) -> None:
    workers = Workers(bench)
    with bench.at(a_job(1, instance=7), keeps_instance=True):
        workers.come(a_job(2, instance=7), keeps_instance=True)
        with bench.away():
            passing = Workers(bench)
            passing.come(a_job(3, instance=8), keeps_instance=True)
            assert passing.finish() == [3]
            assert workers.order == []
        assert workers.order == []
    assert workers.finish() == [2]


def test_who_is_not_at_the_bench_leaves_nothing(bench: Bench) -> None:
    with bench.away(), bench.at(a_job(1)):
        pass


class _Death(BaseException):
    """What nothing in a process survives."""


def test_the_note_names_who_was_at_it_when_the_process_died(tmp_path: Path) -> None:
    def found() -> frozenset[int]:
        with closing(Bench(tmp_path / "note")) as bench:
            return bench.suspects

    assert found() == frozenset()
    with closing(Bench(tmp_path / "note")) as bench:
        with bench.at(a_job(5)), closing(Bench(tmp_path / "note")) as other:
            assert other.suspects == {5}
        with bench.at(a_job(6)), bench.away():
            assert found() == frozenset()
        with pytest.raises(ZeroDivisionError), bench.at(a_job(7)):
            raise ZeroDivisionError
        assert found() == frozenset()
        with pytest.raises(_Death), bench.at(a_job(8)):
            raise _Death
    assert found() == {8}
    assert found() == frozenset()  # it is told once


def test_without_a_place_for_the_note_one_works_all_the_same(tmp_path: Path) -> None:
    with closing(Bench(tmp_path / "no folder" / "note")) as bench, bench.at(a_job(1)):
        assert bench.suspects == frozenset()
