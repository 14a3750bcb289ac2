"""A node is emptied into another: every count adds up, and nothing goes on twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from dicom_node.commitment import Reference, Request
from dicom_node.draining import is_draining, require_in_service
from dicom_node.elements import Limits
from dicom_node.emptying import left, pack
from dicom_node.errors import ConfigError, KeyFolderError, LedgerError, SpoolError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.strip import strip
from dicom_node.handover import Packing
from dicom_node.instance import OpenInstance
from dicom_node.keepers import keeper
from dicom_node.keys.sealer import Sealer
from dicom_node.listings import ToList
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.commitments import Sent
from dicom_node.queue.handing import Handing
from dicom_node.queue.job import JobState
from dicom_node.rewrapping import end_epochs
from dicom_node.room import Room
from dicom_node.state import State, opening_with
from dicom_node.taking_over import take
from miadmark_core.search.finder import FoundMark, Wanted
from tests.conftest import miadmark, opened
from tests.emptied import TABLES, Nodes
from tests.fleet import NOON, Site

MINUTE = timedelta(minutes=1)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def test_all_that_is_left_goes_and_the_counts_add_up(nodes: Nodes) -> None:
    for number in range(4):
        nodes.owe(number, "research", "copies")
    queue = nodes.first.queue({"copies"})
    spool = nodes.first.spool(nodes.first.keys().spool)
    held, suspect, ready, sent = (queue.claim(NOON, MINUTE) for _ in range(4))
    assert held is not None
    assert suspect is not None
    assert ready is not None
    assert sent is not None
    queue.hold(held, "too odd")
    queue.quarantine(suspect, "kills")
    made = spool.write([b"what is to be sent"])
    queue.keep_filtered(ready, made, "mark pacs")
    queue.sent([sent], NOON)
    spool.delete(queue.forget_sent([sent]))
    queue.close()
    nodes.begin()
    before = nodes.contents(nodes.first)
    assert nodes.pack() == (4, 7)
    assert nodes.take()[0] == (4, 7, 0)
    _, receipt = nodes.take()
    assert nodes.finish(receipt) == 7
    assert nodes.counts(nodes.first) == {"sent": 1, "dropped": 7}
    assert nodes.contents(nodes.first) == []
    assert nodes.counts(nodes.second) == {"waiting": 5, "held": 1, "quarantined": 1}
    assert nodes.contents(nodes.second) == before
    queue = nodes.second.queue()
    assert [job.reason for job in queue.held()] == ["too odd"]
    assert [job.reason for job in queue.held(JobState.QUARANTINED)] == ["kills"]
    queue.close()


def test_what_cannot_be_read_stays_and_finish_says_so(nodes: Nodes) -> None:
    """What was made of an original that is whole is made again, and is no loss."""
    nodes.owe(1, "copies")
    nodes.owe(2, "research")
    queue = nodes.first.queue({"copies"})
    spool = nodes.first.spool(nodes.first.keys().spool)
    jobs = {}
    while job := queue.claim(NOON, MINUTE):
        jobs[job.sop_instance_uid] = job
    made = spool.write([b"what is to be sent"])
    queue.keep_filtered(jobs["1.2.3.2"], made, "mark pacs")
    queue.close()
    for name in (jobs["1.2.3.1"].file, made):
        spool.path(name).write_bytes(b"")
    nodes.begin()
    config, keys = nodes.config(nodes.first), nodes.first.keys()
    given = pack(nodes.first, config, keys, "n2", nodes.folder)
    assert (given.instances, given.jobs, given.lost) == (1, 1, ("1.2.3.1",))
    counts, receipt = nodes.take()
    assert counts == (1, 1, 0)
    assert nodes.contents(nodes.second) == [b"content of 2"]
    with closing(nodes.second.queue()) as queue:
        job = queue.claim(NOON + 600 * MINUTE, MINUTE)
        assert job is not None
        assert (job.filtered, job.purpose) == (None, None)
    file = nodes.folder / "receipt"
    file.write_bytes(receipt)
    toml = nodes.first.folder.with_suffix(".toml")
    ended = miadmark("drain", "finish", file, "--config", toml)
    assert "1 jobs are the other node's" in ended.stdout
    assert "still owes 1 instances, 1 jobs" in ended.stderr
    assert ended.returncode == 1
    with pytest.raises(ConfigError, match="but for 1 instances"):
        require_in_service(nodes.first.folder)


def test_what_was_taken_is_not_taken_again_whatever_became_of_it(nodes: Nodes) -> None:
    nodes.owe(1, "copies")
    nodes.begin()
    nodes.pack()
    assert nodes.take()[0] == (1, 1, 0)
    queue = nodes.second.queue({"copies"})
    job = queue.claim(NOON + 600 * MINUTE, MINUTE)
    assert job is not None
    queue.sent([job], NOON)
    queue.purge(NOON + 60 * MINUTE)
    queue.close()
    assert nodes.take()[0] == (1, 1, 0)
    assert nodes.counts(nodes.second) == {"sent": 1}


def test_what_the_other_node_has_by_another_way_is_known(nodes: Nodes) -> None:
    nodes.owe(1, "copies", "research")
    nodes.owe(1, "copies", state=nodes.second)
    nodes.begin()
    nodes.pack()
    assert nodes.take()[0] == (1, 1, 1)
    assert nodes.counts(nodes.second) == {"waiting": 2}
    assert nodes.contents(nodes.second) == [b"content of 1"]


def test_what_would_be_done_otherwise_or_go_elsewhere_waits_for_a_person(
    nodes: Nodes,
) -> None:
    """What is owed marked does not leave as it came, since a route is called alike."""
    nodes.owe(1, "research", "copies")
    nodes.owe(2, "research")
    queue, promises = nodes.first.queue({"copies"}), nodes.first.commitments()
    claimed = [queue.claim(NOON, MINUTE) for _ in range(3)]
    (job,) = (one for one in claimed if one and one.sop_instance_uid == "1.2.3.2")
    promises.sent([Sent(job, "pacs", Reference("1.2.840", "1.2.3.2"))], NOON, NOON)
    queue.close()
    promises.close()
    nodes.begin()
    nodes.pack()
    nodes.tables = TABLES.replace('action = "mark"', 'action = "pass"')
    assert nodes.take()[0] == (2, 3, 0)
    assert nodes.counts(nodes.second) == {"waiting": 1, "quarantined": 2}
    with closing(nodes.second.queue()) as queue:
        for held in queue.held(JobState.QUARANTINED):
            assert "'research': mark (" in held.reason
            assert "at n1, which owed it, and pass here" in held.reason
    with closing(nodes.second.commitments()) as promises:
        assert promises.awaited() == []


def test_what_would_go_to_another_host_is_held(nodes: Nodes) -> None:
    nodes.owe(1, "copies")
    nodes.begin()
    nodes.pack()
    nodes.tables = TABLES.replace("port = 104", "port = 105")
    nodes.take()
    with closing(nodes.second.queue()) as queue:
        (held,) = queue.held()
        assert "127.0.0.1:104 at n1, and PACS at 127.0.0.1:105 here" in held.reason


def test_other_bytes_under_the_name_are_kept_apart(nodes: Nodes) -> None:
    nodes.owe(1, "copies")
    queue = nodes.second.queue({"copies"})
    spool = nodes.second.spool(nodes.second.keys().spool)
    name = spool.write([b"others"])
    queue.add(Arrival("1.2.3.1", bytes(32), name), [Owed("copies", "pacs")], NOON)
    queue.close()
    nodes.begin()
    nodes.pack()
    nodes.take()
    assert nodes.counts(nodes.second) == {"waiting": 1, "quarantined": 1}


@pytest.mark.parametrize("at", [0, 2, 5, 8])
def test_a_take_that_is_cut_off_goes_on_where_it_stopped(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    for number in range(3):
        nodes.owe(number, "research")
    nodes.begin()
    nodes.pack()
    calls = 0

    def cut(before: Callable[..., object]) -> Callable[..., object]:
        def called(*given: object, **more: object) -> object:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise OSError("the power went")
            return before(*given, **more)

        return called

    with monkeypatch.context() as patched:
        patched.setattr(Handing, "take", cut(Handing.take))
        patched.setattr(Handing, "has", cut(Handing.has))
        patched.setattr(Handing, "needs", cut(Handing.needs))
        with pytest.raises(OSError, match="the power went"):
            nodes.take()
    assert nodes.take()[0] == (3, 3, 0)
    assert nodes.counts(nodes.second) == {"waiting": 3}
    queue = nodes.second.queue()
    spool = nodes.second.spool()
    spool.sweep(queue.files())
    queue.close()
    assert len(nodes.contents(nodes.second)) == 3


def test_it_is_packed_again_after_it_was_cut_off(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.owe(1, "copies")
    nodes.begin()
    with monkeypatch.context() as patched:
        patched.setattr("dicom_node.handover.sync_folder", _power_cut)
        with pytest.raises(OSError, match="the power went"):
            nodes.pack()
    with pytest.raises(SpoolError, match="no whole hand-over"):
        nodes.take()
    nodes.pack()
    _, older = nodes.take()
    nodes.pack()
    with pytest.raises(SpoolError, match="for what was packed before"):
        nodes.finish(older)
    assert nodes.finish(nodes.take()[1]) == 1
    assert nodes.counts(nodes.second) == {"waiting": 1}


def _power_cut(*_: object) -> None:
    raise OSError("the power went")


def test_a_hand_over_is_for_one_node_of_one_site(nodes: Nodes) -> None:
    nodes.owe(1, "copies")
    nodes.begin()
    nodes.pack()
    with pytest.raises(KeyFolderError, match="is for n2, and this is n1"):
        take(nodes.first, nodes.config(nodes.first), nodes.first.keys(), nodes.folder)
    other = Site(nodes.site.folder / "other").joined("n2")[0]
    with pytest.raises(KeyFolderError, match="not what a node of this site has packed"):
        take(other, nodes.config(other), other.keys(), nodes.folder)
    body = (nodes.folder / "handover.json").read_bytes()
    assert b"1.2.3.1" not in body
    assert all(
        b"content of 1" not in file.read_bytes() for file in nodes.folder.iterdir()
    )


def test_a_hand_over_that_a_stranger_has_made_up_is_not_taken(nodes: Nodes) -> None:
    """All that it takes but the signature is public: the tenant, and a node's key."""
    stranger = Site(nodes.site.folder / "other").lead.keys()
    tenant = nodes.second.keys().ring.tenant
    assert stranger.signer() is not None  # opened, as its own, before it pretends
    assert stranger.epochs.newest() is not None
    stranger._store.ring = replace(stranger._store.ring, tenant=tenant)
    known = nodes.first.keys().nodes.others()["n2"]
    Packing(nodes.folder, "ab" * 16).finish({}, stranger, "n2", known)
    with pytest.raises(KeyFolderError, match="not what a node of this site has packed"):
        nodes.take()


