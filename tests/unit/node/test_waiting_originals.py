"""Which originals stay in memory, how long, and who they are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from dicom_node.instance import Identity
from dicom_node.queue.job import Job
from dicom_node.spool import Spool
from dicom_node.waiting_originals import KEPT, WaitingOriginals
from tests.archives import IMAGES
from tests.conftest import opened
from tests.fleet import NOON

A_MOMENT = timedelta(seconds=1)


@dataclass
class _Job:
    id: int
    filtered: str | None = None


@dataclass
class Waiting:
    """Originals in a spool, and a clock that is put on."""

    spool: Spool
    at: datetime = NOON
    originals: WaitingOriginals = field(init=False)

    def __post_init__(self) -> None:
        self.originals = WaitingOriginals(self.spool, lambda: self.at)

    def kept(self, number: int) -> Job:
        """Keep an original; return its job, as it is sent."""
        name = self.spool.write([b"an original"], lasts=False)
        job = cast("Job", _Job(number, name))
        self.originals.keep(job, name)
        return job

    def holds(self, job: Job) -> bool:
        assert job.filtered is not None
        return self.spool.holds(job.filtered)


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    return Waiting(Spool(tmp_path / "spool"))


def never() -> Identity:
    raise AssertionError("it is known, and was read")


def test_what_nobody_is_at_is_let_go_and_what_somebody_took_up_again_stays(
    waiting: Waiting,
) -> None:
    left, resumed = waiting.kept(1), waiting.kept(2)
    waiting.originals.let_be([left, resumed])
    waiting.originals.begin(resumed)
    waiting.at += KEPT
    waiting.originals.tend()
    assert waiting.holds(left)
    waiting.at += A_MOMENT
    waiting.originals.tend()
    assert not waiting.holds(left)
    assert not waiting.originals.has(left)
    assert waiting.holds(resumed)
    assert waiting.originals.has(resumed)


def test_it_is_let_go_a_while_after_the_first_who_left_it(waiting: Waiting) -> None:
    job = waiting.kept(1)
    waiting.originals.let_be([job])
    waiting.at += KEPT
    waiting.originals.let_be([job])
    waiting.at += A_MOMENT
    waiting.originals.tend()
    assert not waiting.holds(job)


def test_what_is_settled_is_let_go_at_once(waiting: Waiting) -> None:
    job, other = waiting.kept(1), waiting.kept(2)
    waiting.originals.forget(job)
    assert not waiting.holds(job)
    assert waiting.holds(other)


def test_what_another_process_restored_is_not_here(waiting: Waiting) -> None:
    assert not waiting.originals.has(cast("Job", _Job(1, "elsewhere")))
    assert not waiting.originals.has(cast("Job", _Job(1)))
    job = waiting.kept(1)
    assert waiting.originals.has(job)
    assert waiting.originals.taken(job) == job.filtered
    assert not waiting.originals.has(job)


def test_what_was_noted_of_one_that_came_to_nothing_is_forgotten_too(
    waiting: Waiting,
) -> None:
    job, image = cast("Job", _Job(1)), opened(IMAGES / "ct.dcm")
    waiting.originals.note_study(job, "1.2.3")
    waiting.originals.let_be([job])
    waiting.at += KEPT + A_MOMENT
    waiting.originals.tend()
    assert waiting.originals.identity(job, image.identity) == image.identity()


def test_it_is_who_was_restored_in_the_study_that_the_ledger_knows(
    waiting: Waiting,
) -> None:
    job, image = waiting.kept(1), opened(IMAGES / "ct.dcm")
    waiting.originals.note_study(job, "1.2.3")
    waiting.originals.note_restored(job, image.file)
    expected = replace(image.identity(), study_instance_uid="1.2.3")
    assert waiting.originals.identity(job, never) == expected
    # A retry reads it, and the ledger's study stands however often.
    assert waiting.originals.identity(job, image.identity) == expected
    waiting.originals.forget(job)
    assert waiting.originals.identity(job, image.identity) == image.identity()
