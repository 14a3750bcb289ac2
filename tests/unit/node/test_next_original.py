"""One job is made ready ahead, and what comes of it is told when its time comes."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from dicom_node.destination import Destination
from dicom_node.errors import FilterError, NotGrantedError
from dicom_node.next_original import Known, NextOriginal, NotNowError
from dicom_node.outgoing import Receiver
from dicom_node.queue.job import Job
from tests.unit.node.test_working_bench import a_job

LONG_S = 60.0
TO = "pacs"


def ready(job: Job) -> Job:
    return replace(job, filtered="made")


def test_it_is_made_by_another_while_whoever_wants_it_does_something_else() -> None:
    ahead, gate, by = NextOriginal("one"), threading.Event(), list[int]()

    def make(job: Job) -> Job:
        assert gate.wait(LONG_S)
        by.append(threading.get_ident())
        return ready(job)

    ahead.begin(a_job(1), TO, make)
    gate.set()
    assert ahead.taken(a_job(1), TO) == ready(a_job(1))
    assert by != [threading.get_ident()]
    assert not ahead.is_busy
    assert ahead.taken(a_job(1), TO) is None


def test_what_went_wrong_is_raised_when_its_time_comes() -> None:
    ahead = NextOriginal("one")

    def fails(_: Job) -> Job:
        raise FilterError("odd")

    ahead.begin(a_job(1), TO, fails)
    with pytest.raises(FilterError, match="odd"):
        ahead.taken(a_job(1), TO)
    ahead.begin(a_job(2), TO, ready)
    assert ahead.taken(a_job(2), TO) == ready(a_job(2))


def test_what_cannot_be_made_now_is_made_in_its_time() -> None:
    ahead = NextOriginal("one")

    def not_now(_: Job) -> Job:
        raise NotNowError

    ahead.begin(a_job(1), TO, not_now)
    assert ahead.taken(a_job(1), TO) is None
    assert not ahead.is_busy


@pytest.mark.parametrize("is_well", [True, False])
def test_what_was_made_for_one_destination_is_not_anothers(*, is_well: bool) -> None:
    ahead = NextOriginal("one")

    def make(job: Job) -> Job:
        if is_well:
            return ready(job)
        raise NotGrantedError("not that one")

    ahead.begin(a_job(1), "first", make)
    assert ahead.taken(a_job(1), "second") is None
    assert not ahead.is_busy


def test_its_thread_ends_with_it() -> None:
    ahead = NextOriginal("one that ends")
    ahead.begin(a_job(1), TO, ready)
    ahead.clear()
    assert "one that ends ahead" in {one.name for one in threading.enumerate()}
    ahead.close()
    assert "one that ends ahead" not in {one.name for one in threading.enumerate()}


def test_nobody_takes_what_was_made_for_another() -> None:
    ahead = NextOriginal("one")
    ahead.begin(a_job(2), TO, ready)
    assert ahead.taken(a_job(1), TO) is None
    assert ahead.taken(a_job(2), TO) == ready(a_job(2))


def test_what_was_made_is_let_be() -> None:
    ahead, over = NextOriginal("one"), list[int]()

    def make(job: Job) -> Job:
        over.append(job.id)
        return ready(job)

    ahead.begin(a_job(1), TO, make)
    ahead.clear()
    assert over == [1]
    assert ahead.taken(a_job(1), TO) is None


def test_who_is_known_is_known_for_one_kind_of_object() -> None:
    destination = Destination(name="pacs", ae_title="PACS", host="h", port=104)
    receiver = Receiver(ae_title="PACS", address="h:104", fingerprint="")
    known = Known(destination, receiver, ("1.2", "1.3"))
    assert known.receiver("1.2", "1.3") == receiver
    for kind in (("1.2", "1.4"), ("1.1", "1.3")):
        with pytest.raises(NotNowError):
            known.receiver(*kind)
