"""What a server adds: others who write at once, a network, and new starts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from dicom_node.audit import Audit
from dicom_node.commitment import Reference, Request
from dicom_node.config import Config, Listener
from dicom_node.demo.loopback import await_that, make_certificate
from dicom_node.destination import Destination
from dicom_node.errors import ConfigError, ServerError, UnsureError
from dicom_node.postgres import Server
from dicom_node.postgres_schema import VERSION, bring_up
from dicom_node.queue.arrival import Arrival, Owed, Taken
from dicom_node.queue.history import Search
from dicom_node.queue.job import JobState, Lane
from dicom_node.queue.neighbours import Neighbours
from dicom_node.queue.order import Order
from dicom_node.queue.postgres import PostgresQueue
from dicom_node.queue.postgres_commitments import PostgresCommitments
from dicom_node.queue.postgres_history import PostgresHistory
from dicom_node.queueing import Queueing
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from tests.postgres_server import PostgresServer
from tests.workers import worker_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TO = [Owed("research", "pacs")]
SOON = timedelta(minutes=1)
T = TypeVar("T")


def arrival(number: int = 1, digest: bytes = b"d") -> Arrival:
    return Arrival(f"1.2.{number}", digest, f"{number}-{digest.hex()}.dcm", "1.2")


@pytest.fixture
def queue(place: Queueing) -> Iterator[PostgresQueue]:
    with closing(PostgresQueue(place, node="one")) as queue:
        yield queue


@pytest.fixture
def other(place: Queueing) -> Iterator[PostgresQueue]:
    with closing(PostgresQueue(place, node="other")) as queue:
        yield queue


def asked(place: Queueing, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(place.database, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def await_waiting(place: Queueing) -> None:
    """Return once somebody waits for somebody else."""
    await_that(
        lambda: bool(
            asked(
                place,
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'",
            )
        ),
        "somebody to wait",
        within=SOON,
    )


@contextmanager
def beside(work: Callable[[], T]) -> Iterator[Future[T]]:
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(work)


# Others who write at once.


def test_nobody_claims_what_another_has(place: Queueing, queue: PostgresQueue) -> None:
    for number in range(60):
        queue.add(arrival(number), TO, NOON)
    together = threading.Barrier(4)

    def work(number: int) -> list[int]:
        done = []
        with closing(PostgresQueue(place, node=f"node {number}")) as mine:
            together.wait()
            while (job := mine.claim(NOON, MINUTE)) is not None:
                jobs = [job, *mine.claim_more(job, NOON, MINUTE, 3)]
                assert all(mine.sent(jobs, NOON))
                done += [one.id for one in jobs]
        return done

    with ThreadPoolExecutor(4) as threads:
        done = [one for each in threads.map(work, range(4)) for one in each]
    assert sorted(done) == list(range(1, 61))
    (tally,) = queue.tallies(NOON)
    assert tally.is_exact
    assert (tally.received, tally.sent) == (60, 60)


@pytest.mark.parametrize("digests", [[b"d"] * 6, [bytes([n]) for n in range(6)]])
def test_of_those_that_come_at_once_one_is_first(
    place: Queueing, queue: PostgresQueue, digests: list[bytes]
) -> None:
    together = threading.Barrier(6)

    def add(digest: bytes) -> Taken:
        with closing(PostgresQueue(place)) as mine:
            together.wait()
            return mine.add(arrival(1, digest), TO, NOON)

    with ThreadPoolExecutor(6) as threads:
        taken = Counter(threads.map(add, digests))
    others = Taken.KNOWN if len(set(digests)) == 1 else Taken.CLASHING
    assert taken == {Taken.OWED: 1, others: 5}
    assert len(queue.files()) == len(set(digests))


def test_a_file_is_not_forgotten_under_the_eyes_of_who_brings_it_again(
    place: Queueing, queue: PostgresQueue, other: PostgresQueue
) -> None:
    queue.add(arrival(), TO, NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.sent([job], NOON)
    again = arrival()._replace(file="again.dcm")
    with queue._transaction():
        queue._all("hold_instance", id=job.instance_id)
        with beside(lambda: other.add(again, TO, NOON)) as adding:
            await_waiting(place)
            assert not adding.done()
            assert queue._all("done_files", id=job.instance_id)
            queue._all("forget_filtered", id=job.instance_id)
            queue._all("forget_instance", id=job.instance_id)
            queue._server.execute("COMMIT")
            assert adding.result() is Taken.OWED
        queue._server.execute("BEGIN")
    assert queue.files() == {"again.dcm"}


def test_the_other_way_round_it_stays(
    place: Queueing, queue: PostgresQueue, other: PostgresQueue
) -> None:
    queue.add(arrival(), TO, NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.sent([job], NOON)
    with other._transaction():
        # As far as adding the same bytes for another route goes.
        values = arrival()._asdict()
        other._alone_with(f"instance {values['sop_instance_uid']}")
        assert other._all("find_same", **values) == [(1, "1-64.dcm")]
        with beside(queue.forget_sent) as forgetting:
            await_waiting(place)
            other._all(
                "add_job",
                instance_id=1,
                study_instance_uid="1.2",
                route="another",
                destination="pacs",
                priority=0,
                lane="filter",
                state="waiting",
                now="2026",
                reason="",
                marks=False,
            )
            other._server.execute("COMMIT")
            assert forgetting.result() == []
        other._server.execute("BEGIN")
    assert queue.files() == {"1-64.dcm"}


def test_another_node_makes_no_second_object_for_another_destination(
    queue: PostgresQueue, other: PostgresQueue
) -> None:
    to = [Owed("research", "pacs"), Owed("research", "cloud"), Owed("else", "pacs")]
    queue.add(arrival(), to, NOON)
    queue.add(arrival(2), to[:2], NOON)
    mine = queue.claim(NOON, MINUTE)
    assert mine is not None
    theirs = [other.claim(NOON, MINUTE) for _ in range(5)]
    found = [(job.instance_id, job.route, job.destination) for job in theirs if job]
    assert (1, "research", "pacs") not in found
    assert (1, "research", mine.destination) not in found
    assert len(found) == 3  # the other route, and the other instance
    # Once it is made, it is for all.
    assert queue.keep_filtered(mine, "marked.dcm", "mark pacs")
    job = other.claim(NOON, MINUTE)
    assert job is not None
    assert other.adopt(job, "mark cloud") == "marked.dcm"
    # What a node does whose lease has run out stands in nobody's way.
    late = queue.claim(NOON + 2 * MINUTE, MINUTE)
    assert late is not None


def test_whoever_is_overtaken_in_that_moment_may_not_send_an_original(
    place: Queueing, queue: PostgresQueue
) -> None:
    queue.add(arrival(), TO, NOON)
    assert queue.break_glass(1, Order("Dr. Who", "trauma", NOON))
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    with psycopg.connect(place.database) as taking_over:
        taking_over.execute("UPDATE job SET claim = claim + 1")
        with beside(lambda: queue.bind(job, "member")) as bound:
            await_waiting(place)
            taking_over.commit()
            assert not bound.result()
    assert asked(place, "SELECT receiver FROM glass") == [("",)]


def test_a_node_puts_back_its_own_claims_only(
    queue: PostgresQueue, other: PostgresQueue
) -> None:
    for number in range(4):
        queue.add(arrival(number), TO, NOON)
    mine, theirs = queue.claim(NOON, MINUTE), other.claim(NOON, MINUTE)
    assert mine is not None
    assert theirs is not None
    assert queue.release_claims(NOON, suspects=[mine.id, theirs.id]) == 1
    assert other.sent([theirs], NOON) == [True]
    again = queue.claim(NOON, MINUTE)
    assert again is not None
    assert (again.id, again.crashes) == (mine.id, 1)


def test_a_node_writes_down_its_own_batches_only(
    queue: PostgresQueue, other: PostgresQueue
) -> None:
    queue.add(arrival(), TO, NOON)
    later = NOON + MINUTE
    assert queue.notes().take("b1", later, later)
    assert not other.notes().take("b2", later, later)
    assert other.notes().taken() is None
    taken = queue.notes().taken()
    assert taken is not None
    assert (taken[0], [note.instances for note in taken[1]]) == ("b1", [1])


def test_a_study_is_complete_once(
    place: Queueing, queue: PostgresQueue, other: PostgresQueue
) -> None:
    from dicom_node.queue.study import Gathering

    waiting = [TO[0]._replace(gathering=Gathering(MINUTE))]
    together = threading.Barrier(6)

    def add(number: int) -> None:
        with closing(PostgresQueue(place)) as mine:
            together.wait()
            mine.add(arrival(number), waiting, NOON)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(add, range(6)))
    (study,) = queue.gathering()
    assert study.arrived == 6
    with ThreadPoolExecutor(2) as threads:
        later = NOON + 2 * MINUTE
        found = [threads.submit(one.complete_studies, later) for one in (queue, other)]
        assert sum(len(one.result()) for one in found) == 1
    assert queue.claim(later, MINUTE) is not None


def test_counts_are_put_together_while_others_count(
    place: Queueing, queue: PostgresQueue
) -> None:
    over = threading.Event()

    def fold() -> None:
        with closing(PostgresQueue(place)) as folding:
            while not over.is_set():
                folding._fold()

    with beside(fold) as folding:
        for number in range(80):
            queue.add(arrival(number), TO, NOON)
            job = queue.claim(NOON, MINUTE)
            assert job is not None
            queue.sent([job], NOON)
            (tally,) = queue.tallies(NOON)
            assert tally.is_exact, tally
        over.set()
        folding.result()
    queue._fold()
    assert asked(place, "SELECT count(*) FROM total_part") == [(4,)]
    with closing(PostgresHistory(place)) as history:
        events = {event.what: event.times for event in history.events()}
    assert (events["received"], events["owed"]) == (80, 80)


# What people are shown.


def test_people_are_shown_what_happened(place: Queueing, queue: PostgresQueue) -> None:
    for number in range(1, 5):
        one = arrival(number)._replace(calling_ae_title=f"CT{number % 2}")
        queue.add(one, TO, NOON)
    jobs = [queue.claim(NOON, MINUTE) for _ in range(3)]
    first, second, third = (job for job in jobs if job is not None)
    queue.keep_filtered(first, "marked.dcm", "mark pacs")
    queue.sent([first], NOON)
    queue.hold(second, "flat")
    queue.retry(third, NOON, "unreachable")
    queue.break_glass(third.id, Order("Who", "why", NOON))
    with closing(PostgresHistory(place)) as history:
        stands = {stand.state: stand.jobs for stand in history.stands()}
        assert stands == {"sent": 1, "held": 1, "waiting": 2}
        assert history.oldest() == {("research", "pacs"): NOON}
        assert history.pace(NOON) == {
            "received": {"2026-01-01T12:0": 4},
            "sent": {"2026-01-01T12:0": 1},
        }
        whats = [step.what for step in history.steps(first.instance_id)]
        assert whats == ["received", "owed", "begun", "ready", "sent"]
        for search, wanted in (
            (Search(), [4, 3, 2, 1]),
            (Search(uid="1.2.2"), [2]),
            (Search(calling_ae_title="CT1"), [3, 1]),
            (Search(state="held"), [2]),
            (Search(route="research", destinations=("pacs", "x")), [4, 3, 2, 1]),
            (Search(state="sent", route="research"), [1]),
        ):
            assert [seen.id for seen in history.found(search, 9)] == wanted
            older = [n for n in wanted if n < 3]
            assert [seen.id for seen in history.found(search, 9, 3)] == older
        seen = history.job(1)
        assert seen is not None
        assert (seen.received, seen.state, seen.file) == (NOON, "sent", "1-64.dcm")
        assert len(history.study("1.2", 9)) == 4


# The tables.


def test_of_many_that_begin_at_once_one_makes_the_tables(
    postgres: PostgresServer,
) -> None:
    postgres.execute("CREATE DATABASE empty")
    place = Queueing(database=postgres.address("empty"))
    try:
        with ThreadPoolExecutor(4) as threads:
            for queue in threads.map(lambda _: PostgresQueue(place), range(4)):
                queue.close()
        versions = asked(place, "SELECT version FROM schema_version ORDER BY 1")
        assert versions == [(number,) for number in range(1, VERSION + 1)]
    finally:
        postgres.drop(place)


def test_what_a_later_version_has_made_is_left_alone(place: Queueing) -> None:
    asked(place, "INSERT INTO schema_version VALUES (999)")
    with pytest.raises(ConfigError, match="version 999"):
        PostgresQueue(place)


def test_a_version_is_made_whole_or_not_at_all(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE DATABASE half")
    place = Queueing(database=postgres.address("half"))
    try:
        monkeypatch.setattr(
            "dicom_node.postgres_schema._SCRIPTS", ("queue", "ledger", "queue")
        )
        with Server(place) as server, pytest.raises(ServerError, match="exists"):
            bring_up(server)
        found = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert asked(place, found) == [(0,)]
        monkeypatch.undo()
        PostgresQueue(place).close()
    finally:
        postgres.drop(place)


# The network, and the server.


def by_tls(postgres: PostgresServer, place: Queueing, **more: str) -> Queueing:
    name = place.database.split("@/")[1].split("?", maxsplit=1)[0]
    address = postgres.tls_address(name)
    for old, new in more.items():
        address = address.replace(f"{old}=", f"{old}={new}&was=")
    return Queueing(database=address, password_file=postgres.password_file)


def test_a_server_is_known_by_its_certificate_and_knows_the_password(
    postgres: PostgresServer, place: Queueing, tmp_path: Path
) -> None:
    secured = by_tls(postgres, place)
    assert secured.is_protected
    with closing(PostgresQueue(secured)) as queue:
        queue.add(arrival(), TO, NOON)
        seen = asked(place, "SELECT ssl FROM pg_stat_ssl WHERE ssl")
        assert seen == [(True,)]
    make_certificate(tmp_path, "another")
    stranger = secured.database.replace(
        str(postgres.ca), str(tmp_path / "another-cert.pem")
    )
    with pytest.raises(ServerError, match="certificate"):
        PostgresQueue(replace(secured, database=stranger))
    (tmp_path / "wrong").write_text("a wrong secret")
    wrong = replace(secured, password_file=tmp_path / "wrong")
    with pytest.raises(ServerError, match="password authentication failed") as found:
        PostgresQueue(wrong)
    assert "a wrong secret" not in f"{found.value} {found.value.hint}"
    with pytest.raises(ConfigError, match="cannot be read"):
        PostgresQueue(replace(secured, password_file=tmp_path / "none"))


def test_a_queue_goes_on_once_its_server_is_back(
    postgres: PostgresServer, queue: PostgresQueue
) -> None:
    queue.add(arrival(1), TO, NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    postgres.stop()
    with pytest.raises(ServerError):
        queue.add(arrival(2), TO, NOON)
    postgres.start()
    assert queue.sent([job], NOON) == [True]
    assert queue.add(arrival(2), TO, NOON) is Taken.OWED
    assert queue.counts()[JobState.WAITING] == 1


def test_what_was_begun_when_the_server_died_is_not_half_done(
    postgres: PostgresServer, queue: PostgresQueue
) -> None:
    queue.add(arrival(1), TO, NOON)

    def half() -> None:
        with queue._transaction():
            queue._all("add_instance", **arrival(2)._asdict(), now="2026")
            postgres.restart()
            queue._all("find_same", **arrival(2)._asdict())

    with pytest.raises(ServerError):
        half()
    assert queue.files() == {"1-64.dcm"}
    assert queue.add(arrival(2), TO, NOON) is Taken.OWED


def test_who_goes_on_after_it_broke_has_done_nothing(queue: PostgresQueue) -> None:
    def half() -> None:
        with queue._transaction():
            queue._server.close()
            with suppress(ServerError):
                queue._all("add_instance", **arrival()._asdict(), now="2026")

    with pytest.raises(ServerError, match="went away"):
        half()
    assert queue.files() == set()


def test_who_is_cut_off_while_it_commits_does_not_know(
    place: Queueing, queue: PostgresQueue
) -> None:
    asked(
        place,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(300); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON instance DEFERRABLE"
        " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query = 'COMMIT'"
        " AND state = 'active'"
    )
    with beside(lambda: queue.add(arrival(), TO, NOON)) as adding:
        await_that(lambda: bool(asked(place, cut)), "a commit", within=SOON)
        with pytest.raises(UnsureError):
            adding.result()
    asked(place, "DROP TRIGGER slow ON instance")
    assert queue.add(arrival(), TO, NOON) is Taken.OWED


# The nodes of one database.


def node(
    place: Queueing, name: str, files: Path, gone_after_s: float = 0
) -> Neighbours:
    return Neighbours(place, name, files, clock=lambda: NOON, gone_after_s=gone_after_s)


def test_without_a_shared_folder_there_is_one_node(
    place: Queueing, tmp_path: Path
) -> None:
    with (
        closing(node(place, "one", tmp_path / "files")) as one,
        closing(node(place, "two", tmp_path / "files")) as two,
        closing(node(place, "three", tmp_path / "others")) as three,
    ):
        one.join()
        with pytest.raises(ConfigError, match="another node works off"):
            two.join(0)
        with pytest.raises(ConfigError, match="do not lie in"):
            three.join()
        with (
            closing(node(place, "one", tmp_path / "files")) as copy,
            pytest.raises(ConfigError, match="runs already"),
        ):
            copy.join(0)
        one.close()
        two.join()  # it has taken its place


def test_nodes_have_to_see_the_same_folder(place: Queueing, tmp_path: Path) -> None:
    place = replace(place, shared=tmp_path)
    with (
        closing(node(place, "one", tmp_path / "files")) as one,
        closing(node(place, "two", tmp_path / "files")) as two,
        closing(node(place, "three", tmp_path / "copy")) as three,
    ):
        one.join()
        two.join()
        # A copy of the folder is not the folder.
        (tmp_path / "copy" / "nodes").mkdir(parents=True)
        for name in ("queue.id", "nodes/two"):
            copied = (tmp_path / "files" / name).read_bytes()
            (tmp_path / "copy" / name).write_bytes(copied)
        with pytest.raises(ConfigError, match="does not see"):
            three.join()


def test_what_a_node_that_is_gone_had_claimed_is_taken_up(
    place: Queueing, queue: PostgresQueue, other: PostgresQueue, tmp_path: Path
) -> None:
    place = replace(place, shared=tmp_path)
    with (
        closing(node(place, "one", tmp_path)) as one,
        closing(node(place, "other", tmp_path)) as two,
    ):
        one.join()
        two.join()
        queue.add(arrival(), TO, NOON)
        job = other.claim(NOON, timedelta(days=1))
        assert job is not None
        assert one.tend() == 0  # it is there
        two.close()
        assert queue.claim(NOON, MINUTE) is None
        # The server has been there for longer than nobody has seen it.
        assert one.tend() == 1
        again = queue.claim(NOON, MINUTE)
        assert again is not None
        assert (again.id, again.attempts) == (job.id, 2)
        assert other.sent([job], NOON) == [False]
        assert queue.sent([again], NOON) == [True]


def test_nodes_see_that_they_go_by_different_routes(
    place: Queueing, tmp_path: Path
) -> None:
    place = replace(place, shared=tmp_path)
    with (
        closing(node(place, "one", tmp_path)) as one,
        closing(node(place, "other", tmp_path)) as two,
    ):
        for each, rules in ((one, "a"), (two, "b")):
            each.join()
            each.goes_by(rules)
            each.tend()
        one.tend()
        assert (one.differ, two.differ) == (True, True)
        two.goes_by("a")
        two.tend()
        one.tend()
        assert (one.differ, two.differ) == (False, False)
        two.goes_by("c")
        two.tend()
        two.close()  # who is gone goes by nothing
        await_that(lambda: one.tend() == 0 and not one.differ, "one", within=SOON)


def test_what_one_node_is_to_mark_no_other_passes(
    place: Queueing, tmp_path: Path
) -> None:
    place, marks = (
        replace(place, shared=tmp_path),
        [Owed("research", "pacs", marks=True)],
    )
    with (
        closing(PostgresQueue(place, node="one", lane=Lane.FILTER)) as marking,
        closing(PostgresQueue(place, node="two", passed=["research"])) as passing,
    ):
        passing.add(arrival(1), TO, NOON)
        marking.add(arrival(1), marks, NOON)  # the same again, to be marked
        marking.add(arrival(2), marks, NOON)
        passing.assign()  # as when it starts
        assert passing.claim(NOON, MINUTE) is None
        passing.add(arrival(3), TO, NOON)
        passed = passing.claim(NOON, MINUTE)
        assert passed is not None
        assert passed.sop_instance_uid == arrival(3).sop_instance_uid
        assert passing.claim_more(passed, NOON, MINUTE, 9) == []
        marked = [marking.claim(NOON, MINUTE), marking.claim(NOON, MINUTE)]
        assert all(job is not None and job.marks for job in marked)
    # Where one works alone, what its configuration says now is what is so.
    alone = replace(place, shared=None)
    with closing(PostgresQueue(alone, node="one", passed=["research"])) as queue:
        queue.release_claims(NOON)
        queue.assign()
        assert all(not queue.claim(NOON, MINUTE).marks for _ in range(2))  # type: ignore[union-attr]


@pytest.mark.parametrize("action", [Action.PASS, Action.STRIP])
def test_what_is_to_be_marked_waits_where_its_route_does_not_mark(
    place: Queueing, tmp_path: Path, action: Action
) -> None:
    place = replace(place, shared=tmp_path)
    config = Config(
        node=Listener(state=tmp_path),
        destinations=(Destination(name="pacs", ae_title="A", host="h"),),
        routes=(Route(name="research", destination="pacs", action=action),),
    )
    with closing(PostgresQueue(place, node="one")) as queue:
        worker = worker_of(
            config,
            queue=queue,
            spool=Spool(tmp_path / "spool"),
            audit=Audit(tmp_path / "audit.jsonl", bytes(32), lambda: NOON),
            clock=lambda: NOON,
            folder=tmp_path,
        )
        queue.add(arrival(), [Owed("research", "pacs", marks=True)], NOON)
        assert worker.turn()
        assert queue.counts()[JobState.WAITING] == 1
        told = asked(place, "SELECT reason FROM job")
        assert "was taken in to be marked" in str(told[0][0])


def test_a_peer_is_told_by_one_node(place: Queueing) -> None:
    request = Request("7.1", (Reference("1.9", "1.2.1"),))
    with (
        closing(PostgresCommitments(place, "one")) as one,
        closing(PostgresCommitments(place, "other")) as other,
    ):
        assert one.take("CT", request, NOON, 5)
        asked = one.to_tell("CT", NOON)
        assert asked is not None
        assert other.to_tell("CT", NOON) is None
        one.tell_later(asked, NOON + MINUTE, "nobody there")
        again = other.to_tell("CT", NOON + MINUTE)
        assert again is not None
        assert one.to_tell("CT", NOON + MINUTE) is None
        other.close()  # it has died at it
        await_that(
            lambda: one.to_tell("CT", NOON + MINUTE) == again, "another", within=SOON
        )
        one.told(again)
        assert one.untold() == []


def test_a_node_that_was_only_cut_off_is_there_again(
    place: Queueing, other: PostgresQueue, queue: PostgresQueue, tmp_path: Path
) -> None:
    place = replace(place, shared=tmp_path)
    with (
        closing(node(place, "one", tmp_path, 3600)) as one,
        closing(node(place, "other", tmp_path, 3600)) as two,
    ):
        one.join()
        two.join()
        queue.add(arrival(), TO, NOON)
        assert other.claim(NOON, timedelta(days=1)) is not None
        two.close()
        assert one.tend() == 0  # not for so short a time
        two.tend()
        with closing(node(place, "one", tmp_path)) as hasty:
            one.close()
            assert hasty.tend() == 0