def test_a_file_that_was_changed_on_the_way_is_not_taken(nodes: Nodes) -> None:
    nodes.owe(1, "copies")
    nodes.begin()
    nodes.pack()
    for file in nodes.folder.glob("*.sealed"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(Exception, match="is not as it was written"):
        nodes.take()
    assert nodes.counts(nodes.second) == {}


def test_a_receipt_is_believed_from_the_node_it_went_to(nodes: Nodes) -> None:
    nodes.owe(1, "copies")
    nodes.begin()
    nodes.pack()
    _, receipt = nodes.take()
    values = json.loads(receipt)
    values["signature"] = values["signature"][::-1]
    with pytest.raises((KeyFolderError, ValueError)):
        nodes.finish(json.dumps(values).encode())
    assert nodes.counts(nodes.first) == {"waiting": 1}


def test_records_of_an_epoch_that_is_gone_there_are_not_taken(nodes: Nodes) -> None:
    nodes.owe(1, "copies")
    lead = nodes.site.lead.keys()
    with nodes.site.lead.ledger() as ledger:
        end_epochs(lead, ledger, NOON)
    charter = nodes.site.issue()
    nodes.site.take("n2", charter)
    nodes.begin()
    nodes.pack()
    with pytest.raises(LedgerError, match="epochs 1 to 1, and this node has 2 to 2"):
        nodes.take()
    nodes.site.take("n1", charter)
    nodes.pack()
    assert nodes.take()[0] == (1, 1, 0)


def test_while_it_is_emptied_nothing_comes_in_and_it_does_not_start_again(
    nodes: Nodes,
) -> None:
    nodes.owe(1, "copies")
    config = nodes.config(nodes.first)
    room = Room(nodes.first.folder, config.storage)
    room.require()
    nodes.begin()
    assert is_draining(nodes.first.folder)
    with pytest.raises(SpoolError, match="being drained"):
        Room(nodes.first.folder, config.storage).require()
    file = nodes.first.folder.with_suffix(".toml")
    nodes.pack()
    assert left(nodes.first, config).jobs == 1
    ended = miadmark("serve", "--config", file)
    assert (ended.returncode, "handed over to n2" in ended.stderr) == (1, True)
    nodes.finish(nodes.take()[1])
    ended = miadmark("serve", "--config", file)
    assert (ended.returncode, "was emptied" in ended.stderr) == (1, True)
    told = miadmark("drain", "status", "--config", file)
    assert told.returncode == 0, told.stdout
    ended = miadmark(
        *("drain", "cancel", "--by", "anna", "--why", "new disk", "--config", file)
    )
    assert (ended.returncode, is_draining(nodes.first.folder)) == (0, False)


def test_nothing_is_packed_while_the_node_runs(nodes: Nodes) -> None:
    nodes.owe(1, "copies")
    nodes.begin()
    holding = (
        "import fcntl, sys; f = open(sys.argv[1], 'ab'); "
        "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    lock = nodes.first.folder / "worker.lock"
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ConfigError, match=r"the node runs on .* \(worker\)"):
            nodes.pack()
        process.send_signal(signal.SIGKILL)
    nodes.pack()


@dataclass
class Search:
    """Finds another mark each time."""

    chance: np.random.Generator = field(default_factory=np.random.default_rng)
    searched: int = 0

    def find(self, wanted: Sequence[Wanted]) -> list[FoundMark]:
        self.searched += len(wanted)
        steps = self.chance.integers(-30, 31, (64, 64, 1), np.int8)
        return [FoundMark(steps, {"one": True}) for _ in wanted]


def marked(state: State, original: OpenInstance, search: Search) -> MarkedInstance:
    """Mark an original as a node does, and keep its record there."""
    keys = state.keys()
    with (
        state.ledger() as ledger,
        state.found_marks(keys) as found,
        state.renamings(keys) as renamings,
    ):
        (outcome,) = mark(
            [original],
            find=search.find,
            before=found.find,
            keys=Sealer(keys, ledger.number),
            now=NOON,
            holds_weak=True,
            style="fast auto",
        )
        assert isinstance(outcome, MarkedInstance), outcome
        keeper(keys, ledger, renamings, found, lambda: NOON)(outcome)
    return outcome


def test_the_memory_of_marks_goes_along(nodes: Nodes, images: Path) -> None:
    """What one node has marked, the other marks likewise, and restores."""
    original, search = opened(images / "ct.dcm"), Search()
    first = marked(nodes.first, original, search)
    nodes.begin()
    assert nodes.pack() == (0, 0)
    nodes.take()
    second = marked(nodes.second, original, search)
    assert search.searched == 1
    assert second.marked_digest == first.marked_digest
    assert second.sop_instance_uid == first.sop_instance_uid
    keys = nodes.second.keys()
    with nodes.second.ledger() as ledger:
        sent = OpenInstance.of(first.file.to_bytes(), Limits())
        restored = strip(sent, opening_with(keys, ledger))
    assert restored.file.dataset == original.file.dataset


def test_two_marks_of_one_original_are_told(nodes: Nodes, images: Path) -> None:
    original = opened(images / "ct.dcm")
    for state in (nodes.first, nodes.second):
        marked(state, original, Search())
    nodes.begin()
    nodes.pack()
    config = nodes.config(nodes.second)
    got, _ = take(nodes.second, config, nodes.second.keys(), nodes.folder)
    assert got.differing == 1


def test_what_is_still_to_be_listed_goes_along(nodes: Nodes, images: Path) -> None:
    original = opened(images / "ct.dcm")
    with closing(nodes.first.listings(nodes.first.keys())) as listings:
        listings.note("research", ToList.of(original), NOON)
    nodes.begin()
    nodes.pack()
    nodes.finish(nodes.take()[1])
    with closing(nodes.first.listings(nodes.first.keys())) as listings:
        assert listings.entries().sent == []
    with closing(nodes.second.listings(nodes.second.keys())) as listings:
        assert listings.quiet("research", NOON) is not None
        listings.keep_only([])
    nodes.take()
    with closing(nodes.second.listings(nodes.second.keys())) as listings:
        assert listings.quiet("research", NOON) is None


def test_what_peers_asked_for_and_what_is_not_promised_goes_along(
    nodes: Nodes,
) -> None:
    nodes.owe(1, "copies")
    queue, promises = nodes.first.queue({"copies"}), nodes.first.commitments()
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    reference = Reference("1.2.840", "1.2.3.1")
    promises.sent([Sent(job, "pacs", reference)], NOON, NOON)
    promises.take("CT1", Request("1.2.9", (reference,)), NOON, 10)
    queue.close()
    promises.close()
    nodes.begin()
    assert nodes.pack() == (1, 1)
    assert nodes.finish(nodes.take()[1]) == 1
    with closing(nodes.first.commitments()) as promises:
        assert promises.awaited() == []
        assert promises.untold() == []
    with closing(nodes.second.commitments()) as promises:
        (awaited,) = promises.awaited()
        assert (awaited.destination, awaited.instances) == ("pacs", 1)
        assert [one.peer for one in promises.untold()] == ["CT1"]
        later = NOON + 60 * MINUTE
        transaction = promises.ask("pacs", "1.2.8", later, later + MINUTE, 10)
        assert transaction is not None
        assert transaction.request.references == (reference,)
    assert nodes.counts(nodes.second) == {"uncommitted": 1}
