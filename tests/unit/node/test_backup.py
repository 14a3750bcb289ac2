"""A state folder is copied while it changes, and comes back whole or not at all."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node import backup
from dicom_node.audit import Audit, Event
from dicom_node.backup import LIST, back_up, put_back
from dicom_node.errors import ConfigError
from dicom_node.forgetting import GRACE, LASTS, Forgetting
from dicom_node.incoming import IncomingFile
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.sql_queue import SqlQueue
from dicom_node.spool import Spool
from dicom_node.state import State
from dicom_node.state_format import FILE, FORMAT
from tests.conftest import miadmark

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path) -> State:
    """One with keys, ledger, grants, an audit, and two instances that are owed."""
    made = State(tmp_path / "state")
    made.keys()
    with made.ledger() as ledger:
        ledger.number()
    queue, spool = made.queue(), made.spool()
    for number in range(2):
        arrive(queue, spool, number)
    queue.close()
    (made.folder / "audit.jsonl").write_bytes(b'{"n": 1}\n{"n": 2}\n{"half')
    (spool.incoming / "coming.in").write_bytes(b"x")
    (made.folder / "reserve").write_bytes(bytes(100))
    return made


def arrive(queue: SqlQueue, spool: Spool, number: int) -> None:
    part = spool.incoming / f"{number}.in"
    part.write_bytes(b"object %d" % number)
    name = spool.take(part)
    arrival = Arrival(f"1.2.{number}", b"%d" % number, name, "1.2")
    queue.add(arrival, [Owed("r", "d")], NOON)


def owed(folder: Path) -> set[bytes]:
    """What the queue in a folder owes, read from its spool."""
    with closing(sqlite3.connect(folder / "queue.sqlite")) as queue:
        names = [
            name
            for (name,) in queue.execute(
                "SELECT file FROM instance WHERE file IS NOT NULL"
            )
        ]
    return {(folder / "spool" / name).read_bytes() for name in names}


def test_what_was_backed_up_comes_back(state: State, tmp_path: Path) -> None:
    backup, again = tmp_path / "backup", tmp_path / "again"
    count = back_up(state.folder, backup)
    assert put_back(backup, again) == count
    assert owed(again) == {b"object 0", b"object 1"}
    assert (again / "audit.jsonl").read_bytes() == b'{"n": 1}\n{"n": 2}\n'
    assert not (again / "reserve").exists()
    assert list((again / "spool").glob("incoming/*")) == []
    before, after = state.keys(), State(again).keys()
    assert after.site("").fingerprint == before.site("").fingerprint
    for file in (state.folder / "keys").iterdir():
        if file.is_file() and file.suffix != ".lock":
            copied = again / "keys" / file.name
            assert copied.read_bytes() == file.read_bytes()
            assert copied.stat().st_mode == file.stat().st_mode
    for folder in (again, again / "keys", again / "spool"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_restored_original_is_made_again_and_no_part_of_a_copy(
    state: State, tmp_path: Path
) -> None:
    queue, spool = state.queue(), state.spool()
    names = []
    for purpose in ("strip d", "mark d"):
        job = queue.claim(NOON, timedelta(minutes=1))
        assert job is not None
        names.append(spool.write([purpose.encode()]))
        assert queue.keep_filtered(job, names[-1], purpose)
    queue.close()
    back_up(state.folder, tmp_path / "backup")
    there = [(tmp_path / "backup" / "spool" / name).exists() for name in names]
    assert there == [False, True]


def test_a_copy_that_is_made_while_instances_come_and_go_owes_what_it_has(
    state: State, tmp_path: Path
) -> None:
    over = threading.Event()

    def work() -> None:
        queue, spool = state.queue(), state.spool()
        number, moment = 100, NOON
        while not over.is_set():
            arrive(queue, spool, number)
            number, moment = number + 1, moment + timedelta(seconds=1)
            job = queue.claim(moment, timedelta(minutes=1))
            if job is not None and number % 3:
                queue.sent([job], moment)
                spool.delete(queue.forget_sent([job]))
        queue.close()

    working = threading.Thread(target=work)
    working.start()
    try:
        for number in range(5):
            back_up(state.folder, tmp_path / str(number))
    finally:
        over.set()
        working.join()
    for number in range(5):
        found = owed(tmp_path / str(number))  # every file that it owes is there
        files = list((tmp_path / str(number) / "spool").iterdir())
        assert len(files) == len(found) > 0


def test_an_audit_that_is_put_aside_meanwhile_is_copied_whole(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state.folder / "audit.jsonl").unlink()
    key, real = state.keys().derive(b"audit"), backup._copy_if_there

    def audit(folder: Path) -> Audit:
        return Audit(folder / "audit.jsonl", key, lambda: NOON, most_bytes=500)

    def copy(source: Path, target: Path) -> bool:
        audit(state.folder).add(Event.READ, by=source.name)
        return real(source, target)

    monkeypatch.setattr(backup, "_copy_if_there", copy)
    back_up(state.folder, tmp_path / "backup")
    assert len(list(state.folder.glob("audit-*.jsonl"))) > 1
    put_back(tmp_path / "backup", tmp_path / "again")
    before, after = (
        list(audit(f).entries()) for f in (state.folder, tmp_path / "again")
    )
    assert after == before

    monkeypatch.undo()
    # Whoever put it aside has died before there was another.
    path = state.folder / "audit.jsonl"
    path.replace(path.with_name("audit-999999999999.jsonl"))
    back_up(state.folder, tmp_path / "without")
    assert (tmp_path / "without" / "audit-999999999999.jsonl").exists()
    assert not (tmp_path / "without" / "audit.jsonl").exists()


def test_no_key_goes_between_the_copy_of_what_it_seals_and_its_own(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment, keyring = [datetime.now(UTC)], state.keys()
    spool = state.spool(keyring.spool)
    forgetting = Forgetting(keyring.spool, spool, lambda: moment[0])
    handed = forgetting.begin()
    queue, part = state.queue(), IncomingFile(spool.incoming, keyring.spool)
    part.write(b"sealed")
    part.finish()
    part.close()
    name = spool.take(Path(part.name))
    queue.add(Arrival("1.2.9", b"9", name, "1.2"), [Owed("sealed", "d", 9)], NOON)
    moment[0] += LASTS
    forgetting.turn(handed)
    moment[0] += GRACE
    real = backup._keys_held

    def held(folder: Path) -> AbstractContextManager[None]:
        """Have it sent, and its key destroyed, once most has been copied."""
        job = queue.claim(moment[0], timedelta(minutes=1))
        assert job is not None
        assert job.route == "sealed"
        queue.sent([job], moment[0])
        spool.delete(queue.forget_sent([job]))
        forgetting.turn(handed)
        return real(folder)

    monkeypatch.setattr(backup, "_keys_held", held)
    back_up(state.folder, tmp_path / "backup")
    queue.close()
    put_back(tmp_path / "backup", tmp_path / "again")
    again = State(tmp_path / "again")
    ring = again.keys().spool
    assert [key.version for key in ring.all()] == [2]
    Forgetting(ring, again.spool(ring), lambda: moment[0]).begin().close()
    handed.close()


def test_what_was_half_put_back_is_opened_by_nobody(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: Path, target: Path) -> None:
        if source.name == "ledger.sqlite":
            raise KeyboardInterrupt  # stands for the end of the process
        real(source, target)

    real, again = backup._copy, tmp_path / "again"
    back_up(state.folder, tmp_path / "backup")
    monkeypatch.setattr(backup, "_copy", copy)
    with pytest.raises(KeyboardInterrupt):
        put_back(tmp_path / "backup", again)
    assert (again / "keys").is_dir()
    half = State(again)
    for opened in (half.keys, half.queue, half.ledger, half.spool):
        with pytest.raises(ConfigError, match="interrupted"):
            opened()
    with pytest.raises(ConfigError, match="interrupted"):
        back_up(again, tmp_path / "of half")


def test_a_file_that_was_lost_before_is_no_reason_to_have_no_backup(
    state: State, tmp_path: Path
) -> None:
    lost, _ = (state.folder / "spool").glob("*.dcm")
    lost.unlink()
    back_up(state.folder, tmp_path / "backup")
    assert len(list((tmp_path / "backup" / "spool").iterdir())) == 1


@pytest.mark.parametrize("harm", ["no list", "changed", "missing"])
def test_what_is_no_whole_backup_is_refused(
    state: State, tmp_path: Path, harm: str
) -> None:
    backup = tmp_path / "backup"
    back_up(state.folder, backup)
    if harm == "no list":
        (backup / LIST).unlink()
    elif harm == "changed":
        (backup / "audit.jsonl").write_bytes(b'{"n": 1}\n')
    else:
        next((backup / "spool").iterdir()).unlink()
    with pytest.raises(ConfigError, match=r"no whole backup|not what was backed up"):
        put_back(backup, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_nothing_is_overwritten(state: State, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    back_up(state.folder, backup)
    with pytest.raises(ConfigError, match="not empty"):
        back_up(state.folder, backup)
    with pytest.raises(ConfigError, match="not empty"):
        put_back(backup, state.folder)


def test_a_list_that_names_other_places_is_refused(
    state: State, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    back_up(state.folder, backup)
    found = json.loads((backup / LIST).read_bytes())
    found["files"]["../outside"] = ""
    (backup / LIST).write_text(json.dumps(found))
    with pytest.raises(ConfigError, match="outside the backup"):
        put_back(backup, tmp_path / "again")


class TestFormat:
    def test_a_folder_of_an_earlier_version_is_taken_on(self, state: State) -> None:
        (state.folder / FILE).unlink()
        assert state.queue().counts()
        assert json.loads((state.folder / FILE).read_bytes()) == {"format": FORMAT}

    def test_a_folder_of_a_later_version_is_left_alone(
        self, state: State, tmp_path: Path
    ) -> None:
        backup = tmp_path / "backup"
        (state.folder / FILE).write_text(json.dumps({"format": FORMAT + 1}))
        for opened in (state.queue, state.ledger, state.keys, state.spool):
            with pytest.raises(ConfigError, match="a later version has used it"):
                opened()
        back_up(state.folder, backup)
        with pytest.raises(ConfigError, match="this version knows formats up to"):
            put_back(backup, tmp_path / "again")

    def test_damage_is_no_format(self, state: State) -> None:
        (state.folder / FILE).write_text("{")
        with pytest.raises(ConfigError, match="does not say which format"):
            state.queue()


def test_the_command_says_what_it_did(state: State, tmp_path: Path) -> None:
    backup, again = tmp_path / "backup", tmp_path / "again"
    done = miadmark("state", "backup", backup, "--state", state.folder)
    assert done.returncode == 0, done.stderr
    assert "It holds keys" in done.stdout
    done = miadmark("state", "restore", backup, "--state", again)
    assert done.returncode == 0, done.stderr
    done = miadmark("state", "restore", backup, "--state", again)
    assert done.returncode == 1
    assert "is not empty" in done.stderr
